"""The end of the trail, told to the second place with every group of records.

Two slots of a page each, written in turn: a crash tears only the slot that was being written, and
the other one names the end before. The order of writes is records, end, answer. So the end never
names a record that is not durable, and what stands behind it was answered to nobody.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hivemesh_sdk.trust.jws import VerifyKey

from hivemesh_platform.audit.checkpoints import Checkpoint, checkpoint_of
from hivemesh_platform.audit.segments import sync_folder

SLOT = 4096  # a page: slots do not share one
SLOTS = 2


@dataclass(frozen=True, slots=True)
class Told:
    """What a file of an end says; without `end` nothing in it was signed by a known key."""

    end: Checkpoint | None = None
    line: str = ""  # as it was signed
    slot: int = 0  # where it stands
    unreadable: int = 0  # slots that hold something else


def told(path: Path, keys: Mapping[str, VerifyKey]) -> Told | None:
    """Read the end; None where the file is not there or empty.

    Raises:
        OSError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(SLOT * SLOTS)
    except FileNotFoundError:
        return None
    if not data:
        return None
    found = Told()
    for slot in range(SLOTS):
        text = data[slot * SLOT : (slot + 1) * SLOT].strip(b"\0\n").decode("ascii", "replace")
        one = checkpoint_of(text, keys) if text else None
        if one is not None and (found.end is None or one.seq >= found.end.seq):
            found = replace(found, end=one, line=text, slot=slot)
        elif text and one is None:
            found = replace(found, unreadable=found.unreadable + 1)
    return found


class EndFile:
    """Writes the end of one trail."""

    def __init__(self, path: Path, last: Told | None) -> None:
        self._path = path
        self._slot = last.slot if last else SLOTS - 1

    def write(self, line: str) -> None:
        """Replace the older slot and make it durable.

        Raises:
            FileNotFoundError: the file was taken away; `make` begins it anew.
            OSError: it is not durable.
        """
        slot = (self._slot + 1) % SLOTS
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            _write(descriptor, _padded(line), slot * SLOT)
        finally:
            os.close(descriptor)
        self._slot = slot

    def make(self, line: str) -> None:
        """Begin the file with this end.

        Raises:
            OSError: it cannot be made.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._path, flags, 0o600)
        try:
            _write(descriptor, _padded(line).ljust(SLOT * SLOTS, b"\0"), 0)
        finally:
            os.close(descriptor)
        sync_folder(self._path.parent)
        self._slot = 0


def _padded(line: str) -> bytes:
    return (line.encode("ascii") + b"\n").ljust(SLOT, b"\0")


def _write(descriptor: int, data: bytes, place: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(descriptor, rest, place)
        rest, place = rest[written:], place + written
    os.fdatasync(descriptor)
