"""Artifacts in a folder: two levels by digest, written to a temporary file, synced, renamed.

Beside a large file stands a file of CRC-32 sums, one per block, so that a range can be verified
without reading the whole; small files are verified by their SHA-256.
"""

import asyncio
import hashlib
import os
import secrets
import struct
import threading
import time
import zlib
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TypeVar

from hivemesh_sdk.contracts.names import SHA256

from hivemesh_platform.artifacts.errors import (
    ArtifactDamagedError,
    ArtifactMissingError,
    DigestMismatchError,
)
from hivemesh_platform.artifacts.ports import Stored
from hivemesh_platform.storage.errors import StorageFullError, is_full
from hivemesh_platform.trust.folder import FolderLock

T = TypeVar("T")

BLOCK = 1024 * 1024  # of which each has its own sum
SMALL = 8 * 1024 * 1024  # up to this size the whole file is read and verified at once
CACHE_BYTES = 8 * 1024 * 1024  # recent batches on their way from one worker to the next
FRESH_S = 10.0  # for so long another replica may not have synced the name of what it stored
_THREADS = 2  # a disk is not faster with more, and each thread keeps its own heap


class LocalArtifactStore:
    """Keeps artifacts under one folder, up to `quota_bytes` (0: no limit)."""

    def __init__(self, folder: Path, quota_bytes: int = 0, *, replica: str = "") -> None:
        self._folder = folder
        self._temporary = folder / "tmp" / replica  # of several replicas each has its own
        self._quota = quota_bytes
        self._used = 0
        self._open_bytes = 0  # of streams that are being stored
        self._counting = threading.Lock()  # `_used` changes in threads
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="artifacts")
        # Nothing is made young while it is being collected, by whatever process.
        self._ages = FolderLock(folder) if replica else threading.Lock()
        self._unsynced: set[Path] = set()  # have their names, which may not be on the disk yet
        self._shared = bool(replica)
        self._readers: Counter[str] = Counter()  # open streams of this process
        self._recent: OrderedDict[str, bytes] = OrderedDict()
        self._recent_bytes = 0

    async def __aenter__(self) -> Self:
        await self._in_thread(self._open)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self._threads.shutdown)

    @property
    def used_bytes(self) -> int:
        """What all artifacts take on disk."""
        return self._used

    async def count_again(self) -> None:
        """Measure what is used: other replicas store and remove too."""
        await self._in_thread(self._count)

    async def put(self, data: bytes, sha256: str) -> Stored:
        """Store bytes under the announced digest; "" accepts any. Durable on return."""
        stored = await self._in_thread(self._put, data, sha256)
        self._remember(stored.sha256, data)
        return stored

    async def put_stream(self, chunks: AsyncIterator[bytes], sha256: str) -> Stored:
        """Store a stream of unknown length, without holding it in memory."""
        upload = await self._in_thread(_Measured, self._temporary)
        taken = 0
        try:
            async for block in _in_blocks(chunks):
                size = sum(map(len, block))
                self._check_quota(size)
                self._open_bytes += size
                taken += size
                await self._in_thread(upload.write_all, block)
            return await self._in_thread(self._keep_measured, upload, sha256)
        finally:
            self._open_bytes -= taken
            await self._in_thread(upload.discard)

    async def read(self, sha256: str) -> bytes:
        """Return a whole artifact (a batch, a state), verified."""
        recent = self._recent.get(sha256)
        if recent is not None:
            self._recent.move_to_end(sha256)
            return recent
        return await self._in_thread(self._read, sha256)

    async def size(self, sha256: str) -> int | None:
        """Return the size, or None where there is no such artifact."""
        return await self._in_thread(self._size, sha256)

    async def read_range(self, sha256: str, start: int, end: int) -> AsyncIterator[bytes]:
        """Yield the bytes from `start` up to `end` (exclusive) in blocks, each verified."""
        size = await self._in_thread(self._size_of_read, sha256)
        if size is None:
            raise self._gone(sha256)
        if size <= SMALL:
            yield (await self.read(sha256))[start:end]
            return
        self._readers[sha256] += 1
        try:
            for block in range(start // BLOCK, -(-end // BLOCK)):
                data = await self._in_thread(self._read_block, sha256, block)
                yield data[max(0, start - block * BLOCK) : end - block * BLOCK]
        finally:
            self._readers[sha256] -= 1
            if not self._readers[sha256]:
                del self._readers[sha256]

    def digests(self, older_than: float) -> Iterator[str]:
        """Yield the digests of artifacts that were stored before a time (seconds since 1970)."""
        for path in self._files():
            with suppress(FileNotFoundError):  # another replica has removed it
                if path.stat().st_mtime < older_than:
                    yield path.parent.name + path.name

    async def delete(self, sha256: str, *, older_than: float) -> bool:
        """Remove an artifact unless it was stored (again) or read since; says whether it was."""
        if self._readers[sha256]:
            return False
        self._forget(sha256)
        return await self._in_thread(self._delete, sha256, older_than)

    async def discard_unfinished(self, older_than: float) -> int:
        """Remove what is older than a time of uploads that never ended, and what was laid aside."""
        return await self._in_thread(self._discard_unfinished, older_than)

    def _discard_unfinished(self, older_than: float) -> int:
        removed = 0
        unfinished = (self._folder / "tmp").rglob("*")  # of replicas that are gone too
        for left in (*unfinished, *(self._folder / "damaged").glob("*")):
            with suppress(FileNotFoundError):
                if left.is_file() and left.stat().st_mtime < older_than:
                    left.unlink()
                    removed += 1
        return removed

    def _open(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._temporary.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in self._temporary.iterdir():  # a process that was killed
            if left.is_file():
                left.unlink()
        self._count()

    def _count(self) -> None:
        used = 0
        for path in self._files():
            with suppress(FileNotFoundError):  # another replica has removed it
                used += path.stat().st_size
        self._used = used

    def _files(self) -> Iterator[Path]:
        for folder in self._folder.iterdir():
            if len(folder.name) == 2:
                yield from (path for path in folder.iterdir() if path.suffix != ".sums")

    def _path(self, sha256: str) -> Path:
        if SHA256.fullmatch(sha256) is None:
            raise _missing(sha256)
        return self._folder / sha256[:2] / sha256[2:]

    def _put(self, data: bytes, announced: str) -> Stored:
        stored = Stored(hashlib.sha256(data).hexdigest(), len(data))
        _check_digest(stored.sha256, announced)
        if self._has(stored):
            return stored
        self._check_quota(len(data))
        upload = _Upload(self._temporary)
        try:
            upload.write(data)
            return self._keep(upload, stored, _sums(data) if len(data) > SMALL else b"")
        finally:
            upload.discard()

    def _keep_measured(self, upload: "_Measured", announced: str) -> Stored:
        stored = upload.stored
        _check_digest(stored.sha256, announced)
        return self._keep(upload, stored, upload.sums)

    def _keep(self, upload: "_Upload", stored: Stored, sums: bytes) -> Stored:
        upload.finish()
        if self._has(stored):
            return stored
        path = self._path(stored.sha256)
        with _disk_errors():
            if not path.parent.exists():
                path.parent.mkdir(mode=0o700, exist_ok=True)
                _sync_folder(self._folder)
            if stored.size > SMALL:
                beside = _Upload(self._temporary)
                beside.write(sums)
                beside.finish()
                beside.move_to(path.with_suffix(".sums"))
            self._unsynced.add(path)
            upload.move_to(path)
            self._unsynced.discard(path)
        self._aside(stored.sha256).unlink(missing_ok=True)
        self._count_in(stored.size)
        return stored

    def _count_in(self, size: int) -> None:
        with self._counting:
            self._used += size

    def _has(self, stored: Stored) -> bool:
        """Say whether it is there already, and intact; what is damaged makes way for the new bytes."""
        if not self._touch(self._path(stored.sha256)):
            return False
        try:
            if stored.size <= SMALL:
                self._read(stored.sha256)
            else:
                for block in range(-(-stored.size // BLOCK)):
                    self._read_block(stored.sha256, block)
        except (ArtifactDamagedError, ArtifactMissingError):
            return False
        return True

    def _touch(self, path: Path) -> bool:
        """Say whether it is there already, durably, and make it young again for the collector."""
        if not path.exists():
            return False
        with self._ages:
            try:
                found = path.stat()
                os.utime(path)
            except FileNotFoundError:
                return False
        if path in self._unsynced or (self._shared and found.st_mtime > time.time() - FRESH_S):
            _sync_folder(path.parent)
        return True

    def _read(self, sha256: str) -> bytes:
        try:
            with self._path(sha256).open("rb") as file:
                found = os.fstat(file.fileno())
                data = file.read()
        except FileNotFoundError as error:
            raise self._gone(sha256) from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise self._damaged(sha256, found)
        return data

    def _read_block(self, sha256: str, block: int) -> bytes:
        path = self._path(sha256)
        try:
            with path.open("rb") as file:
                found = os.fstat(file.fileno())
                file.seek(block * BLOCK)
                data = file.read(BLOCK)
            with path.with_suffix(".sums").open("rb") as file:
                file.seek(block * 4)
                expected = file.read(4)
        except FileNotFoundError as error:
            raise self._gone(sha256) from error
        if struct.pack("<I", zlib.crc32(data)) != expected:
            raise self._damaged(sha256, found)
        return data

    def _aside(self, sha256: str) -> Path:
        return self._folder / "damaged" / sha256

    def _damaged(self, sha256: str, found: os.stat_result) -> ArtifactDamagedError:
        """Lay the file that was found damaged aside, so that the same bytes can be stored again."""
        path, aside = self._path(sha256), self._aside(sha256)
        with self._ages, suppress(FileNotFoundError):  # somebody else has found it too
            aside.parent.mkdir(mode=0o700, exist_ok=True)
            if path.stat().st_ino == found.st_ino:  # and not what was stored in its place since
                path.rename(aside)
                os.utime(aside)  # for how long it lies there counts from now
                self._count_in(-found.st_size)
        return _damaged(sha256)

    def _gone(self, sha256: str) -> ArtifactMissingError | ArtifactDamagedError:
        return _damaged(sha256) if self._aside(sha256).exists() else _missing(sha256)

    def _size(self, sha256: str) -> int | None:
        try:
            return self._path(sha256).stat().st_size
        except (FileNotFoundError, ArtifactMissingError):
            return None

    def _size_of_read(self, sha256: str) -> int | None:
        """The size of what is about to be read; what takes long to read is kept from collectors."""
        size = self._size(sha256)
        if size is not None and size > SMALL and not self._touch(self._path(sha256)):
            return None
        return size

    def _delete(self, sha256: str, older_than: float) -> bool:
        path = self._path(sha256)
        with self._ages:
            try:
                found = path.stat()
            except FileNotFoundError:
                return False
            if found.st_mtime >= older_than:
                return False
            path.unlink()
            path.with_suffix(".sums").unlink(missing_ok=True)
        self._count_in(-found.st_size)
        return True

    def _check_quota(self, size: int) -> None:
        if self._quota and self._used + self._open_bytes + size > self._quota:
            message = f"the quota of {self._quota} bytes is reached; raise storage.quota_bytes"
            raise StorageFullError(message, delay_s=5.0)

    def _remember(self, sha256: str, data: bytes) -> None:
        if len(data) > CACHE_BYTES or sha256 in self._recent:
            return
        self._recent[sha256] = data
        self._recent_bytes += len(data)
        while self._recent_bytes > CACHE_BYTES:
            _, oldest = self._recent.popitem(last=False)
            self._recent_bytes -= len(oldest)

    def _forget(self, sha256: str) -> None:
        data = self._recent.pop(sha256, b"")
        self._recent_bytes -= len(data)

    async def _in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, function, *arguments)


class _Upload:
    """A temporary file that becomes an artifact, or nothing."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / secrets.token_hex(16)
        with _disk_errors():
            descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            self._file: BinaryIO | None = os.fdopen(descriptor, "wb", buffering=0)

    def write(self, chunk: bytes) -> None:
        """Add bytes."""
        if self._file is None:
            return
        with _disk_errors():
            view = memoryview(chunk)
            while view:
                view = view[self._file.write(view) :]

    def finish(self) -> None:
        """Sync the file."""
        if self._file is not None:
            with _disk_errors():
                os.fsync(self._file.fileno())
                self._file.close()
        self._file = None

    def move_to(self, path: Path) -> None:
        """Give the synced file its name, durably."""
        self._path.rename(path)
        _sync_folder(path.parent)

    def discard(self) -> None:
        """Remove what was not moved."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._path.unlink(missing_ok=True)


class _Measured(_Upload):
    """An upload of which nothing is known before it has come to its end."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._hash = hashlib.sha256()
        self._blocks = _BlockSums()

    @property
    def size(self) -> int:
        """Bytes that were written."""
        return self._blocks.size

    @property
    def stored(self) -> Stored:
        """What it is."""
        return Stored(self._hash.hexdigest(), self.size)

    @property
    def sums(self) -> bytes:
        """The sums of its blocks."""
        return self._blocks.packed()

    def write_all(self, chunks: list[bytes]) -> None:
        """Add bytes that came in several pieces."""
        for chunk in chunks:
            self._hash.update(chunk)
            self._blocks.add(chunk)
            self.write(chunk)


class _BlockSums:
    """CRC-32 of each block of bytes that come in pieces."""

    def __init__(self) -> None:
        self._whole: list[int] = []
        self._open = 0  # of the block that is being filled
        self.size = 0

    def add(self, chunk: bytes) -> None:
        """Add bytes."""
        view = memoryview(chunk)
        while view:
            room = BLOCK - self.size % BLOCK
            part, view = view[:room], view[room:]
            self._open = zlib.crc32(part, self._open)
            self.size += len(part)
            if self.size % BLOCK == 0:
                self._whole.append(self._open)
                self._open = 0

    def packed(self) -> bytes:
        """The sums as they are stored."""
        sums = [*self._whole, self._open] if self.size % BLOCK else self._whole
        return struct.pack(f"<{len(sums)}I", *sums)


def _sums(data: bytes) -> bytes:
    blocks = _BlockSums()
    blocks.add(data)
    return blocks.packed()


async def _in_blocks(chunks: AsyncIterator[bytes]) -> AsyncIterator[list[bytes]]:
    """Gather pieces, because each hand-over to a thread costs as much as writing 64 KiB."""
    block: list[bytes] = []
    size = 0
    async for chunk in chunks:
        block.append(chunk)
        size += len(chunk)
        if size >= BLOCK:
            yield block
            block, size = [], 0
    if block:
        yield block


class _disk_errors:  # noqa: N801 - used as a statement
    """Turns a full disk into our error."""

    def __enter__(self) -> None:
        return

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None and is_full(error):
            message = "the disk of the artifact folder is full"
            raise StorageFullError(message, delay_s=5.0) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_digest(found: str, announced: str) -> None:
    if announced and found != announced:
        message = f"announced {announced}, received {found}"
        raise DigestMismatchError(message)


def _missing(sha256: str) -> ArtifactMissingError:
    return ArtifactMissingError(f"there is no artifact {sha256!r}")


def _damaged(sha256: str) -> ArtifactDamagedError:
    return ArtifactDamagedError(f"the stored bytes of {sha256} do not match their digest")
