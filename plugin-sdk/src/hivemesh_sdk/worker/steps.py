"""The table of steps: one entry per key, with its attempt, fingerprint, execution and events.

Decides what a request on a key means (section 6 of the architecture); runners run, routes talk.
Time only passes in `tick`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
import structlog

from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.problems import problem
from hivemesh_sdk.contracts.steps import (
    MAX_MEMBERS,
    ExecutionStatus,
    SlotStatus,
    StepRequest,
    digest_of_members,
)
from hivemesh_sdk.errors import (
    FatalError,
    HivemeshError,
    NotAuthorizedError,
    NotFoundError,
    RetryableError,
)
from hivemesh_sdk.trust.tickets import Spent, TicketRefusedError
from hivemesh_sdk.worker.access import Right
from hivemesh_sdk.worker.execution import ENTRY_BYTES, UNARY, Asking, Control, Execution
from hivemesh_sdk.worker.failures import problem_of
from hivemesh_sdk.worker.kept import Kept, Settled
from hivemesh_sdk.worker.metrics import StepMetrics
from hivemesh_sdk.worker.spoken import SpokenLines

RETRY_AFTER_S = 1.0

_log = structlog.get_logger("hivemesh.steps")

Bodies = Sequence[bytes | None]
Fingerprint = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long the table waits for whom, in seconds."""

    grace: float = 5.0  # between "please stop" and the end of the executor
    orphan_after: float = 600.0  # nobody asked: a platform that lost its worker's address
    keep: float = 900.0  # an ended execution nobody acknowledges
    keep_bytes: int = 64 * 1024 * 1024
    keep_settled: int = 8192  # acknowledged results of which the key is remembered


class Runner(Protocol):
    """Runs executions: `pool` in processes, `inline` on the second loop, `quick` at once."""

    def start(self, execution: Execution, request: StepRequest, bodies: Bodies) -> Control: ...


class Slots:
    """The slots of one capability and who runs it."""

    __slots__ = ("active", "metrics", "runner", "total")

    def __init__(self, total: int, runner: Runner, metrics: StepMetrics) -> None:
        self.total = total
        self.active = 0
        self.runner = runner
        self.metrics = metrics


