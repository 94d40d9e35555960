"""Artifacts as an executor sees them: blocks and references over the channel to the front."""

import hashlib
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import BinaryIO, Self

import msgspec

from hivemesh_sdk.contracts.artifacts import Artifact, Tree
from hivemesh_sdk.contracts.secrets import SecretLease
from hivemesh_sdk.contracts.steps import Encoding, InputPart
from hivemesh_sdk.errors import FatalError, RetryableError
from hivemesh_sdk.worker import channel
from hivemesh_sdk.worker.batches import Batch
from hivemesh_sdk.worker.failures import SecretCheck, refuse_secrets
from hivemesh_sdk.worker.line import Answered, StepLine
from hivemesh_sdk.worker.records import Rejected

_COPY_BYTES = 1024 * 1024
_MESSAGE_BYTES = 4 * 1024 * 1024  # what is larger goes through a file of the scratch folder
_MAX_TREE_BYTES = 64 * 1024 * 1024
_MAX_INPUT_BYTES = 64 * 1024 * 1024  # unpacked; a batch is 4 MiB, a state rarely more
_decode_tree = msgspec.json.Decoder(Tree).decode
_decode_lease = msgspec.json.Decoder(SecretLease).decode


class RemoteArtifacts:
    """The `Artifacts` of one step; remembers what the step has stored."""

    def __init__(self, line: StepLine, scratch: Path | str) -> None:
        self._line = line
        self._scratch = scratch
        self.stored: dict[str, Artifact] = {}

    def open(self, reference: Artifact, offset: int = 0) -> "BlockReader":
        """Read from `offset` on, one block ahead."""
        return BlockReader(self._line, reference, offset)

    def size(self, reference: Artifact) -> int:
        """The number of bytes."""
        return reference.size

    def tree(self, reference: Artifact | Tree) -> dict[str, Artifact]:
        """The files of a directory, in order of their paths."""
        if isinstance(reference, Artifact):
            if reference.size > _MAX_TREE_BYTES:
                message = f"the listing of the folder takes {reference.size} bytes"
                raise FatalError(message, slug="too-large")
            with self.open(reference) as reader:
                reference = _decode_tree(reader.read())
        return dict(sorted(reference.entries.items()))

    def put(
        self,
        data: bytes | BinaryIO,
        *,
        media_type: str = "application/octet-stream",
        name: str | None = None,
    ) -> Artifact:
        """Store bytes and return the reference."""
        reference = self._store(data, media_type, name)
        self.stored[reference.sha256] = reference
        return reference

    def put_batch(self, batch: Batch) -> Artifact:
        """Store a batch; the event that names it makes it known."""
        return self._store(batch.data, "application/x-ndjson", None)

    def _store(self, data: bytes | BinaryIO, media_type: str, name: str | None) -> Artifact:
        if isinstance(data, bytes | bytearray | memoryview) and len(data) <= _MESSAGE_BYTES:
            refuse_secrets(bytes(data), "an artifact")
            return self._send(bytes(data), _describe(bytes(data), media_type, name))
        scratch = Path(self._scratch)
        scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=scratch, prefix="put-") as file:
            digest, size = hashlib.sha256(), 0
            check = SecretCheck("an artifact")
            for block in _blocks(data):
                check.pass_on(block)
                file.write(block)
                digest.update(block)
                size += len(block)
            file.flush()
            reference = Artifact(
                sha256=digest.hexdigest(), size=size, media_type=media_type, name=name
            )
            return self._send(b"", reference, file.name)

    def _send(self, body: bytes, reference: Artifact, path: str = "") -> Artifact:
        question = channel.Store(call=self._line.next_call(), artifact=reference, path=path)
        self._line.wait(self._line.ask(question, body))
        return reference


def borrowing(line: StepLine) -> Callable[[str], SecretLease]:
    """A function that asks the front for a secret."""

    def ask(path: str) -> SecretLease:
        question = channel.Borrow(call=line.next_call(), path=path)
        return _decode_lease(line.wait(line.ask(question)))

    return ask


