"""Compressed streams read piece by piece, with what comes out counted against what went in."""

import bz2
import io
import lzma
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from hivemesh_sdk.errors import InvalidError

BLOCK = 64 * 1024
SLACK = 1024 * 1024  # small archives may compress well
_GZIP = 31  # zlib's window bits for the gzip format
_XZ_MEMORY = 64 * 1024 * 1024


class ArchiveTooLargeError(InvalidError):
    """More comes out than is allowed, or it takes too long."""

    slug = "archive-too-large"


class ArchiveDamagedError(InvalidError):
    """It cannot be read: damaged, encrypted, or of an unknown kind."""

    slug = "archive-damaged"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveLimits:
    """What one archive may hold, the archives inside it included."""

    bytes: int = 1024 * 1024 * 1024  # unpacked
    ratio: int = 100  # unpacked to packed
    entries: int = 10_000
    depth: int = 3  # archives in archives
    header_bytes: int = 1024 * 1024  # between two entries
    seconds: float = 300.0


@dataclass(slots=True)
class Budget:
    """What is left of the limits; shared with the archives inside."""

    name: str
    limits: ArchiveLimits
    packed: int  # bytes of the outermost archive
    unpacked: int = 0
    entries: int = 0
    until: float = field(init=False)

    def __post_init__(self) -> None:
        self.until = time.monotonic() + self.limits.seconds

    def count(self, size: int) -> None:
        """Take what came out off the budget.

        Raises:
            ArchiveTooLargeError: nothing is left.
        """
        self.unpacked += size
        limits = self.limits
        if self.unpacked > limits.bytes:
            message = f"{self.name} unpacks to more than {limits.bytes} bytes"
            raise ArchiveTooLargeError(message)
        if self.unpacked > limits.ratio * self.packed + SLACK:
            message = f"{self.name} unpacks to more than {limits.ratio} times its own size"
            raise ArchiveTooLargeError(message)
        if time.monotonic() > self.until:
            message = f"{self.name} takes longer than {limits.seconds:g} s"
            raise ArchiveTooLargeError(message)

    def entry(self) -> None:
        """Count one more entry.

        Raises:
            ArchiveTooLargeError: there are too many.
        """
        self.entries += 1
        if self.entries > self.limits.entries:
            message = f"{self.name} has more than {self.limits.entries} entries"
            raise ArchiveTooLargeError(message)


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Gzip:
    """zlib's object in the form of the other two, which keep what they have not read."""

    def __init__(self) -> None:
        self._object = zlib.decompressobj(_GZIP)

    @property
    def eof(self) -> bool:
        return self._object.eof

    @property
    def unused_data(self) -> bytes:
        return self._object.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        return self._object.decompress(self._object.unconsumed_tail + data, max_length)


_KINDS: dict[bytes, Callable[[], _Decompressor]] = {
    b"\x1f\x8b": _Gzip,
    b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ\x00": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY),
}


def is_compressed(head: bytes) -> bool:
    """Whether these first bytes begin a gzip, bzip2 or xz stream."""
    return any(head.startswith(magic) for magic in _KINDS)


class Unpacked(io.RawIOBase):
    """The content of a gzip, bzip2 or xz stream, of one member or several."""

    def __init__(self, file: BinaryIO, head: bytes) -> None:
        self._file = file
        self._kind = next(kind for magic, kind in _KINDS.items() if head.startswith(magic))
        self._decompressor: _Decompressor = self._kind()
        self._data = b""
        self._ended = False

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # the base takes any buffer
        """Fill the buffer as far as one step goes; 0 at the end.

        Raises:
            ArchiveDamagedError: it is damaged, or cut off.
        """
        while not self._ended:
            if self._decompressor.eof and not self._next_member():
                break
            piece = self._step(len(buffer))
            if piece:
                buffer[: len(piece)] = piece
                return len(piece)
        return 0

    def _step(self, most: int) -> bytes:
        data, self._data = self._data, b""
        try:
            piece = self._decompressor.decompress(data, most)
            if not piece and not data and not self._decompressor.eof:
                block = self._file.read(BLOCK)
                if not block:
                    message = "the compressed data is cut off"
                    raise ArchiveDamagedError(message)
                piece = self._decompressor.decompress(block, most)
        except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:
            message = f"the compressed data is damaged: {error}"
            raise ArchiveDamagedError(message) from error
        return piece

    def _next_member(self) -> bool:
        rest = self._decompressor.unused_data or self._file.read(BLOCK)
        if not rest.strip(b"\0"):  # padding
            self._ended = True
            return False
        self._decompressor = self._kind()
        self._data = rest
        return True
