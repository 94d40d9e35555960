"""The files of the trail: one per segment, named by its first sequence number.

`<first>.ndjson` holds records, `<first>.checkpoints` the signed checkpoints over them, and
`<first>.head` what a sealed segment leaves when it is dropped.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hivemesh_platform.audit.records import MAX_LINE

RECORDS = ".ndjson"
CHECKPOINTS = ".checkpoints"
HEAD = ".head"
_NAME = re.compile(r"(\d{16})\.(ndjson|head)")


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a folder; `dropped` where only its head is left."""

    first: int
    folder: Path
    dropped: bool = False

    @property
    def path(self) -> Path:
        """The file with the records."""
        return path_of(self.folder, self.first, RECORDS)

    @property
    def checkpoints(self) -> Path:
        """The file with the checkpoints."""
        return path_of(self.folder, self.first, CHECKPOINTS)

    @property
    def head(self) -> Path:
        """The file with the head; only a sealed segment has one."""
        return path_of(self.folder, self.first, HEAD)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a segment: where it begins, its bytes, and whether it ends with a newline."""

    offset: int
    data: bytes
    complete: bool


def path_of(folder: Path, first: int, suffix: str) -> Path:
    """A file of a segment."""
    return folder / f"{first:016d}{suffix}"


def segments(folder: Path) -> list[Segment]:
    """All segments of a folder in order."""
    kinds: dict[int, set[str]] = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        match = _NAME.fullmatch(path.name)
        if match is not None:
            kinds.setdefault(int(match[1]), set()).add(match[2])
    return [Segment(first, folder, "ndjson" not in kinds[first]) for first in sorted(kinds)]


def lines(path: Path, offset: int = 0) -> Iterator[Line]:
    """The lines of a file from an offset on; a longer one than a record can be comes in pieces."""
    with path.open("rb") as file:
        file.seek(offset)
        while data := file.readline(MAX_LINE):
            complete = data.endswith(b"\n")
            yield Line(offset, data[:-1] if complete else data, complete)
            offset += len(data)


def sync_folder(folder: Path) -> None:
    """Make new and removed names durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(descriptor: int, data: bytes, size: int) -> None:
    """Add bytes and make them durable, or take them back: the file had `size` bytes before.

    Raises:
        OSError: they are not there.
    """
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fdatasync(descriptor)
    except OSError:
        with suppress(OSError):
            os.ftruncate(descriptor, size)
        raise
