"""Steps on the wire: the request, the events of its pages, and what a worker says of itself."""

import hashlib
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Literal

import msgspec

from hivemesh_sdk.contracts.artifacts import Artifact
from hivemesh_sdk.contracts.problems import Problem

StepKind = Literal["call", "map", "source", "add", "merge", "result"]
Bodies = Literal["inline", "direct"]
Encoding = Literal["identity", "zstd"]

MAX_PAGE_BYTES = 8 * 1024 * 1024
MAX_WAIT_S = 20.0  # no request lives longer
MAX_MEMBERS = 1000  # small calls in one request
MAX_RECORD_BYTES = 4 * 1024 * 1024
LARGE_FIELD_BYTES = 256 * 1024
NO_CHECKPOINT = msgspec.Raw(b"null")  # JSON null: from the beginning


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Where a source's batches are cut, whatever comes first; and which part of an input is meant.

    `lines` are those from the first up to the second number, counted from 0 over all inputs of a
    `map` or `add`: its batch has crashed too often and is tried in parts.
    """

    records: int = 500
    bytes: int = MAX_RECORD_BYTES
    seconds: float = 1.0
    lines: tuple[int, int] | None = None


class InputPart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One batch (NDJSON) or one state (JSON): inline (`bytes` follow) or by reference.

    `sha256` is that of the bytes, from a caller who knows it already: nobody hashes them again to
    tell two requests with one key apart.
    """

    bytes: int | None = None
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")] | None = None
    artifact: Artifact | None = None
    count: int = 0
    encoding: Encoding = "identity"


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One of the small calls that travel in one request."""

    key: str
    attempt: int


def digest_of_members(members: Sequence[Member]) -> str:
    """What the ticket of a request with several calls says about them."""
    text = "\n".join(f"{one.key} {one.attempt}" for one in members)
    return hashlib.sha256(text.encode()).hexdigest() if members else ""


class StepRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The first line of a `PUT /v1/steps/{key}` body; inline inputs follow it in order.

    `deadline_ms` is what the whole execution may take (0 = no deadline); the header
    `Hivemesh-Deadline-Ms` limits the exchange.

    With `members` it is several small calls, one after the other, that have all but their inputs in
    common: line n of the input is that of member n. Each is answered by an event of its own as soon
    as it has ended, and the deadline is that of each. A request that ends with a problem means the
    first member that has no answer; those after it have not begun.
    """

    capability: str
    kind: StepKind
    attempt: int
    epoch: int
    inputs: list[InputPart] = []
    parameters: dict[str, object] = {}
    checkpoint: msgspec.Raw = NO_CHECKPOINT
    limits: Limits = Limits()
    deadline_ms: int = 0
    idle_timeout_ms: int = 300_000
    bodies: Bodies = "inline"
    members: list[Member] = []


class RecordsEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="records"):
    """A batch: `bytes` of NDJSON follow, or `artifact` names them. `checkpoint` holds after it."""

    no: int
    count: int
    sha256: str
    bytes: int | None = None
    artifact: Artifact | None = None
    encoding: Encoding = "identity"
    checkpoint: msgspec.Raw = NO_CHECKPOINT


class ProgressEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="progress"):
    """How far the execution is; `total` is 0 where it is not known."""

    no: int
    done: int
    total: int = 0
    unit: str = "records"


class LogEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="log"):
    """A line of the capability's own log."""

    no: int
    level: str
    message: str
    fields: dict[str, object] = {}


class RejectedEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="rejected"):
    """A bad record: the others go on. `position` is whatever names it to a person."""

    no: int
    reason: str
    detail: str = ""
    position: object = None


class MemberEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="member"):
    """One of several calls has ended: `bytes` of JSON follow, or there is a problem."""

    no: int
    key: str
    bytes: int | None = None
    problem: Problem | None = None


class ResultEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="result"):
    """The execution ended well. `bytes` of JSON follow (a value or a state), or `artifact` names them."""

    no: int
    bytes: int | None = None
    artifact: Artifact | None = None
    sha256: str = ""
    artifacts: list[Artifact] = []  # stored by the capability and named in its answer


class ProblemEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="problem"):
    """The execution ended with an error."""

    no: int
    problem: Problem


Event = (
    RecordsEvent
    | ProgressEvent
    | LogEvent
    | RejectedEvent
    | MemberEvent
    | ResultEvent
    | ProblemEvent
)


class ExecutionState(StrEnum):
    """What an execution does at the moment."""

    RUNNING = "running"
    SUSPENDED = "suspended"  # two pages wait to be acknowledged
    ENDED = "ended"


class ExecutionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One execution as `GET /v1/status` and `GET /v1/steps/{key}` tell it."""

    key: str
    execution: str
    attempt: int
    epoch: int
    capability: str
    kind: StepKind
    state: ExecutionState
    last_event: int
    idle_s: float  # since the last event
    executor_cpu_s: float
    buffered_bytes: int


class SlotStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Slots of one capability."""

    total: int
    active: int


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `GET /v1/status`."""

    worker: str
    version: str
    instance: str
    protocol: int
    draining: bool
    uptime_s: float
    cpu: float  # fraction of the instance's own limit, 0..1
    memory: float  # fraction of the instance's own limit, 0..1
    rss_bytes: int
    slots: dict[str, SlotStatus]
    executions: list[ExecutionStatus]


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /v1/commands`: what the platform asks of one instance."""

    command: Literal["drain"]
