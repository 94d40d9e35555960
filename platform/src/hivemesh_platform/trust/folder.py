"""The folder of keys that several replicas may use: one changes it at a time, all see the change."""

import fcntl
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

FILE = "lock"
Signature = tuple[int, int, int]


class FolderLock:
    """Held by one thread of one process at a time; the thread that holds it may take it again."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._thread = threading.RLock()
        self._depth = 0
        self._descriptor = -1

    @property
    def is_outermost(self) -> bool:
        """Whether the holder has taken it once: what other processes changed is not read yet."""
        return self._depth == 1

    def __enter__(self) -> Self:
        """Wait for it."""
        self._thread.acquire()
        self._depth += 1
        if self._depth == 1:
            try:
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            except BaseException:
                self._leave()
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give it back."""
        self._leave()

    def _leave(self) -> None:
        if self._depth == 1 and self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._depth -= 1
        self._thread.release()


def signature(path: Path) -> Signature:
    """What differs once a file was replaced."""
    found = path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size
