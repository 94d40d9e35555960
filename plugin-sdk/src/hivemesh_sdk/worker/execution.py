"""One execution of one step: its numbered events, who waits for them, and when it ends.

Lives on the loop that serves; runners report to it there and nowhere else.
"""

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.artifacts import Artifact
from hivemesh_sdk.contracts.problems import Problem
from hivemesh_sdk.contracts.steps import (
    MAX_PAGE_BYTES,
    Encoding,
    Event,
    ExecutionState,
    ExecutionStatus,
    LogEvent,
    Member,
    MemberEvent,
    ProblemEvent,
    ProgressEvent,
    RecordsEvent,
    RejectedEvent,
    ResultEvent,
    StepKind,
    StepRequest,
)
from hivemesh_sdk.worker.access import Right
from hivemesh_sdk.worker.failures import trace_of

UNARY = frozenset({"call", "add", "merge", "result"})  # one result and nothing else
ENTRY_BYTES = 1500  # what an entry without events takes
FULL_PAGE_BYTES = MAX_PAGE_BYTES // 2  # more would only be held at both ends at once
MEMBER_WAKES_S = 0.05  # answers of small calls are gathered for a moment
PROGRESS_WAKES_S = 2.0  # a reader who waits for longer is told how far it is

_PROCESS = os.urandom(10).hex()  # so that an id of another process is never taken for one of ours
_numbers = itertools.count(1)
_encode = msgspec.json.Encoder().encode


class Control(Protocol):
    """How a running execution is steered; made by the runner that runs it."""

    def cancel(self) -> None:
        """Ask the code to stop."""
        ...

    def kill(self) -> None:
        """Stop it, whatever it does."""
        ...

    def credit(self, count: int) -> None:
        """Tell that so many bytes were acknowledged."""
        ...

    def cpu_s(self) -> float:
        """CPU seconds of the process that computes, 0 where it is not a process of its own."""
        ...


class Waiter(Protocol):
    """Whoever waits for an event; told once, and by then it waits no more."""

    def wake(self) -> None: ...


class Asking(msgspec.Struct):
    """The one of several small calls that runs, as it asks the platform for something."""

    key: str
    attempt: int
    capability: str
    right: Right


class Buffered(msgspec.Struct, gc=False):
    """An event as it travels, and what it counts for in the runner's account."""

    no: int
    line: bytes
    body: bytes
    size: int  # bytes on the wire
    cost: int


