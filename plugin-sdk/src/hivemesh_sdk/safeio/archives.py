"""Reads archives of strangers entry by entry: zip, tar, and single files in gzip, bzip2 or xz.

Nothing is written anywhere. Sizes in headers are not believed: bytes are counted as they come out.
Names are plain paths below the archive; links, special files, encrypted entries and names that
another system would take for the same one are refused.
"""

import io
import struct
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO, cast

from hivemesh_sdk.errors import InvalidError
from hivemesh_sdk.safeio.names import segments
from hivemesh_sdk.safeio.unpacking import (
    BLOCK,
    ArchiveDamagedError,
    ArchiveLimits,
    ArchiveTooLargeError,
    Budget,
    Unpacked,
    is_compressed,
)

_HEAD = 512
_USTAR = slice(257, 262)
_END_RECORD = struct.Struct("<4s4H2LH")  # of a zip: PK\5\6, disks, entries, size and place
_LOCATOR = 20  # bytes of a zip64 locator, which stands before the end record
_MOST_COMMENT = 65_535
_DIRECTORY_ENTRY = 1024  # bytes of a zip's directory per entry, at most
_SPOOL = 8 * 1024 * 1024
_ENCRYPTED = 0x1
_LINK, _TYPE, _PLAIN = 0o120000, 0o170000, (0o100000, 0)


class ArchiveUnsafeError(InvalidError):
    """An entry is no plain file below the archive."""

    slug = "archive-unsafe"


class Entry(io.RawIOBase):
    """One file of an archive; read it before the next one is taken."""

    def __init__(self, path: str, file: BinaryIO, budget: Budget, depth: int) -> None:
        self.path = path  # forward slashes, relative, checked
        self._file = file
        self._budget = budget
        self._depth = depth

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # the base takes any buffer
        """Fill the buffer as far as one step goes; 0 at the end.

        Raises:
            ArchiveDamagedError, ArchiveTooLargeError: it cannot be read, or not so much of it.
        """
        with _Told(self._budget.name):
            piece = self._file.read(min(len(buffer), BLOCK))
        buffer[: len(piece)] = piece
        self._budget.count(len(piece))
        return len(piece)

    def archive(self) -> "Iterator[Entry]":
        """Read the entry as an archive inside the archive; the limits are those of the outer one.

        Raises:
            ArchiveTooLargeError: it lies too deep.
        """
        if self._depth >= self._budget.limits.depth:
            message = f"{self.path!r} lies deeper than {self._budget.limits.depth} archives"
            raise ArchiveTooLargeError(message)
        with tempfile.SpooledTemporaryFile(_SPOOL) as file:
            while piece := self.read(BLOCK):
                file.write(piece)
            file.seek(0)
            yield from _entries(cast("BinaryIO", file), self._budget, self._depth + 1)


def read_archive(
    file: BinaryIO, *, name: str = "the archive", limits: ArchiveLimits | None = None
) -> Iterator[Entry]:
    """Yield the files of an archive; the kind is known by its first bytes, never by its name.

    `file` can be sought. A single compressed file is one entry named `data`.

    Raises:
        ArchiveUnsafeError: an entry is no plain file with a plain path.
        ArchiveTooLargeError: too many bytes, entries or levels, or it takes too long.
        ArchiveDamagedError: it cannot be read, is encrypted, or is no archive.
    """
    packed = file.seek(0, io.SEEK_END)
    file.seek(0)
    yield from _entries(file, Budget(name, limits or ArchiveLimits(), packed), 1)


def _entries(file: BinaryIO, budget: Budget, depth: int) -> Iterator[Entry]:
    head = _peek(file)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        yield from _zip_entries(file, budget, depth)
    elif is_compressed(head):
        yield from _compressed(io.BufferedReader(Unpacked(file, head)), budget, depth)
    elif head[_USTAR] == b"ustar":
        yield from _tar_entries(file, budget, depth)
    else:
        message = f"{budget.name} is no zip, tar, gzip, bzip2 or xz archive"
        raise ArchiveDamagedError(message)


def _compressed(unpacked: io.BufferedReader, budget: Budget, depth: int) -> Iterator[Entry]:
    if unpacked.peek(_HEAD)[_USTAR] == b"ustar":
        yield from _tar_entries(cast("BinaryIO", unpacked), budget, depth)
        return
    budget.entry()
    yield Entry("data", cast("BinaryIO", unpacked), budget, depth)


def _zip_entries(file: BinaryIO, budget: Budget, depth: int) -> Iterator[Entry]:
    _check_directory(file, budget)
    names = _Names(budget.name)
    with _Told(budget.name):
        archive = zipfile.ZipFile(file)
    with archive:
        for info in archive.infolist():
            budget.entry()
            path = names.take(info.orig_filename)
            _check_zip_entry(info, path)
            if info.is_dir():
                continue
            with _Told(budget.name):
                opened = archive.open(info)
            with opened:
                yield Entry(path, cast("BinaryIO", opened), budget, depth)


