"""Reads gzip streams with a bounded ratio; knows the marks of what it does not read."""

import zlib
from typing import Final

from worker_email_parser.errors import GzipDamagedError, GzipRatioError, GzipTruncatedError
from worker_email_parser.splitter import ReadableStream

GZIP_MAGIC: Final = b"\x1f\x8b"
RATIO_LIMIT: Final = 100  # bytes out per byte in; real mail compresses 2:1 to 10:1
RATIO_FREE: Final = 16 * 1024 * 1024  # bytes out before the ratio is looked at
_READ: Final = 256 * 1024
_OTHERS: Final = {
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"PK\x03\x04": "zip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"LZIP": "lzip",
    b"!BDN": "an Outlook folder (PST)",
}


def foreign_format(beginning: bytes) -> str | None:
    """Name the compression or container that a file begins with, if it is one we do not read."""
    return next((name for magic, name in _OTHERS.items() if beginning.startswith(magic)), None)


class GzipStream:
    """A readable stream of what a gzip stream holds, members one after another.

    `consumed` counts the compressed bytes, for progress.
    """

    def __init__(self, stream: ReadableStream) -> None:
        """Store the stream; nothing is read yet."""
        self.consumed = 0
        self._stream = stream
        self._decompressor = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self._pending = b""
        self._produced = 0
        self._ended = False

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, none at the end.

        Raises:
            ArchiveError: truncated, damaged, or more than `RATIO_LIMIT` times its compressed size.
        """
        while not self._ended:
            if not self._pending and not self._fill():
                break
            data = self._inflate(size)
            if data:
                return data
        return b""

    def _fill(self) -> bool:
        self._pending = self._stream.read(_READ)
        self.consumed += len(self._pending)
        if self._pending:
            return True
        self._ended = True
        if not self._decompressor.eof:
            raise GzipTruncatedError(self._produced)
        return False

    def _inflate(self, size: int) -> bytes:
        if self._decompressor.eof:  # another member follows, or padding
            self._pending = self._pending.lstrip(b"\0")
            if not self._pending:
                return b""
            self._decompressor = zlib.decompressobj(zlib.MAX_WBITS | 16)
        try:
            data = self._decompressor.decompress(self._pending, max(size, 1))
        except zlib.error as error:
            raise GzipDamagedError(self._produced, error) from error
        self._pending = self._decompressor.unconsumed_tail or self._decompressor.unused_data
        self._produced += len(data)
        if self._produced > max(RATIO_FREE, RATIO_LIMIT * self.consumed):
            raise GzipRatioError(self._produced, RATIO_LIMIT)
        return data
