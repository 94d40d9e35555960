"""Streams of stored bytes on their way to an answer."""

from collections.abc import AsyncIterator


async def begun(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Read the first chunk now, so that what cannot be read is refused before an answer begins.

    Raises:
        ArtifactMissingError: there is no such artifact.
        ArtifactDamagedError: it does not match its digest.
    """
    first = await anext(chunks, b"")
    return _with_first(first, chunks)


async def _with_first(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk
