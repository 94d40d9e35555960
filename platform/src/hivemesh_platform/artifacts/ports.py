"""Where artifacts are kept. Adapters: `local` (a folder)."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Stored:
    """The digest and size of bytes that were stored."""

    sha256: str
    size: int


class ArtifactStore(Protocol):
    """Content-addressed bytes: written once, verified on read."""

    async def put(self, data: bytes, sha256: str) -> Stored:
        """Store bytes under the announced digest; "" accepts any. Durable on return.

        Raises:
            DigestMismatchError: the bytes have another digest; nothing is stored.
            StorageFullError: no space is left, or the quota is reached.
        """
        ...

    async def put_stream(self, chunks: AsyncIterator[bytes], sha256: str) -> Stored:
        """Store a stream of unknown length, without holding it in memory.

        Raises:
            DigestMismatchError: the bytes have another digest; nothing is stored.
            StorageFullError: no space is left, or the quota is reached.
        """
        ...

    async def read(self, sha256: str) -> bytes:
        """Return a whole artifact (a batch, a state), verified.

        Raises:
            ArtifactMissingError: there is none.
            ArtifactDamagedError: it does not match its digest.
        """
        ...

    async def size(self, sha256: str) -> int | None:
        """Return the size, or None where there is no such artifact."""
        ...

    def read_range(self, sha256: str, start: int, end: int) -> AsyncIterator[bytes]:
        """Yield the bytes from `start` up to `end` (exclusive) in blocks, each verified.

        Raises:
            ArtifactMissingError: there is none.
            ArtifactDamagedError: it does not match its digest.
        """
        ...

    def digests(self, older_than: float) -> Iterator[str]:
        """Yield the digests of artifacts that were stored before a time (seconds since 1970)."""
        ...

    async def delete(self, sha256: str, *, older_than: float) -> bool:
        """Remove an artifact unless it was stored (again) or read since; says whether it was."""
        ...

    async def discard_unfinished(self, older_than: float) -> int:
        """Remove what was left of uploads that began before a time and never ended."""
        ...