class StepTable:
    """All executions of this process that anybody may still ask for."""

    def __init__(
        self,
        slots: Mapping[str, Slots],
        clock: Clock,
        timing: Timing | None = None,
        spoken: SpokenLines | None = None,
    ) -> None:
        self._slots = slots
        self._clock = clock
        self._timing = timing or Timing()
        self._spoken = spoken or SpokenLines()
        self._entries: dict[str, Execution] = {}
        self._running: dict[str, Execution] = {}  # not released: they hold a slot; by their key
        self._waiting: dict[Execution, _Waiting] = {}  # by the attempt they wait for
        self._kept = Kept(self._timing.keep, self._timing.keep_bytes)
        self._settled = Settled(self._timing.keep, self._timing.keep_settled)
        self._spent = Spent(clock)
        self.draining = False

    def put(self, key: str, request: StepRequest, bodies: Bodies, right: Right) -> Execution:
        """Create the execution of a key, or find the one that the request means.

        Raises:
            NotAuthorizedError: `ticket-replayed`, or another caller has created it.
            FatalError: `idempotency-mismatch`, `stale-attempt` or `stale-reader`.
            RetryableError: `overloaded` or `draining`; nothing has begun.
            NotFoundError: the manifest has no such capability.
        """
        slots = self._slots.get(request.capability)
        if slots is None:
            message = f"{request.capability!r} is not in the manifest of this worker"
            raise NotFoundError(message, slug="unknown-capability")
        if request.members:
            _check_members(request, bodies)
        fingerprint = fingerprint_of(request, bodies)
        present = self._entries.get(key)
        if present is not None:
            found = self._present(present, request, fingerprint, right)
            if found is not None:
                return found
        else:
            self._refuse_settled(key, request, fingerprint)
        previous = self._admit(key, request, right, slots)
        execution = Execution.begin(key, request, fingerprint, right, self._clock, self)
        if request.members:
            execution.has_members(request.members, request.deadline_ms)
        self._entries[key] = execution
        if present is not None:
            self._kept.discard(present)
        if previous is None:
            self._start(execution, request, bodies, slots)
        else:
            self._waiting[previous] = _Waiting(execution, request, bodies)
            self.stop(previous, "stale-attempt", f"attempt {request.attempt} has begun")
        return execution

    def find(self, key: str, execution_id: str, epoch: int) -> Execution:
        """The execution that a reader goes on with.

        Raises:
            NotFoundError: `execution-unknown`: start the next attempt.
            FatalError: `stale-reader`: another replica reads it.
        """
        execution = self._entries.get(key)
        if execution is None or execution.id != execution_id:
            raise _unknown(key)
        self._fence(execution, epoch)
        execution.asked_at = self._clock.monotonic()
        return execution

    def get(self, key: str) -> Execution | None:
        """The execution of a key, if there is one."""
        return self._entries.get(key)

    def look(self, key: str) -> Execution:
        """The execution of a key, for whoever only wants to see it.

        Raises:
            NotFoundError: `execution-unknown`.
        """
        execution = self._entries.get(key)
        if execution is None:
            raise _unknown(key)
        return execution

    def acknowledge(self, execution: Execution, after: int) -> None:
        """Drop the events up to `after`; an execution that was read to the end is forgotten."""
        before = execution.buffered
        execution.acknowledge(after)
        if execution.ended:
            self._kept.shrink(execution, before - execution.buffered)
            if execution.read_to_the_end:
                self.forget(execution)

    def settle(self, execution: Execution, attempt: int) -> None:
        """Its answer was recorded where it counts: forget it, and remember the key of a result.

        Nothing happens while its code runs, or to another attempt.
        """
        if execution.ended and execution.released and execution.attempt == attempt:
            if not execution.failed:
                self._settled.add(execution, self._clock.monotonic())
            self.forget(execution)

    def delete(self, key: str, attempt: int) -> Execution | None:
        """Cancel what runs, forget what has ended; None where the key is not known.

        Raises:
            FatalError: `stale-attempt`.
        """
        execution = self._entries.get(key)
        if execution is None:
            return None
        if attempt < execution.attempt:
            raise _stale_attempt(execution)
        if execution.ended:
            self.forget(execution)
        else:
            self.stop(execution, "cancelled")
        return execution

    def with_member(self, key: str, attempt: int) -> Execution | None:
        """The execution in which a small call runs with others, or waits to."""
        for execution in self._running.values():
            for member in execution.members:
                if member.key == key and member.attempt == attempt:
                    return None if execution.ended else execution
        return None

    def drop_member(self, execution: Execution, key: str) -> None:
        """Cancel a small call that runs with others, as soon as it is the one that runs.

        The request ends with it: nobody can take one call out of the code that makes them. The
        platform sends again those behind it.
        """
        execution.unwanted |= {key}
        self._stop_unwanted(execution)

    def forget(self, execution: Execution) -> None:
        """Nobody will ask for it again; the next attempt of its key still waits for its code."""
        if execution.refused is not None:  # nothing had begun, so the same request may come again
            self._spent.discard(execution.right.claims, execution.key)
        self._kept.discard(execution)
        if self._entries.get(execution.key) is execution:
            del self._entries[execution.key]

    def stop(self, execution: Execution, slug: str, detail: str = "") -> None:
        """End an execution with a problem now, and its code within the grace."""
        execution.fail(problem(slug, detail))
        if execution.control is None:
            execution.release()  # it had not begun
        elif not execution.released and execution.kill_at is None:
            execution.kill_at = self._clock.monotonic() + self._timing.grace
            execution.control.cancel()

    def stop_all(self) -> None:
        """End everything: the process is about to leave."""
        for execution in tuple(self._running.values()):
            self.stop(execution, "draining", "the worker stops")
        for waiting in tuple(self._waiting.values()):
            self.stop(waiting.execution, "draining", "the worker stops")

    def tick(self) -> None:
        """Let time pass: deadlines, graces, idle and orphaned executions, expired answers."""
        now = self._clock.monotonic()
        for execution in tuple(self._running.values()):
            self._watch(execution, now)
        for execution in self._kept.expired(now):
            self.forget(execution)
        self._settled.tick(now)

    @property
    def busy(self) -> bool:
        """Whether any code runs."""
        return bool(self._running)

    @property
    def kept_bytes(self) -> int:
        """Bytes of ended executions that wait to be acknowledged."""
        return self._kept.size

    @property
    def settled(self) -> int:
        """Acknowledged results whose keys are remembered."""
        return len(self._settled)

    def statuses(self) -> list[ExecutionStatus]:
        """Every execution that has not ended or still computes, oldest first."""
        waiting = (one.execution for one in self._waiting.values())
        return [execution.status() for execution in (*self._running.values(), *waiting)]

    def slot_status(self) -> dict[str, SlotStatus]:
        """Slots by capability."""
        return {
            name: SlotStatus(total=slots.total, active=slots.active)
            for name, slots in self._slots.items()
        }

    def execution_ended(self, execution: Execution) -> None:
        """Keep what it said until somebody has read it."""
        metrics = self._slots[execution.capability].metrics
        metrics.ended(execution.event_at - execution.started_at, failed=execution.failed)
        if self._entries.get(execution.key) is not execution:
            return  # superseded: nobody can ask for it
        for dropped in self._kept.add(execution, execution.buffered + ENTRY_BYTES):
            self.forget(dropped)

    def execution_released(self, execution: Execution) -> None:
        """Give the slot to the attempt that waited for it, or free it."""
        if self._running.get(execution.key) is execution:
            del self._running[execution.key]
            self._slots[execution.capability].active -= 1
        if not self._waiting:
            return
        waiting = self._waiting.pop(execution, None)
        if waiting is not None and not waiting.execution.ended:
            slots = self._slots[waiting.execution.capability]
            self._start(waiting.execution, waiting.request, waiting.bodies, slots)

    def execution_said(
        self, speaker: Execution | Asking, level: str, message: str, fields: Mapping[str, object]
    ) -> None:
        """Write what it said into the log of this process too."""
        self._spoken.write(speaker, level, message, fields)

    def withholds(self, execution: Execution) -> bool:
        """Whether the log of this process has no text of it."""
        return self._spoken.withheld(execution) is not None

    def _present(
        self, present: Execution, request: StepRequest, fingerprint: Fingerprint, right: Right
    ) -> Execution | None:
        if not _is_same_caller(present.right, right):
            message = f"{present.key!r} belongs to another caller"
            raise NotAuthorizedError(message)
        if request.attempt > present.attempt and _is_other_part(present.fingerprint, fingerprint):
            return None
        if present.fingerprint != fingerprint:
            message = f"attempt {present.attempt} of {present.key!r} had another body"
            raise FatalError(message, slug="idempotency-mismatch")
        if request.attempt < present.attempt:
            raise _stale_attempt(present)
        has_result = present.ended and not present.failed and present.kind in UNARY
        if request.attempt > present.attempt and not has_result:
            return None
        self._fence(present, request.epoch)
        present.attempt = request.attempt
        present.right = right
        present.asked_at = self._clock.monotonic()
        return present

    def _refuse_settled(self, key: str, request: StepRequest, fingerprint: Fingerprint) -> None:
        """Whose answer was acknowledged is not made again, except by a higher attempt."""
        settled = self._settled.find(key, fingerprint)
        if settled is None:
            return
        attempt, same = settled
        if not same:
            message = f"attempt {attempt} of {key!r} had another body"
            raise FatalError(message, slug="idempotency-mismatch")
        if request.attempt <= attempt:
            message = f"the answer to attempt {attempt} of {key!r} was acknowledged"
            raise FatalError(message, slug="stale-attempt")

    def _fence(self, execution: Execution, epoch: int) -> None:
        if epoch < execution.epoch:
            message = f"epoch {epoch} was superseded by {execution.epoch}"
            raise FatalError(message, slug="stale-reader")
        execution.epoch = epoch

    def _admit(
        self, key: str, request: StepRequest, right: Right, slots: Slots
    ) -> Execution | None:
        """Refuse what may not begin; an attempt that has to stop before is answered."""
        if self.draining:
            message = "call another instance"
            raise RetryableError(message, slug="draining", delay_s=RETRY_AFTER_S)
        if not self._spent.add(right.claims, key):
            message = f"{key!r} was begun with it before"
            raise TicketRefusedError(message, reason="replayed", slug="ticket-replayed")
        previous = self._holder(key)
        if previous is None and slots.active >= slots.total:
            self._spent.discard(right.claims, key)
            slots.metrics.refused()
            message = f"all {slots.total} slots of {request.capability} are taken"
            raise RetryableError(message, slug="overloaded", delay_s=RETRY_AFTER_S)
        return previous

    def _holder(self, key: str) -> Execution | None:
        """The execution whose code must stop before another attempt of the key may begin."""
        previous = self._running.get(key)
        waiting = None if previous is None else self._waiting.pop(previous, None)
        if waiting is not None:  # an attempt that never began is replaced
            self.stop(waiting.execution, "stale-attempt", "a newer attempt has begun")
        return previous

    def _start(
        self, execution: Execution, request: StepRequest, bodies: Bodies, slots: Slots
    ) -> None:
        slots.active += 1
        slots.metrics.starts += 1
        self._running[execution.key] = execution
        try:
            control = slots.runner.start(execution, request, bodies)
        except Exception as error:  # noqa: BLE001 - whatever it is, the slot is free again
            if not isinstance(error, HivemeshError):
                _log.error("step_raised", key=execution.key, exception=execution.trace_of(error))
            execution.fail(problem_of(error))
            execution.release()
            return
        if not execution.released:
            execution.control = control
            execution.cpu_base = control.cpu_s()

    def _stop_unwanted(self, execution: Execution) -> None:
        if execution.at_unwanted:
            self.stop(execution, "cancelled", "one of the calls of the request was cancelled")

    def _watch(self, execution: Execution, now: float) -> None:
        if execution.kill_at is not None:
            if now >= execution.kill_at and execution.control is not None:
                execution.control.kill()
            return
        if execution.ended:
            return
        execution.tell()
        if execution.unwanted:
            self._stop_unwanted(execution)
        if execution.deadline_at is not None and now >= execution.deadline_at:
            seconds = execution.deadline_at - execution.started_at
            self.stop(execution, "deadline-exceeded", f"after {seconds:.3g} s")
        elif not execution.waited_for and now - execution.asked_at >= self._timing.orphan_after:
            waited = f"nobody asked for {self._timing.orphan_after:.0f} s"
            self.stop(execution, "cancelled", waited)
        else:
            self._watch_idle(execution, now)

    def _watch_idle(self, execution: Execution, now: float) -> None:
        limit = execution.idle_timeout_s
        idle = now - execution.active_at
        if execution.suspended or not limit:
            execution.active_at = now
            return
        if idle < min(1.0, limit):
            return
        seen = execution.cpu_seen
        if execution.cpu_s() > seen:
            execution.active_at = now
        elif idle >= limit:
            message = f"neither an event nor CPU time for {limit:.3g} s"
            self.stop(execution, "deadline-exceeded", message)


