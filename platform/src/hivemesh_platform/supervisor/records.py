"""Remembers which processes were started, so that the next platform can adopt or end them.

One file per process in `run/` of the state folder, written before the process gets its token: one
that is not remembered can never join.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from hivemesh_sdk.trust.keys import write_private_file

from hivemesh_platform.supervisor.processes import ProcessId

SUFFIX = ".process.json"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A process that was started."""

    worker: str
    instance: str
    manifest_digest: str
    pid: int
    started: str

    @property
    def process(self) -> ProcessId:
        """Its identity."""
        return ProcessId(self.pid, self.started)


@dataclass(frozen=True, slots=True)
class Records:
    """The records of one state folder."""

    folder: Path

    def add(self, record: Record) -> None:
        """Remember a process, durably."""
        write_private_file(self._path(record.instance), msgspec.json.encode(record))

    def remove(self, instance: str) -> None:
        """Forget a process that has ended."""
        self._path(instance).unlink(missing_ok=True)

    def all(self) -> Sequence[Record]:
        """The processes that were started and not seen to end."""
        found = []
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            try:
                found.append(msgspec.json.decode(path.read_bytes(), type=Record))
            except (OSError, msgspec.MsgspecError):
                path.unlink(missing_ok=True)  # a file cut short by a power failure
        return found

    def _path(self, instance: str) -> Path:
        return self.folder / f"{instance}{SUFFIX}"
