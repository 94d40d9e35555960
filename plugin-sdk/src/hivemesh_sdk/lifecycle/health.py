"""A file that a running worker refreshes and the container's probe looks at; no port, no key.

It lies in a folder that only this user may enter. Its age says that the loop turns, its content
which state the worker is in.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from hivemesh_sdk.errors import ConfigurationError, NotFoundError
from hivemesh_sdk.lifecycle.private import own_path, private_folder
from hivemesh_sdk.safeio.names import file_name

STALE_S = 10.0  # five heartbeats
SUFFIX = ".health"
HEALTHY = frozenset({"live", "alone", "draining"})

_log = structlog.get_logger("hivemesh.lifecycle")


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """What the worker says of itself."""

    worker: str
    instance: str
    pid: int
    state: str  # starting, live, alone, draining


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a worker is healthy, and why not."""

    worker: str
    healthy: bool
    reason: str


class HealthFile:
    """Writes the state of one worker process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written: Health | None = None
        self._failed = False

    @classmethod
    def of(cls, worker: str) -> "HealthFile":
        """The file of this process in its user's own folder."""
        return cls(own_path(worker, SUFFIX))

    def beat(self, health: Health) -> None:
        """Refresh the file; its content is written only when it changed.

        A full disk ends no worker: the probe will find the file too old.
        """
        try:
            self._refresh(health)
        except OSError as error:
            if not self._failed:
                _log.warning("health_file_not_written", detail=str(error))
            self._failed = True
        else:
            self._failed = False

    def _refresh(self, health: Health) -> None:
        if health == self._written and self._path.exists():
            os.utime(self._path)
            return
        temporary = self._path.with_name(f"{self._path.name}.new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
            file.write(msgspec.json.encode(health))
        temporary.replace(self._path)
        self._written = health

    def remove(self) -> None:
        """Forget it: the process ends."""
        self._path.unlink(missing_ok=True)


def judge(
    worker: str | None = None, *, folder: Path | None = None, now: float | None = None
) -> Verdict:
    """Look at the newest file of a worker, or of any.

    Raises:
        NotFoundError: no such worker runs here.
    """
    pattern = f"{file_name(worker)}.*{SUFFIX}" if worker else f"*{SUFFIX}"
    paths = (folder or private_folder()).glob(pattern)
    files = sorted((path.stat().st_mtime, path) for path in paths)
    if not files:
        message = f"no worker {worker!r} runs here" if worker else "no worker runs here"
        raise NotFoundError(message)
    modified, path = files[-1]
    try:
        health = msgspec.json.decode(path.read_bytes(), type=Health)
    except msgspec.DecodeError as error:
        message = f"{str(path)!r} is no health file"
        raise ConfigurationError(message) from error
    age = (time.time() if now is None else now) - modified
    if age > STALE_S:
        return Verdict(health.worker, healthy=False, reason=f"no sign of life for {age:.0f} s")
    return Verdict(health.worker, healthy=health.state in HEALTHY, reason=health.state)