@dataclass(frozen=True, slots=True)
class _Waiting:
    execution: Execution
    request: StepRequest
    bodies: Bodies


def fingerprint_of(request: StepRequest, bodies: Bodies) -> Fingerprint:
    """What makes two requests the same: lines, capability, kind, parameters, digests of the inputs.

    An input counts by its content, so it may come inline once and by reference the next time.

    Raises:
        FatalError: an input has neither bytes nor an artifact.
    """
    parameters = request.parameters
    known = msgspec.json.encode(parameters, order="sorted") if parameters else b""
    lines = request.limits.lines
    which = "" if lines is None else f"{lines[0]}-{lines[1]}"
    parts = [which, request.capability, request.kind, _digest(known) if known else ""]
    for part, body in zip(request.inputs, bodies, strict=True):
        if body is not None:
            parts.append(part.sha256 or _digest(body))
        elif part.artifact is not None:
            parts.append(part.artifact.sha256)
        else:
            message = "an input has neither `bytes` nor `artifact`"
            raise FatalError(message, slug="input-invalid")
    if request.members:
        parts.append(digest_of_members(request.members))
    return tuple(parts)


def _is_other_part(first: Fingerprint, now: Fingerprint) -> bool:
    """Whether both mean the same input and only other lines of it."""
    return first[0] != now[0] and first[1:] == now[1:]


