"""The log file of a worker: its processes append to it, the platform bounds and shows it.

The processes write straight to the file, so that a killed platform does not break them. Rotation
copies and truncates, which is safe because every writer appends.
"""

import os
import shutil
from pathlib import Path

import structlog

BLOCK = 64 * 1024

_log = structlog.get_logger("hivemesh.supervisor")


class WorkerLog:
    """One worker's log."""

    def __init__(self, path: Path, *, max_bytes: int, files: int) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._files = files

    def open(self) -> int:
        """A descriptor for the output of a process."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        return os.open(self.path, flags, 0o600)

    def rotate(self) -> bool:
        """Move a log that has grown too large aside; says whether it was."""
        try:
            if self.path.stat().st_size <= self._max_bytes:
                return False
        except FileNotFoundError:
            return False
        copy = self.path.with_name(f"{self.path.name}.copy")
        try:
            shutil.copyfile(self.path, copy)
            copy.chmod(0o600)
        except OSError as error:  # such as a full disk: what there is stays as it is
            copy.unlink(missing_ok=True)
            _log.error("log_not_rotated", log=self.path.name, detail=str(error))
            return False
        for number in range(self._files - 1, 0, -1):
            older = self._numbered(number)
            if older.exists():
                older.replace(self._numbered(number + 1))
        copy.replace(self._numbered(1))
        os.truncate(self.path, 0)
        return True

    def tail(self, lines: int) -> bytes:
        """The last lines, from the older file too where the present one is short."""
        found = _tail(self.path, lines)
        missing = lines - found.count(b"\n")
        if missing > 0:
            found = _tail(self._numbered(1), missing) + found
        return found

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")


def _tail(path: Path, lines: int) -> bytes:
    try:
        with path.open("rb") as file:
            start = end = file.seek(0, os.SEEK_END)
            data = b""
            while start > 0 and data.count(b"\n") <= lines and end - start < 64 * BLOCK:
                start = max(0, start - BLOCK)
                file.seek(start)
                data = file.read(end - start)
    except FileNotFoundError:
        return b""
    return b"".join(data.splitlines(keepends=True)[-lines:])
