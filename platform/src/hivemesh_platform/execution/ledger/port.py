"""What the ledger keeps and answers: rows of work, their claims, records and ends.

The statements are in `ledger_sql`; every method runs inside the transaction it is given.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import msgspec
from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.api import RunState
from hivemesh_sdk.contracts.artifacts import DataClass
from hivemesh_sdk.contracts.problems import Problem
from hivemesh_sdk.contracts.steps import StepKind
from hivemesh_sdk.errors import ConflictError

from hivemesh_platform.artifacts.model import BatchRef
from hivemesh_platform.execution.behalf import NOBODY, Behalf
from hivemesh_platform.execution.ledger.mended import Mended
from hivemesh_platform.execution.model import (
    JOB_NODE,
    AttemptOutcome,
    Fence,
    NodeKind,
    RejectedRecord,
    RetryPolicy,
    WorkKey,
)
from hivemesh_platform.execution.plans.graph import Edge
from hivemesh_platform.storage.transaction import Transaction


class StaleAttemptError(ConflictError):
    """The row has gone to a later attempt or reader; what this one says does not count."""

    slug = "stale-attempt"


class StaleReaderError(StaleAttemptError):
    """Another replica goes on with this very attempt; it is not to be ended at the worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewNode:
    """A node of a run that is accepted. `options` is JSON once all references are known."""

    name: str
    position: int
    capability: str
    kind: NodeKind
    upstream: str
    options: str | None
    labels: str
    policy: RetryPolicy
    deadline_ms: int
    idle_timeout_ms: int
    dataset: str
    dataset_version: int
    limit_key: str = ""
    data_class: DataClass = DataClass.INTERNAL  # of its inputs
    output_class: DataClass = DataClass.INTERNAL
    edges: Sequence[Edge] = ()
    condition: str = ""
    on_error: str = "fail"
    optional: bool = False
    gives: Sequence[str] = ()  # fields that are missing without it
    priority: int | None = None  # None: that of the run


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """A run that is accepted, with all of its nodes."""

    id: str
    pipeline: str
    version: int
    document: str
    parameters: str
    labels: str
    submitter: str
    priority: int
    nodes: Sequence[NewNode]
    behalf: Behalf = NOBODY
    data_class: DataClass = DataClass.INTERNAL  # of its parameters
    backfill_of: str = ""  # the run whose missing parts it gives
    parent: tuple[str, str, int] = ("", "", 0)  # run, step, and how deep below the first run


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job that is accepted; `spec` is the JSON of its JobSpec."""

    id: str
    capability: str
    submitter: str
    priority: int
    spec: str
    tenant: str = "default"
    limit_key: str = ""
    together: str = ""  # jobs with the same value may travel in one request
    kind: StepKind = "call"
    inputs: tuple[BatchRef, ...] = ()  # of a dead letter; otherwise the spec has the input


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJobs:
    """Jobs that differ in their specs alone; job n is `<stem>-<n>`."""

    job: NewJob  # like all of them
    stem: str
    specs: Sequence[str]
    together: str


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A row that this process holds, with everything that its dispatch needs.

    A struct because one is made for every small job, and its fields cost little there.
    """

    key: WorkKey
    fence: Fence
    kind: StepKind
    capability: str
    inputs: tuple[BatchRef, ...]
    spec: str | None  # jobs only
    options: str
    labels: str
    policy: RetryPolicy
    deadline_ms: int
    idle_timeout_ms: int
    retries: int
    losses: int
    last_instance: str
    suspect: bool = False  # a worker was lost with it: it is kept apart from others of the kind
    lines: tuple[int, int] | None = None  # of its input, where only a part is tried
    halved: bool = False  # its input has crashed too often and is tried in parts
    damaged: bool = False  # its stored request is not what was accepted
    behalf: Behalf = NOBODY
    data_class: DataClass = DataClass.INTERNAL  # of its inputs
    output_class: DataClass = DataClass.INTERNAL
    together: str = ""  # jobs: others with the same value may travel with it
    limited: bool = False  # a limit counts it: with its end another row may have room
    execution: str = ""  # sources: what runs at the worker already
    after: int = 0
    checkpoint: str = "null"
    endpoint: str = ""

    @property
    def divisible(self) -> int:
        """Of how many records the attempt consists, where it can be tried in parts; else 1."""
        if self.kind not in {"map", "add"} or self.key.node == JOB_NODE:
            return 1
        if self.lines is not None:
            return self.lines[1] - self.lines[0]
        return sum(one.count for one in self.inputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Where an attempt runs and why."""

    instance: str
    identity: str
    worker: str
    explanation: str
    endpoint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an execution says it is."""

    done: float
    total: float
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What a page of a source brings: stored in one transaction with the checkpoint after it.

    `settled` says how many of the rejected records lie before the checkpoint; the others would be
    rejected once more by an execution that starts there, and are forgotten when one does.
    """

    execution: str
    after: int
    checkpoint: str
    batches: tuple[BatchRef, ...] = ()
    rejected: tuple[RejectedRecord, ...] = ()
    settled: int = 0
    progress: Progress | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The good end of a row: a batch (map), or an answer (call, add, merge, result), or neither."""

    batch: BatchRef | None = None
    output: str | None = None  # JSON of an Output
    rejected: tuple[RejectedRecord, ...] = ()
    placed: Placed | None = None  # where its attempt ran, if that was not written before
    began: int = 0  # when that was, with `placed`


@dataclass(frozen=True, slots=True, kw_only=True)
class Travel:
    """A request in which small jobs are on their way to a worker, or at it."""

    key: str
    epoch: int  # of the reader
    endpoint: str  # JSON
    members: tuple[tuple[str, int], ...]  # all of them: job and attempt
    held: tuple[tuple[str, int], ...] = ()  # those that have not ended
    claims: tuple[Claim, ...] = ()  # the same, where somebody goes on with them


class JobEnd(NamedTuple):
    """The good end of a job that travelled with others; `output` is the JSON of an Output."""

    key: WorkKey
    fence: Fence
    output: str


class RowEnd(NamedTuple):
    """The good end of a row."""

    key: WorkKey
    fence: Fence
    end: Finished


@dataclass(frozen=True, slots=True)
class Failure:
    """The bad end of an attempt that is followed by another one, not before a time."""

    problem: Problem
    outcome: AttemptOutcome
    not_before: int


@dataclass(frozen=True, slots=True)
class Effects:
    """What a change has set free or ended, so that the caller wakes whom it concerns."""

    queued: bool = False
    ended_runs: tuple[str, ...] = ()
    ended_nodes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """A run that was set going again: how often by now, and which of its steps."""

    run: str
    number: int
    steps: list[str]


class Unclaimed(NamedTuple):
    """A claimed row that nobody could take."""

    key: WorkKey
    fence: Fence
    reason: str
    not_before: int


class Ledger(Protocol):
    """Rows of work. Time is given as milliseconds since 1970."""

    def add_run(self, tx: Transaction, run: NewRun, now: int) -> None:
        """Accept a run: its nodes wait, and nothing is queued until they are activated."""
        ...

    def add_job(self, tx: Transaction, job: NewJob, now: int) -> None:
        """Accept a job: one row, queued."""
        ...

    def add_jobs(self, tx: Transaction, jobs: Sequence[NewJob], now: int) -> None:
        """Accept jobs: a row each, queued."""
        ...

    def add_batch(self, tx: Transaction, jobs: NewJobs, now: int) -> None:
        """Accept jobs that differ in their specs alone: a row each, queued."""
        ...

    def activate(self, tx: Transaction, run: str, node: str, options: str, now: int) -> Effects:
        """Give a node its options; rows that waited for them are queued. Idempotent."""
        ...

    def claim(
        self, tx: Transaction, capability: str, limit: int, now: int, size: int = 1
    ) -> list[Claim]:
        """Take up to `limit` queued rows of a capability in order of rank; each is a new attempt.

        `size` jobs that may travel together count as one.
        """
        ...

    def claimable(self, tx: Transaction, capabilities: Sequence[str], now: int) -> frozenset[str]:
        """Those of the capabilities of which a claim may find rows."""
        ...

    def finish_jobs(
        self, tx: Transaction, ends: Sequence[JobEnd], placed: Placed, began: int, now: int
    ) -> None:
        """End jobs well that travelled together; those that are not held any more stay as they are."""
        ...

    def release_jobs(
        self,
        tx: Transaction,
        held: Sequence[tuple[WorkKey, Fence]],
        reason: str,
        not_before: int,
        *,
        apart: bool = False,
    ) -> None:
        """Put jobs back that travelled together and have not ended; costs no retry."""
        ...

    def placed(self, tx: Transaction, key: WorkKey, fence: Fence, placed: Placed, now: int) -> None:
        """Keep where the attempt runs and why."""
        ...

    def release(
        self,
        tx: Transaction,
        key: WorkKey,
        fence: Fence,
        reason: str,
        not_before: int,
        *,
        advanced_at: int | None = None,
    ) -> None:
        """Put a claimed row back, because nobody can take it; costs no retry.

        With `advanced_at`, the time now, its attempt has made batches and stays known as interrupted.
        """
        ...

    def unclaim(self, tx: Transaction, rows: Sequence[Unclaimed]) -> None:
        """Put rows back that nobody was asked to take: as if they had not been claimed."""
        ...

    def bring_forward(self, tx: Transaction, capability: str, count: int, now: int) -> None:
        """Let so many rows be claimed that were put off and have not failed, the next ones first."""
        ...

    def record(
        self, tx: Transaction, key: WorkKey, fence: Fence, page: Recorded, now: int
    ) -> Effects:
        """Record a page of a source and create the rows that map or reduce its batches.

        Raises:
            StaleAttemptError: the fence is not the row's.
        """
        ...

    def finish(
        self, tx: Transaction, key: WorkKey, fence: Fence, end: Finished, now: int
    ) -> Effects:
        """End a row well, add its part to the dataset, and create what follows from it.

        Raises:
            StaleAttemptError: the fence is not the row's.
        """
        ...

    def finish_rows(
        self, tx: Transaction, ends: Sequence[RowEnd], now: int
    ) -> list[Effects | StaleAttemptError]:
        """End rows of one run well, as `finish` does; returns for each what it would say of it.

        What they have set free or ended together is told of one of them.
        """
        ...

    def retry(
        self, tx: Transaction, key: WorkKey, fence: Fence, failure: Failure, now: int
    ) -> None:
        """End the attempt and queue the row for another one.

        Raises:
            StaleAttemptError: the fence is not the row's.
        """
        ...

    def fail(
        self, tx: Transaction, key: WorkKey, fence: Fence, problem: Problem, now: int
    ) -> Effects:
        """End a row with its problem.

        Raises:
            StaleAttemptError: the fence is not the row's.
        """
        ...

    def decide(self, tx: Transaction, run: str, node: str, *, holds: bool, now: int) -> Effects:
        """Keep what a node's condition was found to be, once; a false one skips the node."""
        ...

    def split(
        self, tx: Transaction, key: WorkKey, fence: Fence, failure: Failure, now: int
    ) -> None:
        """End an attempt that killed its worker, and try halves of what it was given.

        Raises:
            StaleAttemptError: the fence is not the row's.
        """
        ...

    def end_part(
        self, tx: Transaction, key: WorkKey, fence: Fence, end: Finished, now: int
    ) -> bool:
        """End a part well; True where it was the last one, and the row is still held.

        Raises:
            StaleAttemptError: the fence is not the row's.
        """
        ...

    def drop_part(
        self, tx: Transaction, key: WorkKey, fence: Fence, problem: Problem, now: int
    ) -> tuple[Effects, bool]:
        """Give a part up: its lines go to the dead letters. True as for `end_part`.

        Raises:
            StaleAttemptError: the fence is not the row's.
        """
        ...

    def left_out(self, tx: Transaction, run: str, node: str, reason: str, now: int) -> Effects:
        """Go on without an optional node that nobody can serve."""
        ...

    def run_again(
        self, tx: Transaction, run: str, first: str, by: Behalf, now: int
    ) -> tuple[list[Turn], Effects]:
        """Set a run going again; returns what of it and of its steps is to be set going, and effects.

        Raises:
            NothingToRetryError: nothing of it has failed.
            NotFoundError: there is no step `first`.
        """
        ...

    def job_again(self, tx: Transaction, job: str, by: Behalf, now: int) -> bool:
        """Queue a job that has ended badly once more; False where it has not."""
        ...

    def take_over(
        self, tx: Transaction, old: str, new: str, now: int, *, mended: Sequence[Mended] = ()
    ) -> Effects:
        """Give an accepted run what another one has recorded, but for what that went without."""
        ...

    def answer_node(
        self, tx: Transaction, run: str, node: str, output: str, state: RunState, now: int
    ) -> Effects:
        """End a node well whose answer comes from elsewhere."""
        ...

    def hurry_job(self, tx: Transaction, job: str) -> None:
        """Let a queued job wait for nothing but a slot."""
        ...

    def fail_node(
        self, tx: Transaction, run: str, node: str, problem: Problem, now: int
    ) -> Effects:
        """End a node that cannot even be set going."""
        ...

    def cancel(self, tx: Transaction, run: str, now: int) -> Effects:
        """Cancel what has not ended of a run or job."""
        ...

    def recover(self, tx: Transaction, now: int, of: str | None = None) -> list[Claim]:
        """Take over the rows that a replica held (None: whoever held them).

        They are queued again; returned are the sources, which this replica goes on with. Their
        epoch is raised, so that whoever read them before is refused.
        """
        ...

    def depart(self, tx: Transaction, travel: Travel) -> None:
        """Keep with which request jobs go to a worker."""
        ...

    def arrive(self, tx: Transaction, key: str, epoch: int) -> bool:
        """Forget a request; False where another reader goes on with it."""
        ...

    def recover_travels(
        self, tx: Transaction, now: int, of: str | None = None
    ) -> tuple[list[Claim], list[Travel]]:
        """As `recover`; what travels together is not queued, and returned to go on with."""
        ...

    def open_rows(self, tx: Transaction, run: str, node: str) -> int:
        """Count the rows behind a source that have not ended.

        Blocked rows do not count: what they wait for may need the source to end.
        """
        ...

    def held_up(self, tx: Transaction, run: str, node: str, now: int) -> frozenset[str]:
        """The capabilities of rows that wait for a limit which the source before them fills.

        None while any row behind it runs.
        """
        ...

    def waiting(self, tx: Transaction, now: int) -> dict[str, int]:
        """Count the queued rows per capability whose time has come."""
        ...

    def next_time(self, tx: Transaction, now: int) -> int | None:
        """Return when the next delayed row may be claimed."""
        ...

    def explain_waiting(self, tx: Transaction, capability: str, reason: str) -> None:
        """Show people why the rows of a capability wait; "" takes the reason away."""
        ...


def milliseconds(clock: Clock) -> int:
    """Wall time as the ledger writes it."""
    return round(clock.now().timestamp() * 1000)