class BlockReader:
    """A forward reader that asks for the next block before the present one is used."""

    def __init__(self, line: StepLine, reference: Artifact, offset: int) -> None:
        self._line = line
        self._reference = reference
        self._asked = min(offset, reference.size)
        self._waiting: queue.SimpleQueue[Answered] | None = None
        self._block = memoryview(b"")
        self._digest = hashlib.sha256() if offset == 0 else None
        self._hashing: threading.Thread | None = None
        self._ask()

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes, all that is left where it is negative, b"" at the end."""
        if size < 0:
            return b"".join(self._rest())
        if not self._block:
            self._advance()
        taken, self._block = self._block[:size], self._block[size:]
        if len(taken) == size or not self._waiting:
            return bytes(taken)
        parts = [taken]
        missing = size - len(taken)
        while missing and self._advance():
            part, self._block = self._block[:missing], self._block[missing:]
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def readinto(self, buffer: bytearray | memoryview, /) -> int:
        """Fill the buffer as far as possible and return the count, 0 at the end."""
        view = memoryview(buffer).cast("B")
        filled = 0
        while filled < len(view) and (self._block or self._advance()):
            part = self._block[: len(view) - filled]
            view[filled : filled + len(part)] = part
            self._block = self._block[len(part) :]
            filled += len(part)
        return filled

    def close(self) -> None:
        """Give up the rest."""
        self._waiting = None
        self._asked = self._reference.size
        self._block = memoryview(b"")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def _rest(self) -> Iterator[memoryview]:
        yield self._block
        while self._advance():
            yield self._block
        self._block = memoryview(b"")

    def _advance(self) -> bool:
        """Take the block that was asked for, ask for the next one, and say whether there is any."""
        if self._waiting is None:
            return False
        block = self._line.wait(self._waiting)
        self._ask()
        if self._digest is not None:
            self._check(self._digest, block)
        self._block = memoryview(block)
        return True

    def _ask(self) -> None:
        length = min(channel.BLOCK_BYTES, self._reference.size - self._asked)
        if length <= 0:
            self._waiting = None
            return
        question = channel.ReadBlock(
            call=self._line.next_call(),
            artifact=self._reference,
            offset=self._asked,
            length=length,
        )
        self._asked += length
        self._waiting = self._line.ask(question)

    def _check(self, digest: "hashlib._Hash", block: bytes) -> None:
        """Add a block to the digest beside its use; the last one is used when all is checked."""
        if self._hashing is not None:
            self._hashing.join()
        if self._waiting is not None:
            hashing = threading.Thread(target=digest.update, args=(block,), daemon=True)
            try:
                hashing.start()
            except RuntimeError:  # no more threads are allowed here
                digest.update(block)
            else:
                self._hashing = hashing
            return
        digest.update(block)
        if digest.hexdigest() != self._reference.sha256:
            message = f"artifact {self._reference.sha256} arrived damaged"
            raise RetryableError(message, slug="artifact-damaged")


class StoringSink:
    """Stores each batch as an artifact and sends its reference (`bodies: direct`)."""

    def __init__(self, line: StepLine, artifacts: RemoteArtifacts) -> None:
        self._line = line
        self._artifacts = artifacts

    def emit(self, rejected: Sequence[Rejected], batch: Batch | None) -> None:
        """Send rejected records and the batch that follows them, when there is room."""
        self._line.emit(rejected, None)
        if batch is not None:
            self._line.send_batch(batch, self._artifacts.put_batch(batch))


def inputs(parts: Sequence[InputPart], body: bytes, artifacts: RemoteArtifacts) -> Iterator[bytes]:
    """The inputs of a step one after another, inline or fetched when it is their turn."""
    start = 0
    for part in parts:
        if part.artifact is None:
            end = start + (part.bytes or 0)
            yield decoded(body[start:end], part.encoding)
            start = end
        else:
            with artifacts.open(part.artifact) as reader:
                yield decoded(reader.read(), part.encoding)


def decoded(data: bytes, encoding: Encoding) -> bytes:
    """The bytes of an input as they were before they were encoded for travel."""
    if encoding == "identity":
        return data
    try:
        import zstandard  # noqa: PLC0415 - optional, and only for inputs in this encoding
    except ImportError as error:
        message = "the input is zstd-encoded and `zstandard` is not installed here"
        raise FatalError(message, slug="input-invalid") from error
    try:
        with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
            content = reader.read(_MAX_INPUT_BYTES + 1)
    except zstandard.ZstdError as error:
        message = f"the input is not zstd: {error}"
        raise FatalError(message, slug="input-invalid") from error
    if len(content) > _MAX_INPUT_BYTES:
        message = f"the input unpacks to more than {_MAX_INPUT_BYTES} bytes"
        raise FatalError(message, slug="input-invalid")
    return content


def _describe(data: bytes, media_type: str, name: str | None) -> Artifact:
    return Artifact(
        sha256=hashlib.sha256(data).hexdigest(), size=len(data), media_type=media_type, name=name
    )


def _blocks(data: bytes | BinaryIO) -> Iterator[bytes]:
    if isinstance(data, bytes | bytearray | memoryview):
        yield bytes(data)
        return
    while block := data.read(_COPY_BYTES):
        yield block
