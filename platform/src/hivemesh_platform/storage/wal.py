"""Finds out whether the write-ahead log of a SQLite file still holds all that was committed.

SQLite takes a log that is gone for an empty one, and one that is damaged up to the damage: commits
would be gone, and nobody told. A clean close removes the log (`-wal`) and its index (`-shm`); after
any other end the index is still there, and says how far the log reaches.

The checksums of a log are computed here at some 60 ms per MiB. Of one that reaches over 32 MiB only
the heads of the frames are read, and the checksum that stands in the last one: a log that is gone,
cut, another one, or overwritten over a head is found as before, a changed byte within a page is not.
"""

import os
import struct
import sys
from array import array
from pathlib import Path
from typing import BinaryIO, NamedTuple

# As in https://www.sqlite.org/walformat.html; the index is in the machine's byte order.
_INDEX = struct.Struct("=3I2BH8I")  # twice
_INDEX_BYTES = 2 * _INDEX.size + 4
_INDEX_VERSION = 3_007_000
_HEAD = struct.Struct(">8I")
_FRAME = struct.Struct(">6I")  # before each page
_MAGIC = {0x377F0682: "little", 0x377F0683: "big"}  # the byte order of the checksums
_LARGEST_PAGE = 65_536
_WORD = 0xFFFF_FFFF
_SUMMED_BYTES = 32 * 1024 * 1024

Pair = tuple[int, int]


class _Index(NamedTuple):
    """How far the log reaches, and how much of it is in the file already."""

    frames: int
    stored: int
    page: int
    checksum: Pair  # of everything up to the last frame
    salt: bytes


def lost(file: Path) -> str:
    """Say what is wrong with the log of a file, or "" where no commit is missing.

    Whatever uses the file meanwhile may go on: what changes under the look is not judged.
    """
    log, index = file.with_name(f"{file.name}-wal"), file.with_name(f"{file.name}-shm")
    before = _read(index)
    if before is None:
        return ""
    found = _judge(log, _parse(before))
    after = _read(index) if found else None
    same = after is not None and after[: 2 * _INDEX.size] == before[: 2 * _INDEX.size]
    return found if same else ""


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(_INDEX_BYTES)
    except FileNotFoundError:
        return None


def _parse(data: bytes) -> _Index | None:
    """Read an index; None where it was never written, or is being written."""
    if len(data) < _INDEX_BYTES or data[: _INDEX.size] != data[_INDEX.size : 2 * _INDEX.size]:
        return None
    version, _, _, made, _, page, frames, _, *sums = _INDEX.unpack_from(data)
    if version != _INDEX_VERSION or not made:
        return None
    stored = int.from_bytes(data[2 * _INDEX.size :], sys.byteorder)
    size = _LARGEST_PAGE if page == 1 else page
    return _Index(frames, stored, size, (sums[0], sums[1]), data[32:40])


def _judge(log: Path, index: _Index | None) -> str:
    if index is not None and not index.frames:
        return ""
    try:
        with log.open("rb") as file:
            return "" if index is None or _holds(file, index) else "is damaged"
    except FileNotFoundError:
        if index is None:
            return "may be gone (nobody can tell: its index says nothing)"
        return "" if index.stored == index.frames else "is gone"


def _holds(log: BinaryIO, index: _Index) -> bool:
    """Whether SQLite would take the log as far as the index says; of a long one, by its heads."""
    head = log.read(_HEAD.size)
    order = _MAGIC.get(int.from_bytes(head[:4], "big"), "")
    if len(head) < _HEAD.size or not order:
        return False
    *_, first, second = _HEAD.unpack(head)
    checksum = _checksum(head[:24], order, (0, 0))
    if checksum != (first, second):
        return False
    if head[16:24] != index.salt:
        return True  # a power failure kept an older index than log
    if index.frames * (_FRAME.size + index.page) > _SUMMED_BYTES:
        return _reaches(log.fileno(), index)
    return _adds_up(log, index, order, checksum)


def _adds_up(log: BinaryIO, index: _Index, order: str, checksum: Pair) -> bool:
    """Whether each frame has the checksum of all before it, from that of the header on."""
    for _ in range(index.frames):
        frame, page = log.read(_FRAME.size), log.read(index.page)
        if len(page) < index.page:
            return False
        checksum = _checksum(page, order, _checksum(frame[:8], order, checksum))
        *_, first, second = _FRAME.unpack(frame)
        if frame[8:16] != index.salt or checksum != (first, second):
            return False
    return checksum == index.checksum


def _reaches(log: int, index: _Index) -> bool:
    """Whether each frame is one of this log, and the last one the one that the index means."""
    step = _FRAME.size + index.page
    frame = b""
    for number in range(index.frames):
        frame = os.pread(log, _FRAME.size, _HEAD.size + number * step)
        if len(frame) < _FRAME.size or frame[8:16] != index.salt:
            return False
    *_, first, second = _FRAME.unpack(frame)
    whole = os.fstat(log).st_size >= _HEAD.size + index.frames * step
    return whole and (first, second) == index.checksum


def _checksum(data: bytes, order: str, start: Pair) -> Pair:
    words = array("I", data)
    if order != sys.byteorder:
        words.byteswap()
    first, second = start
    for one, other in zip(words[::2], words[1::2], strict=True):
        first = (first + one + second) & _WORD
        second = (second + other + first) & _WORD
    return first, second