def _check_directory(file: BinaryIO, budget: Budget) -> None:
    """Believe the end record before the directory is loaded: it bounds what loading costs."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - _MOST_COMMENT - _END_RECORD.size - _LOCATOR))
    tail = file.read()
    file.seek(0)
    place = tail.rfind(b"PK\x05\x06")
    if place < 0 or len(tail) - place < _END_RECORD.size:
        message = f"{budget.name} has no directory; it is cut off"
        raise ArchiveDamagedError(message)
    if tail[max(0, place - _LOCATOR) : place].startswith(b"PK\x06\x07"):
        message = f"{budget.name} is a zip64 archive, whose directory has no bound"
        raise ArchiveTooLargeError(message)
    _, _, _, _, entries, directory, _, _ = _END_RECORD.unpack_from(tail, place)
    most = budget.limits.entries
    if entries > most or directory > most * _DIRECTORY_ENTRY:
        message = f"{budget.name} has more than {most} entries"
        raise ArchiveTooLargeError(message)


def _check_zip_entry(info: zipfile.ZipInfo, path: str) -> None:
    kind = info.external_attr >> 16 & _TYPE
    if not info.is_dir() and kind not in _PLAIN:
        what = "a link" if kind == _LINK else "a special file"
        message = f"{path!r} is {what}"
        raise ArchiveUnsafeError(message)
    if info.flag_bits & _ENCRYPTED:
        message = f"{path!r} is encrypted"
        raise ArchiveDamagedError(message)
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        message = f"{path!r} is compressed by method {info.compress_type}, which is not read"
        raise ArchiveDamagedError(message)


def _tar_entries(file: BinaryIO, budget: Budget, depth: int) -> Iterator[Entry]:
    names, source = _Names(budget.name), _Headers(file, budget)
    with _Told(budget.name):
        archive = tarfile.open(fileobj=cast("BinaryIO", source), mode="r|")  # noqa: SIM115 - closed by `with` below
    with archive:
        while True:
            source.between = True
            with _Told(budget.name):
                info = archive.next()
            if info is None:
                return
            source.between = False
            budget.entry()
            path = names.take(info.name)
            if info.isdir():
                continue
            if not info.isreg() or info.issparse():
                message = f"{path!r} is a link, a special file or sparse"
                raise ArchiveUnsafeError(message)
            content = archive.extractfile(info)
            if content is None:
                continue
            entry = Entry(path, cast("BinaryIO", content), budget, depth)
            yield entry
            while entry.read(BLOCK):  # what nobody read is counted too
                pass


class _Headers:
    """A tar's bytes, with a limit on how many may stand between two entries."""

    def __init__(self, file: BinaryIO, budget: Budget) -> None:
        self._file = file
        self._budget = budget
        self._between = 0
        self.between = True

    def read(self, size: int) -> bytes:
        """Read on; headers have a budget of their own, because a reader keeps them in memory."""
        data = self._file.read(size)
        self._between = self._between + len(data) if self.between else 0
        if self._between > self._budget.limits.header_bytes:
            message = f"{self._budget.name} has a header that is too large"
            raise ArchiveTooLargeError(message)
        return data


class _Names:
    """Which paths an archive has used."""

    def __init__(self, archive: str) -> None:
        self._archive = archive
        self._used: set[str] = set()

    def take(self, name: str) -> str:
        """Return the path without a folder's last slash.

        Raises:
            ArchiveUnsafeError: it leads outside, or is used twice.
        """
        path = name.removeprefix("./").rstrip("/") if name not in {".", "./"} else "data"
        try:
            parts = segments(path)
        except InvalidError as error:
            message = f"{self._archive}: {error.detail}"
            raise ArchiveUnsafeError(message) from error
        if ":" in parts[0]:
            message = f"{path[:80]!r} names a drive"
            raise ArchiveUnsafeError(message)
        same = unicodedata.normalize("NFC", path).casefold()
        if same in self._used:
            message = f"{path[:80]!r} is there twice, or differs in case alone"
            raise ArchiveUnsafeError(message)
        self._used.add(same)
        return path


class _Told:
    """Turns what the libraries raise on damaged data into one of our errors."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, InvalidError) or error is None:
            return
        known = (
            zipfile.BadZipFile,
            tarfile.TarError,
            zlib.error,
            struct.error,
            EOFError,
            OSError,
            ValueError,
            RuntimeError,
            OverflowError,
            MemoryError,
        )
        if isinstance(error, known):
            message = f"{self._name} is damaged: {error}"
            raise ArchiveDamagedError(message) from error


def _peek(file: BinaryIO) -> bytes:
    head = file.read(_HEAD)
    file.seek(0)
    return head
