"""Rules of execution: states, keys, what follows a failure. Pure."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import msgspec
from hivemesh_sdk.contracts.api import RunState
from hivemesh_sdk.contracts.problems import Problem, slug_of
from hivemesh_sdk.contracts.steps import StepKind

from hivemesh_platform.artifacts.model import BatchRef

NodeKind = Literal["call", "source", "map", "reduce", "pipeline"]
JOB_NODE = "job"
FAN_IN = 16
LEVEL = 1_000_000_000  # seq of a merge row: level * LEVEL + index


class WorkKey(msgspec.Struct, frozen=True, gc=False):
    """Names a row of work. A struct, because several are made for every small job."""

    run: str
    node: str
    seq: int

    def __str__(self) -> str:
        return f"{self.run}.{self.node}.{self.seq}"  # `step_key` takes twice as long


class Fence(msgspec.Struct, frozen=True, gc=False):
    """What a result must show to count: the attempt that made it, the epoch that reads it."""

    attempt: int
    epoch: int


NO_VALUE = msgspec.Raw(b"null")


class Output(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer of a unary step: the JSON itself, or the artifact that holds it.

    A reducer's row that was tried in parts has as many states as parts: `more` are the others.
    """

    value: msgspec.Raw = NO_VALUE
    artifact: BatchRef | None = None
    more: tuple[BatchRef, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedRecord:
    """A record that the capability refused."""

    reason: str
    detail: str
    position: str  # JSON


class AttemptOutcome(StrEnum):
    """How an attempt ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    LOST = "lost"
    INTERRUPTED = "interrupted"  # the platform went away
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how soon a failed attempt is repeated: base, 2x, 4x … seconds, at most `max_s`.

    `max_crashes` is how often a worker or executor may die of an input with nothing recorded in
    between, before the input itself is taken for the cause.
    """

    max_retries: int = 3
    base_s: float = 1.0
    max_s: float = 300.0
    max_crashes: int = 3


JITTER = 0.5  # of a gap, to each side: those that failed together do not come back together


@dataclass(frozen=True, slots=True)
class Again:
    """Repeat the row after `delay_s`."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The row ends with its problem, and its input goes to the dead letters."""


@dataclass(frozen=True, slots=True)
class Split:
    """Somewhere in the row's records is one that kills: try halves of them after `delay_s`."""

    delay_s: float = 0.0


def after_failure(  # noqa: PLR0913 - the facts that decide
    problem: Problem,
    policy: RetryPolicy,
    *,
    retries: int,
    crashes: int,
    jitter: float,
    records: int = 1,
    halved: bool = False,
) -> Again | GiveUp | Split:
    """Decide what follows a failed attempt; `jitter` lies in 0..1 and spreads the gap.

    A crash costs no retry. A lost worker's steps are placed again at once; executors that die one
    after the other are started with a gap, which their neighbours would pay for. `retries` and `crashes` count what has happened before this attempt,
    `records` is what it was given, `halved` says that this is part of a batch that has crashed
    often enough already.
    """
    if is_no_fault(problem):
        return Again(problem.retry_after_s or 0.0)
    if is_crash(problem):
        delay = 0.0 if is_lost_worker(problem) else gap(policy, min(crashes, 1), jitter)
        if not halved and crashes + 1 < policy.max_crashes:
            return Again(delay)
        return Split(delay) if records > 1 else GiveUp()
    if not (problem.retryable or _is_unasked(problem)) or retries >= policy.max_retries:
        return GiveUp()
    return Again(max(gap(policy, retries, jitter), problem.retry_after_s or 0.0))


def gap(policy: RetryPolicy, retries: int, jitter: float) -> float:
    """The seconds before the next attempt after so many retries."""
    doubled = policy.base_s * 2.0 ** min(retries, 60)
    return min(doubled, policy.max_s) * (1.0 + JITTER * (2.0 * jitter - 1.0))


def is_crash(problem: Problem) -> bool:
    """Whether the worker or its executor went away, as opposed to the step going wrong."""
    return slug_of(problem) in _CRASHES


def is_lost_worker(problem: Problem) -> bool:
    """Whether the whole worker went away: any of the steps that it ran may have been the cause."""
    return slug_of(problem) in _LOSSES


def is_no_fault(problem: Problem) -> bool:
    """Whether the attempt ended for reasons that lie neither in the input nor in the worker."""
    return slug_of(problem) in _NO_FAULT


Cause = Literal["crashes", "retries", "refused"]


def is_of_clocks(problem: Problem) -> bool:
    """Whether a worker refused what was made for it a moment ago: its clock is another one."""
    return slug_of(problem) in _OF_CLOCKS


def cause_of(problem: Problem) -> Cause:
    """Why an input went to the dead letters."""
    if is_crash(problem):
        return "crashes"
    return "retries" if problem.retryable else "refused"


def is_letter(problem: Problem) -> bool:
    """Whether the input that ended with this problem is kept as a dead letter."""
    return slug_of(problem) != "skipped"


def _is_unasked(problem: Problem) -> bool:
    """A worker has ended the step by itself: what we cancel is not asked about any more."""
    return slug_of(problem) == "cancelled"


def fails_every_row(problem: Problem) -> bool:
    """Whether the problem lies in the step's configuration, so that no batch can succeed."""
    return slug_of(problem) in _CONFIGURATION


_LOSSES = frozenset({"worker-lost", "worker-unreachable", "execution-unknown"})
_CRASHES = _LOSSES | {"executor-crashed"}
_NO_FAULT = frozenset({"draining"})
_OF_CLOCKS = frozenset({"ticket-expired", "ticket-not-yet-valid"})
_CONFIGURATION = frozenset(
    {
        "options-invalid",
        "configuration",
        "unknown-capability",
        "capability-not-consented",
        "not-authorized",
    }
)


def node_state(*, completed: int, failed: int, rejected: int) -> RunState:
    """The state of a node whose rows have all ended."""
    if failed and not completed:
        return RunState.FAILED
    return RunState.PARTIAL if failed or rejected else RunState.COMPLETED


def lines_of(batch: bytes) -> list[bytes]:
    """The records of a batch: line ends are those of NDJSON alone."""
    return batch.removesuffix(b"\n").split(b"\n") if batch else []


@dataclass(frozen=True, slots=True)
class TreeRow:
    """A row of a reduce tree that is to be created: its inputs are outputs of `children`."""

    seq: int
    kind: StepKind
    children: tuple[int, ...]


RESULT_SEQ = 0


def next_tree_rows(
    completed: frozenset[int], known: frozenset[int], total: int | None
) -> list[TreeRow]:
    """Say which merge and result rows can be created now.

    `completed` and `known` are seqs of the node's rows, `total` is the number of `add` rows once
    no more will come. Rows of level 0 are the adds 1..total; level L+1 merges up to 16 of level L;
    the single row of the last level goes into the result. Depends on seqs alone, so it gives the
    same tree after any restart and in any order of completion.
    """
    rows: list[TreeRow] = []
    level, count = 0, total
    while True:
        if count == 1:
            rows += _result_row(level, completed, known)
            return rows
        found = max((seq % LEVEL for seq in known if seq and seq // LEVEL == level), default=0)
        rows += _merge_rows(level, found, count, completed, known)
        if count is None and found <= FAN_IN:
            return rows
        level, count = level + 1, None if count is None else -(-count // FAN_IN)


def _result_row(level: int, completed: frozenset[int], known: frozenset[int]) -> list[TreeRow]:
    top = level * LEVEL + 1
    if top in completed and RESULT_SEQ not in known:
        return [TreeRow(RESULT_SEQ, "result", (top,))]
    return []


def _merge_rows(
    level: int, found: int, count: int | None, completed: frozenset[int], known: frozenset[int]
) -> list[TreeRow]:
    rows = []
    for index in range(1, -(-found // FAN_IN) + 1):
        first, last = (index - 1) * FAN_IN + 1, index * FAN_IN
        if count is not None:
            last = min(last, count)
        seq = (level + 1) * LEVEL + index
        children = tuple(level * LEVEL + child for child in range(first, last + 1))
        if seq not in known and completed.issuperset(children):
            rows.append(TreeRow(seq, "merge", children))
    return rows
