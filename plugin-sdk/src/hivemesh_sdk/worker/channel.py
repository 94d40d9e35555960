"""The messages between a worker's front process and its executors, and their framing.

A frame is two lengths, a msgpack document and as many bytes of body. Both ends belong to one
version of the SDK, so there is no negotiation.
"""

import struct
from collections.abc import Iterator

import msgspec

from hivemesh_sdk.contracts.artifacts import Artifact
from hivemesh_sdk.contracts.problems import Problem
from hivemesh_sdk.contracts.steps import Bodies, Encoding, InputPart, Limits, StepKind

CREDIT_BYTES = 8 * 1024 * 1024  # two full pages may wait to be acknowledged
BLOCK_BYTES = 2 * 1024 * 1024  # an artifact is read block by block, one ahead
MAX_DOCUMENT_BYTES = 2 * 1024 * 1024
MAX_BODY_BYTES = 80 * 1024 * 1024
HEAD = struct.Struct("<II")


class Load(msgspec.Struct, tag="load", frozen=True, kw_only=True):
    """First message to an executor: which worker to import, and its limits."""

    entrypoint: str
    search_path: list[str]
    parent: int
    file_bytes: int
    egress: list[str] = []  # destinations that the manifest declares


class Begin(msgspec.Struct, tag="begin", frozen=True, kw_only=True):
    """Start a step; the inline inputs follow as body, in order."""

    execution: str
    key: str
    capability: str
    kind: StepKind
    inputs: list[InputPart]
    parameters: bytes  # JSON
    checkpoint: bytes
    limits: Limits
    bodies: Bodies
    remaining_s: float | None
    scratch: str
    members: list[str] = []  # keys of small calls: each line of the body is the input of one
    internal: list[str] = []  # internal destinations that the policy opens
    withheld: bool = False  # the log has no messages of what its code raises


class Cancel(msgspec.Struct, tag="cancel", frozen=True, kw_only=True):
    """The step is not wanted any more."""

    execution: str


class Credit(msgspec.Struct, tag="credit", frozen=True, kw_only=True):
    """So many bytes were acknowledged."""

    execution: str
    bytes: int


class Answer(msgspec.Struct, tag="answer", frozen=True, kw_only=True):
    """To a question about artifacts, a secret or another worker; the bytes follow as body."""

    call: int
    problem: Problem | None = None


ToExecutor = Load | Begin | Cancel | Credit | Answer


class Ready(msgspec.Struct, tag="ready", frozen=True, kw_only=True):
    """The worker is imported."""


class LoadFailed(msgspec.Struct, tag="load-failed", frozen=True, kw_only=True):
    """The worker cannot be imported; the process ends."""

    problem: Problem


class Refused(msgspec.Struct, tag="refused", frozen=True, kw_only=True):
    """The step does not begin: options or kind are wrong."""

    problem: Problem


class Suspended(msgspec.Struct, tag="suspended", frozen=True, kw_only=True):
    """The step waits until something is acknowledged."""


class Records(msgspec.Struct, tag="records", frozen=True, kw_only=True):
    """A batch; `more` says that another message follows at once."""

    count: int
    sha256: str
    checkpoint: bytes
    artifact: Artifact | None = None
    encoding: Encoding = "identity"
    more: bool = False


class RejectedRecord(msgspec.Struct, tag="rejected", frozen=True, kw_only=True):
    """A record that was refused; `position` is JSON."""

    reason: str
    detail: str
    position: bytes
    more: bool = False


class Progress(msgspec.Struct, tag="progress", frozen=True, kw_only=True):
    """How far the step is."""

    done: int
    total: int
    unit: str


class LogLine(msgspec.Struct, tag="log", frozen=True, kw_only=True):
    """A line of the capability's log; `fields` is a JSON object."""

    level: str
    message: str
    fields: bytes


class Ended(msgspec.Struct, tag="ended", frozen=True, kw_only=True):
    """The step ended well; the JSON of the result follows as body where `has_result`."""

    has_result: bool
    sha256: str = ""
    artifacts: list[Artifact] = []


class MemberEnded(msgspec.Struct, tag="member", frozen=True, kw_only=True):
    """The next one of several small calls ended: the JSON of its result follows, or a problem."""

    problem: Problem | None = None


class Failed(msgspec.Struct, tag="failed", frozen=True, kw_only=True):
    """The step ended with an error."""

    problem: Problem


class ReadBlock(msgspec.Struct, tag="read", frozen=True, kw_only=True):
    """Ask for a part of an artifact."""

    call: int
    artifact: Artifact
    offset: int
    length: int


class Store(msgspec.Struct, tag="store", frozen=True, kw_only=True):
    """Ask to store an artifact: its bytes follow as body, or are in the file `path`."""

    call: int
    artifact: Artifact
    path: str = ""


class Borrow(msgspec.Struct, tag="borrow", frozen=True, kw_only=True):
    """Ask for a secret; the JSON of the lease follows the answer as body."""

    call: int
    path: str


class Call(msgspec.Struct, tag="call", frozen=True, kw_only=True):
    """Ask another worker: the JSON of the input follows as body, that of the answer likewise."""

    call: int
    capability: str
    options: bytes  # JSON
    name: str = ""
    submit: bool = False  # a job is started; its id is the answer
    how: bytes = b""  # JSON, of a submit


FromExecutor = (
    Ready
    | LoadFailed
    | Refused
    | Suspended
    | Records
    | RejectedRecord
    | Progress
    | LogLine
    | MemberEnded
    | Ended
    | Failed
    | ReadBlock
    | Store
    | Borrow
    | Call
)

Question = ReadBlock | Store | Borrow | Call

encode_message = msgspec.msgpack.Encoder().encode
decode_to_executor = msgspec.msgpack.Decoder(ToExecutor).decode
decode_from_executor = msgspec.msgpack.Decoder(FromExecutor).decode


def frame(message: ToExecutor | FromExecutor, body_length: int = 0) -> bytes:
    """Head and document; the caller sends the body after it."""
    document = encode_message(message)
    return HEAD.pack(len(document), body_length) + document


class ChannelError(Exception):
    """The other end does not speak the channel's language."""


class Deframer:
    """Cuts a stream of bytes into (document, body)."""

    __slots__ = ("_buffer", "_needed")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._needed = HEAD.size

    def feed(self, data: bytes | memoryview) -> Iterator[tuple[bytes, bytes]]:
        """Take bytes and yield the frames that are complete.

        Raises:
            ChannelError: a frame is larger than any of ours.
        """
        self._buffer += data
        while len(self._buffer) >= self._needed:
            head, body = HEAD.unpack_from(self._buffer)
            if head > MAX_DOCUMENT_BYTES or body > MAX_BODY_BYTES:
                message = f"a frame of {head} and {body} bytes"
                raise ChannelError(message)
            end = HEAD.size + head + body
            if len(self._buffer) < end:
                self._needed = end
                return
            with memoryview(self._buffer) as view:
                document = bytes(view[HEAD.size : HEAD.size + head])
                content = bytes(view[HEAD.size + head : end])
            del self._buffer[:end]
            self._needed = HEAD.size
            yield document, content
