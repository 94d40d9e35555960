"""Events of commands that work on a state folder beside the platform, such as `hivemesh init`.

One process writes the chain. Others leave each event in a file of its own, durable before the
action; the platform takes it into the chain when it runs.
"""

import secrets
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import msgspec
from hivemesh_sdk.clock import Clock
from hivemesh_sdk.trust.keys import write_private_file

from hivemesh_platform.audit.errors import AuditUnavailableError
from hivemesh_platform.audit.model import AuditEvent
from hivemesh_platform.audit.segments import sync_folder

FOLDER = "aside"
SUFFIX = ".json"


class _Left(msgspec.Struct, frozen=True):
    at: datetime
    event: AuditEvent


_DECODER = msgspec.json.Decoder(_Left)


class AsideTrail:
    """Leaves events for the platform that owns the folder of the trail."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder / FOLDER
        self._clock = clock

    async def record(self, event: AuditEvent) -> None:
        """Leave an event; durable when this returns.

        Raises:
            AuditUnavailableError: it cannot be written.
        """
        now = self._clock.now()
        name = f"{round(now.timestamp() * 1_000_000)}-{secrets.token_hex(4)}{SUFFIX}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_private_file(self._folder / name, msgspec.json.encode(_Left(now, event)))
            sync_folder(self._folder)
        except OSError as error:
            message = f"the audit trail cannot be written: {error.strerror or error}"
            raise AuditUnavailableError(message) from error

    def note(self, event: AuditEvent) -> None:
        """Nothing of the data plane happens beside the platform."""


def left(folder: Path) -> Iterator[tuple[Path, AuditEvent, datetime]]:
    """The events that were left, the oldest first; what cannot be read is left alone."""
    place = folder / FOLDER
    for path in sorted(place.glob(f"*{SUFFIX}")) if place.is_dir() else ():
        with suppress(OSError, msgspec.DecodeError):
            found = _DECODER.decode(path.read_bytes())
            yield path, found.event, found.at


def forget(path: Path) -> None:
    """Remove an event that is in the chain."""
    path.unlink()
    sync_folder(path.parent)