class Execution(msgspec.Struct, eq=False):
    """The entry of one key: attempt, fingerprint, random id, state and the events not yet acknowledged.

    A struct because one is made for every small call, and its fields cost nothing there.
    """

    key: str
    id: str
    attempt: int
    epoch: int
    capability: str
    kind: StepKind
    fingerprint: tuple[str, ...]
    right: Right  # replaced with each fresh ticket
    started_at: float
    asked_at: float
    active_at: float
    event_at: float  # of the last one, so the end of one that has ended
    deadline_at: float | None
    idle_timeout_s: float
    _woke_at: float
    _monotonic: Callable[[], float]
    _listener: "Listener"
    control: Control | None = None
    kill_at: float | None = None
    cpu_base: float = 0.0
    cpu_seen: float = 0.0
    ended: bool = False
    failed: bool = False
    released: bool = False
    refused: Problem | None = None
    last_no: int = 0
    buffered: int = 0
    _events: list[Buffered] = []
    _waiters: tuple[Waiter, ...] = ()
    _ready: int = 0  # the last event that wakes a reader
    _suspended: bool = False
    _unseen_progress: bool = False
    members: Sequence[Member] = ()
    answered: int = 0  # members that have ended
    each_s: float = 0.0  # what one member may take
    unwanted: frozenset[str] = frozenset()  # members that were cancelled

    @classmethod
    def begin(
        cls,
        key: str,
        request: StepRequest,
        fingerprint: tuple[str, ...],
        right: Right,
        clock: Clock,
        listener: "Listener",
    ) -> "Execution":
        """An execution of what is requested, with an id that no other has."""
        now = clock.monotonic()
        return cls(  # by position: it is made for every small call
            key,
            f"{_PROCESS}{next(_numbers):x}",
            request.attempt,
            request.epoch,
            request.capability,
            request.kind,
            fingerprint,
            right,
            now,
            now,
            now,
            now,
            now + request.deadline_ms / 1000 if request.deadline_ms else None,
            request.idle_timeout_ms / 1000,
            now,
            clock.monotonic,
            listener,
        )

    def has_members(self, members: Sequence[Member], deadline_ms: int) -> None:
        """It is several small calls; the deadline is that of each."""
        self.members = members
        self.each_s = deadline_ms / 1000

    def member_ended(self, body: bytes, problem: Problem | None, *, cost: int) -> None:
        """The next member has ended; readers are told at once or within a moment."""
        if self.ended or self.answered >= len(self.members):
            return
        key = self.members[self.answered].key
        self.answered += 1
        size = None if problem is not None else len(body)
        event = MemberEvent(no=self.last_no + 1, key=key, bytes=size, problem=problem)
        now = self._monotonic()
        if self.each_s:
            self.deadline_at = now + self.each_s
        self._append(event, body, cost, wake=now - self._woke_at >= MEMBER_WAKES_S)

    @property
    def at_unwanted(self) -> bool:
        """Whether the member that runs was cancelled."""
        left = self.answered < len(self.members)
        return left and self.members[self.answered].key in self.unwanted

    def tell(self) -> None:
        """Wake readers for members that ended a moment ago."""
        now = self._monotonic()
        if self.last_no > self._ready and self.answered and now - self._woke_at >= MEMBER_WAKES_S:
            self._wake(self.last_no, now)

    @property
    def asking(self) -> "Execution | Asking":
        """Who asks: the execution, or that of its members that runs."""
        if self.answered >= len(self.members):
            return self
        member = self.members[self.answered]
        return Asking(member.key, member.attempt, self.capability, self.right)

    def now(self) -> float:
        """The monotonic time, as its deadline is kept."""
        return self._monotonic()

    @property
    def ticket(self) -> str:
        """The freshest ticket that was shown for it."""
        return self.right.ticket

    @property
    def waited_for(self) -> bool:
        """Whether a reader waits at the moment."""
        return bool(self._waiters)

    def has_news(self, after: int) -> bool:
        """Whether a page after this number would not be empty."""
        return self._ready > after or self.ended

    def wake(self, waiter: Waiter) -> None:
        """Let it be told of the next event; `forget` it where it leaves before."""
        self._waiters = (*self._waiters, waiter)

    def forget(self, waiter: Waiter) -> None:
        """The reader waits no more."""
        self._waiters = tuple(one for one in self._waiters if one is not waiter)

    def page(self, after: int) -> list[bytes]:
        """The next events after this number, up to the size of a page and at least one."""
        self._unseen_progress = False
        chunks: list[bytes] = []
        size = 0
        for event in self._events:
            if event.no <= after:
                continue
            size += event.size
            if chunks and size > FULL_PAGE_BYTES:
                break
            chunks.append(event.line)
            if event.body:
                chunks.append(event.body)
        return chunks

    def acknowledge(self, after: int) -> None:
        """Drop the events up to this number and let the runner make as many more."""
        gone = 0
        cost = 0
        for event in self._events:
            if event.no > after:
                break
            gone += 1
            cost += event.cost
            self.buffered -= event.size
        if not gone:
            return
        del self._events[:gone]
        if cost and self.control is not None and not self.released:
            self._suspended = False
            self.control.credit(cost)

    @property
    def read_to_the_end(self) -> bool:
        """Whether it ended and every event was acknowledged."""
        return self.ended and not self._events

    def status(self) -> ExecutionStatus:
        """What `GET /v1/status` tells."""
        return ExecutionStatus(
            key=self.key,
            execution=self.id,
            attempt=self.attempt,
            epoch=self.epoch,
            capability=self.capability,
            kind=self.kind,
            state=self._state(),
            last_event=self.last_no,
            idle_s=max(0.0, self._monotonic() - self.event_at),
            executor_cpu_s=self.cpu_s(),
            buffered_bytes=self.buffered,
        )

    @property
    def suspended(self) -> bool:
        """Whether the code waits until a reader acknowledges something."""
        return self._suspended and not self.ended

    def cpu_s(self) -> float:
        """CPU seconds of its process since it began."""
        if self.control is None or self.released:
            return self.cpu_seen
        self.cpu_seen = max(0.0, self.control.cpu_s() - self.cpu_base)
        return self.cpu_seen

    def records(  # noqa: PLR0913 - the members of the event
        self,
        body: bytes,
        *,
        count: int,
        sha256: str,
        checkpoint: bytes,
        cost: int,
        more: bool,
        artifact: Artifact | None = None,
        encoding: Encoding = "identity",
    ) -> None:
        """A batch; `more` says that the next event follows at once, so that nobody is woken."""
        if self.ended:
            return  # what a cancelled or superseded execution says later counts for nothing
        event = RecordsEvent(
            no=self.last_no + 1,
            count=count,
            sha256=sha256,
            bytes=len(body) if artifact is None else None,
            artifact=artifact,
            encoding=encoding,
            checkpoint=msgspec.Raw(checkpoint),
        )
        self._append(event, body, cost, wake=not more)

    def rejected(self, reason: str, detail: str, position: bytes, *, cost: int, more: bool) -> None:
        """A record that was refused."""
        if self.ended:
            return
        event = RejectedEvent(
            no=self.last_no + 1, reason=reason, detail=detail, position=msgspec.Raw(position)
        )
        self._append(event, b"", cost, wake=not more)

    def progress(self, done: int, total: int, unit: str) -> None:
        """How far it is; replaces a word on progress that no reader has seen."""
        if self.ended:
            return
        unseen = self._unseen_progress
        number = self.last_no if unseen else self.last_no + 1
        event = ProgressEvent(no=number, done=done, total=total, unit=unit)
        if unseen:
            last = self._events.pop()
            self.buffered -= last.size
            self.last_no -= 1
        quiet = self.kind in UNARY or self._monotonic() - self._woke_at < PROGRESS_WAKES_S
        self._append(event, b"", 0, wake=not quiet)
        self._unseen_progress = True

    def log(self, level: str, message: str, fields: dict[str, object], *, cost: int) -> None:
        """A line of the capability's log; it travels with what comes next."""
        if self.ended:
            return
        event = LogEvent(no=self.last_no + 1, level=level, message=message, fields=fields)
        self._append(event, b"", cost, wake=False)
        self._listener.execution_said(self.asking, level, message, fields)

    def trace_of(self, error: BaseException) -> str:
        """What its code has raised, as far as the worker's log may have it; from any thread."""
        return trace_of(error, withheld=self.withholds_text)

    @property
    def withholds_text(self) -> bool:
        """Whether its data is of a class of which the worker's log has no text."""
        return self._listener.withholds(self)

    def suspend(self) -> None:
        """The code waits until a reader acknowledges something."""
        self._suspended = True

    def succeed(self, body: bytes | None, sha256: str, artifacts: Sequence[Artifact]) -> None:
        """It ended well, with a JSON document or without."""
        if self.ended:
            return
        event = ResultEvent(
            no=self.last_no + 1,
            bytes=None if body is None else len(body),
            sha256=sha256,
            artifacts=list(artifacts),
        )
        self._append(event, body or b"", 0, wake=True, ends=True)
        self._listener.execution_ended(self)

    def fail(self, problem: Problem, *, refused: bool = False) -> None:
        """It ended with a problem; `refused` where nothing had begun."""
        if self.ended:
            return
        if refused:
            self.refused = problem
        self.failed = True
        event = ProblemEvent(no=self.last_no + 1, problem=problem)
        self._append(event, b"", 0, wake=True, ends=True)
        self._listener.execution_ended(self)

    def release(self) -> None:
        """Its code has stopped: the slot is free."""
        if not self.released:
            if self.cpu_base:  # else it ran in no process of its own
                self.cpu_s()
            self.released = True
            self.control = None  # so that a kept answer keeps nothing else
            if self.refused is None:  # else the ticket counts as unused once that was answered
                self.right = self.right.bare
            self._listener.execution_released(self)

    def _append(
        self, event: Event, body: bytes, cost: int, *, wake: bool, ends: bool = False
    ) -> None:
        line = _encode(event) + b"\n"  # what cannot be written changes nothing
        self.ended = ends
        size = len(line) + len(body)
        number = self.last_no = event.no
        self._events.append(Buffered(number, line, body, size, cost))
        self.buffered += size
        self._unseen_progress = False
        now = self.event_at = self.active_at = self._monotonic()
        if wake:
            self._wake(number, now)

    def _wake(self, number: int, now: float) -> None:
        self._ready = number
        self._woke_at = now
        waiters, self._waiters = self._waiters, ()
        for waiter in waiters:
            waiter.wake()

    def _state(self) -> ExecutionState:
        if self.ended:
            return ExecutionState.ENDED
        return ExecutionState.SUSPENDED if self._suspended else ExecutionState.RUNNING


class Listener(Protocol):
    """The table that holds the executions."""

    def execution_ended(self, execution: Execution) -> None: ...

    def execution_released(self, execution: Execution) -> None: ...

    def execution_said(
        self, speaker: Execution | Asking, level: str, message: str, fields: Mapping[str, object]
    ) -> None: ...

    def withholds(self, execution: Execution) -> bool: ...
