"""A worker as a real process: started with a clean environment, ended by its pid, its log kept."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_INHERITED = ("PATH", "LANG", "LC_ALL", "HOME", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
LOG_TAIL = 4000


class WorkerProcess:
    """Starts the process on entry; ends it on exit, by force if it must."""

    def __init__(
        self, command: Sequence[str], variables: Mapping[str, str], token: str, *, cwd: Path
    ) -> None:
        self._command = list(command)
        self._variables = dict(variables)
        self._token = token
        self._cwd = cwd
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed on exit
        self._writer = -1
        self.process: subprocess.Popen[bytes]

    @staticmethod
    def command(folder: Path) -> list[str]:
        """How a Python worker is run by the environment of this process."""
        return [sys.executable, "-m", "hivemesh_sdk.cli", "run", str(folder)]

    def __enter__(self) -> Self:
        reader, self._writer = os.pipe()
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        try:
            self.process = subprocess.Popen(  # noqa: S603 - the worker under test
                self._command,
                env={**inherited, **self._variables, "HIVEMESH_TOKEN_FD": str(reader)},
                pass_fds=(reader,),
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                cwd=self._cwd,
            )
        finally:
            os.close(reader)
        self.give_token(self._token)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._writer)
        self._log.close()

    @property
    def pid(self) -> int:
        """The front process."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def give_token(self, token: str) -> None:
        """Write a line into the token pipe, as a supervisor does."""
        os.write(self._writer, f"{token}\n".encode())

    def stop(self, *, within_s: float) -> int:
        """Ask it to end (SIGTERM) and return its exit code.

        Raises:
            TimeoutError: it did not end in time.
        """
        self.process.send_signal(signal.SIGTERM)
        return self.wait(within_s=within_s)

    def wait(self, *, within_s: float) -> int:
        """Wait for its end."""
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired as error:
            message = f"the worker did not end within {within_s} s:\n{self.log()}"
            raise TimeoutError(message) from error

    def log(self) -> str:
        """The end of what it wrote."""
        size = os.fstat(self._log.fileno()).st_size
        start = max(0, size - LOG_TAIL)
        return os.pread(self._log.fileno(), LOG_TAIL, start).decode("utf-8", "replace")


def memory_of(pid: int) -> int:
    """Proportional set size of a process in bytes (shared pages count in part)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