def _check_members(request: StepRequest, bodies: Bodies) -> None:
    """Refuse several calls that are not all there.

    Raises:
        FatalError: they are no calls, too many, or their number is not that of the inputs.
    """
    members = request.members
    lines = sum(-1 if body is None else body.count(b"\n") + 1 for body in bodies)
    keys = {one.key for one in members}
    if request.kind != "call" or len(bodies) != 1 or not len(keys) == len(members) == lines:
        message = f"{len(members)} calls in one request need as many lines of input"
        raise FatalError(message, slug="input-invalid")
    if len(members) > MAX_MEMBERS:
        message = f"{len(members)} calls in one request, at most {MAX_MEMBERS} are taken"
        raise FatalError(message, slug="input-invalid")


def _is_same_caller(first: Right, now: Right) -> bool:
    """Whether a key goes on with this caller: a replica, or the instance of the next attempt.

    The platform has signed for both instances that they hold the same step, and for the one of the
    higher attempt that it holds it now.
    """
    if first.caller == now.caller:
        return True
    if _kind(first) == _kind(now) == "platform":
        return True
    before, after = first.claims, now.claims
    return (
        first.from_worker
        and now.from_worker
        and _worker_type(first) == _worker_type(now) != ""
        and (before.run, before.step) == (after.run, after.step)
        and before.attempt < after.attempt
    )


def _kind(right: Right) -> str:
    """The first segment of the caller's path."""
    return right.caller.split("/", 4)[3]


def _worker_type(right: Right) -> str:
    """The identity without its last segment, the instance; "" where the caller is no worker."""
    return right.caller.rpartition("/")[0] if _kind(right) == "worker" else ""


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _stale_attempt(execution: Execution) -> HivemeshError:
    message = f"attempt {execution.attempt} of {execution.key!r} exists"
    return FatalError(message, slug="stale-attempt")


def _unknown(key: str) -> HivemeshError:
    message = f"key {key!r}"
    return NotFoundError(message, slug="execution-unknown")
