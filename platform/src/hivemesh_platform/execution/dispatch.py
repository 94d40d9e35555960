"""Brings one claimed row to one worker, and what the worker answers into the ledger.

A row is asked for, page by page; nothing a worker says counts unless its attempt and epoch are
the row's. Retries are decided here and nowhere else.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog
from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.artifacts import Artifact
from hivemesh_sdk.contracts.names import NDJSON_MEDIA_TYPE
from hivemesh_sdk.contracts.pages import encode_request
from hivemesh_sdk.contracts.problems import Problem, problem, slug_of
from hivemesh_sdk.contracts.steps import MAX_PAGE_BYTES, MAX_WAIT_S, InputPart, Limits, StepRequest
from hivemesh_sdk.errors import HivemeshError

from hivemesh_platform import crash
from hivemesh_platform.artifacts.model import BatchRef
from hivemesh_platform.artifacts.ports import ArtifactStore
from hivemesh_platform.execution.counters import ExecutionCounters
from hivemesh_platform.execution.held import HeldStep, HeldSteps, Verdict
from hivemesh_platform.execution.ledger import (
    Claim,
    Effects,
    Failure,
    Finished,
    Ledger,
    Placed,
    Recorded,
    StaleAttemptError,
)
from hivemesh_platform.execution.model import (
    Again,
    AttemptOutcome,
    after_failure,
    is_loss,
)
from hivemesh_platform.execution.pages import PageReader, StepFailedError, Taken
from hivemesh_platform.execution.ports import (
    Choice,
    Outcome,
    Page,
    Placement,
    StepRefusedError,
    StepTransport,
    UnreachableError,
)
from hivemesh_platform.execution.signals import RunSignals, Signal
from hivemesh_platform.execution.spec import JobSpec, artifact_digests
from hivemesh_platform.settings import ExecutionSettings
from hivemesh_platform.storage.database import Database
from hivemesh_platform.storage.errors import StorageFullError

RECONNECTS = 3  # of one request to the same worker; what is not back then is lost
RECONNECT_S = 0.25  # doubled each time
ROOM_POLL_S = 1.0
KEEP_ALIVE_S = 60.0  # well below the ten minutes after which a worker drops what nobody asks for
PROGRESS_EVERY_S = 1.0
PAUSE_S = 5.0  # before a row is tried again that found the disk full
_OVERLOADED = frozenset({"overloaded", "overloaded-server"})

_log = structlog.get_logger("hivemesh.execution")
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What dispatch is made of."""

    database: Database
    ledger: Ledger
    artifacts: ArtifactStore
    placement: Placement
    transport: StepTransport
    settings: ExecutionSettings
    clock: Clock
    held: HeldSteps
    work: Signal  # there may be rows to claim
    runs: RunSignals
    counters: ExecutionCounters


class Dispatcher:
    """Runs claimed rows; one call of `run` per row."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._forgetting: set[asyncio.Task[None]] = set()

    async def run(self, claim: Claim, choice: Choice, *, resume: bool = False) -> None:
        """Bring a claimed row to its end, or to its next attempt."""
        digests, trees = _visible(claim)
        started = self._parts.clock.monotonic()
        step = HeldStep(claim, choice.endpoint, digests, trees, started)
        self._parts.held.add(step)
        outcome = Outcome.CANCELLED
        try:
            outcome = await self._guarded(step, choice, resume=resume)
        finally:
            self._parts.held.remove(step)
            seconds = self._parts.clock.monotonic() - step.started
            self._parts.placement.report(choice, outcome, seconds)
            self._parts.work.give()

    async def close(self) -> None:
        """Wait for the last acknowledgements."""
        if self._forgetting:
            await asyncio.wait(self._forgetting, timeout=2.0)

    async def _guarded(self, step: HeldStep, choice: Choice, *, resume: bool) -> Outcome:
        try:
            await self._until_verdict(step, choice, resume=resume)
        except StaleAttemptError:
            self._parts.counters.stale_results += 1
            self._forget(step)
            return Outcome.CANCELLED
        except StepFailedError as error:
            return await self._failed(step, error.document)
        except (UnreachableError, StepRefusedError) as error:
            return await self._failed(step, error.problem())
        except StorageFullError as error:
            return await self._paused(step, error)
        except HivemeshError as error:  # an input that is gone or damaged
            return await self._failed(step, error.problem())
        return Outcome.COMPLETED

    async def _until_verdict(self, step: HeldStep, choice: Choice, *, resume: bool) -> None:
        """Run the exchange until it ends, a verdict falls or the deadline passes."""
        exchange = asyncio.create_task(self._exchange(step, choice, resume=resume))
        deadline_ms = step.claim.deadline_ms
        ends: set[asyncio.Future[Any]] = {exchange, step.verdict}
        try:
            await asyncio.wait(
                ends,
                timeout=deadline_ms / 1000 if deadline_ms else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            if not exchange.done():
                exchange.cancel()
                await asyncio.wait({exchange})
        if exchange.cancelled():
            raise self._stopped(step)
        exchange.result()

    def _stopped(self, step: HeldStep) -> Exception:
        if not step.verdict.done():
            self._forget(step)
            detail = f"the step took longer than {step.claim.deadline_ms} ms"
            return StepFailedError(problem("deadline-exceeded", detail))
        verdict, document = step.verdict.result()
        if verdict is not Verdict.LOST:
            self._forget(step)
        if verdict is Verdict.CANCELLED or document is None:
            return StaleAttemptError(f"{step.claim.key} was cancelled")
        return StepFailedError(document)

    async def _exchange(self, step: HeldStep, choice: Choice, *, resume: bool) -> None:
        if step.claim.kind == "source":
            await self._read_source(step, choice, resume=resume)
        else:
            await self._call(step, choice)

    async def _call(self, step: HeldStep, choice: Choice) -> None:
        """One input, one answer: call, map, add, merge, result."""
        claim = step.claim
        body = await self._request(claim)
        self._place(step, choice)
        page = await self._put(step, body)
        del body
        taken = Taken()
        keep = claim.kind in {"add", "merge"}
        reader = PageReader(self._parts.artifacts, str(claim.key), keep_answer=keep)
        await reader.take(page.body, taken)
        while not taken.ended:
            page = await self._next(step, page.execution, taken.last)
            await reader.take(page.body, taken)
        crash.reach("finish.before")
        end = Finished(
            batch=taken.batches[0] if taken.batches else None,
            output=None if taken.output is None else _encode(taken.output).decode(),
            rejected=tuple(taken.rejected),
        )
        await self._finish(step, end)

    async def _read_source(self, step: HeldStep, choice: Choice, *, resume: bool) -> None:
        """Read page by page; what is recorded is acknowledged by the next request."""
        claim = step.claim
        taken = Taken(last=claim.after if resume else 0, checkpoint=claim.checkpoint)
        if resume:
            page = await self._next(step, claim.execution, taken.last)
        else:
            body = await self._request(claim)
            self._place(step, choice)
            page = await self._put(step, body)
        reader = PageReader(self._parts.artifacts, str(claim.key), keep_answer=False)
        told = self._parts.clock.monotonic()
        while True:
            await self._wait_for_room(step, page.execution, taken.last)
            execution = page.execution
            await reader.take(page.body, taken)
            del page  # megabytes, and the next one is on its way soon
            now = self._parts.clock.monotonic()
            if not taken.is_empty or (taken.progress and now - told > PROGRESS_EVERY_S):
                await self._record(step, execution, taken)
                told = now
            if taken.ended:
                break
            page = await self._next(step, execution, taken.last)
        crash.reach("finish.before")
        await self._finish(step, Finished())

    async def _request(self, claim: Claim) -> list[bytes]:
        spec = None if claim.spec is None else msgspec.json.decode(claim.spec, type=JobSpec)
        parts, bodies = await self._inputs(claim, spec)
        limits = self._parts.settings
        parameters: dict[str, object] = {}
        if claim.kind not in {"add", "merge"}:
            parameters = msgspec.json.decode(claim.options) if spec is None else spec.options
        request = StepRequest(
            capability=claim.capability,
            kind=claim.kind,
            attempt=claim.fence.attempt,
            epoch=claim.fence.epoch,
            inputs=parts,
            parameters=parameters,
            checkpoint=msgspec.Raw(claim.checkpoint.encode()),
            limits=Limits(
                records=limits.batch_records,
                bytes=limits.batch_bytes,
                seconds=limits.batch_seconds,
            ),
            deadline_ms=claim.deadline_ms,
            idle_timeout_ms=claim.idle_timeout_ms or 300_000,
        )
        return encode_request(request, bodies)

    async def _inputs(
        self, claim: Claim, spec: JobSpec | None
    ) -> tuple[list[InputPart], list[bytes]]:
        """Inline where all inputs fit into a page, else by reference."""
        if spec is not None:
            body = bytes(spec.input)
            return [InputPart(bytes=len(body), count=1)], [body]
        if sum(one.bytes for one in claim.inputs) > MAX_PAGE_BYTES:
            return [
                InputPart(
                    artifact=Artifact(
                        sha256=one.sha256, size=one.bytes, media_type=NDJSON_MEDIA_TYPE
                    ),
                    count=one.count,
                    encoding=one.encoding,
                )
                for one in claim.inputs
            ], []
        bodies = [await self._parts.artifacts.read(one.sha256) for one in claim.inputs]
        parts = [
            InputPart(bytes=len(body), count=one.count, encoding=one.encoding)
            for one, body in zip(claim.inputs, bodies, strict=True)
        ]
        return parts, bodies

    def _place(self, step: HeldStep, choice: Choice) -> None:
        """Keep where the attempt runs; the write is ordered before the row's end, not awaited."""
        endpoint = choice.endpoint
        placed = Placed(
            instance=endpoint.instance,
            identity=endpoint.identity,
            worker=f"{endpoint.worker} {endpoint.version}",
            explanation=_encode(choice.explanation).decode(),
            endpoint=_encode(endpoint).decode() if step.claim.kind == "source" else "",
        )
        ledger, now = self._parts.ledger, self._now()
        claim = step.claim
        written = self._parts.database.write(
            lambda tx: ledger.placed(tx, claim.key, claim.fence, placed, now)
        )
        written.add_done_callback(_swallow)

    async def _put(self, step: HeldStep, body: list[bytes]) -> Page:
        transport, key = self._parts.transport, str(step.claim.key)
        crash.reach("dispatch.before")
        page = await _reconnecting(
            lambda: transport.put_step(step.endpoint, key, body, wait_s=MAX_WAIT_S)
        )
        crash.reach("dispatch.after")
        return page

    async def _next(self, step: HeldStep, execution: str, after: int) -> Page:
        transport, claim = self._parts.transport, step.claim
        crash.reach("ack.before")
        page = await _reconnecting(
            lambda: transport.get_events(
                step.endpoint,
                str(claim.key),
                execution,
                epoch=claim.fence.epoch,
                after=after,
                wait_s=MAX_WAIT_S,
            )
        )
        crash.reach("ack.after")
        return page

    async def _wait_for_room(self, step: HeldStep, execution: str, after: int) -> None:
        """Let the steps behind catch up: this, and the worker's own buffer, bound the run."""
        database, ledger = self._parts.database, self._parts.ledger
        run, node = step.claim.key.run, step.claim.key.node
        asked = self._parts.clock.monotonic()
        with self._parts.runs.listen(run) as changed:
            while True:
                waiting = await database.read(lambda tx: ledger.open_rows(tx, run, node))
                if waiting < self._parts.settings.in_flight_batches:
                    return
                await changed.wait(ROOM_POLL_S)
                if self._parts.clock.monotonic() - asked > KEEP_ALIVE_S:
                    await self._next(step, execution, after)
                    asked = self._parts.clock.monotonic()

    async def _record(self, step: HeldStep, execution: str, taken: Taken) -> None:
        claim, ledger, now = step.claim, self._parts.ledger, self._now()
        page = Recorded(
            execution=execution,
            after=taken.last,
            checkpoint=taken.checkpoint or "null",
            batches=tuple(taken.batches),
            rejected=tuple(taken.rejected),
            settled=taken.settled,
            progress=taken.progress,
        )
        crash.reach("record.before")
        effects = await self._parts.database.write(
            lambda tx: ledger.record(tx, claim.key, claim.fence, page, now)
        )
        crash.reach("record.after")
        self._parts.counters.batches_recorded += len(taken.batches)
        self._count_bytes(step, taken.batches)
        taken.clear()
        self._wake(claim, effects)

    async def _finish(self, step: HeldStep, end: Finished) -> None:
        claim, ledger, now = step.claim, self._parts.ledger, self._now()
        effects = await self._parts.database.write(
            lambda tx: ledger.finish(tx, claim.key, claim.fence, end, now)
        )
        crash.reach("finish.after")
        self._parts.counters.rows_finished += 1
        self._count_bytes(step, [end.batch] if end.batch is not None else [])
        self._wake(claim, effects)
        if claim.kind != "call":  # a unary answer of a call needs no acknowledgement
            self._forget(step)

    def _count_bytes(self, step: HeldStep, batches: Sequence[BatchRef]) -> None:
        size = sum(batch.bytes for batch in batches)
        self._parts.counters.bytes_by_worker[step.endpoint.worker] += size

    async def _failed(self, step: HeldStep, document: Problem) -> Outcome:
        """Decide between a further attempt and the end of the row."""
        slug = slug_of(document)
        if slug in _OVERLOADED:
            return await self._overloaded(step, document)
        if slug == "stale-reader":
            self._parts.counters.stale_results += 1
            return Outcome.CANCELLED
        claim = step.claim
        decision = after_failure(
            document,
            claim.policy,
            retries=claim.retries,
            losses=claim.losses,
            jitter=random.random(),  # noqa: S311 - spreads retries, guards nothing
        )
        try:
            if isinstance(decision, Again):
                await self._retry(step, document, decision)
            else:
                await self._give_up(step, document)
        except StaleAttemptError:
            self._parts.counters.stale_results += 1
        return _outcome(document)

    async def _retry(self, step: HeldStep, document: Problem, again: Again) -> None:
        claim, ledger, now = step.claim, self._parts.ledger, self._now()
        outcome = AttemptOutcome.LOST if is_loss(document) else AttemptOutcome.FAILED
        failure = Failure(document, outcome, now + round(again.delay_s * 1000))
        await self._parts.database.write(
            lambda tx: ledger.retry(tx, claim.key, claim.fence, failure, now)
        )
        lost = outcome is AttemptOutcome.LOST
        self._parts.counters.attempts_lost += int(lost)
        self._parts.counters.attempts_failed += int(not lost)
        _log.warning(
            "attempt_failed",
            step=str(claim.key),
            attempt=claim.fence.attempt,
            instance=step.endpoint.instance,
            problem=slug_of(document),
            detail=document.detail,
            again_in_s=round(again.delay_s, 2),
        )
        self._parts.runs.give(claim.key.run)

    async def _give_up(self, step: HeldStep, document: Problem) -> None:
        claim, ledger, now = step.claim, self._parts.ledger, self._now()
        effects = await self._parts.database.write(
            lambda tx: ledger.fail(tx, claim.key, claim.fence, document, now)
        )
        self._parts.counters.rows_failed += 1
        _log.error(
            "step_failed",
            step=str(claim.key),
            attempt=claim.fence.attempt,
            problem=slug_of(document),
            detail=document.detail,
        )
        self._wake(claim, effects)
        self._forget(step)

    async def _overloaded(self, step: HeldStep, document: Problem) -> Outcome:
        await self._release(step, document.title, document.retry_after_s or 0.2)
        return Outcome.OVERLOADED

    async def _paused(self, step: HeldStep, error: StorageFullError) -> Outcome:
        """The disk is full: the row waits, and nothing that was recorded is lost."""
        _log.error("storage_full", step=str(step.claim.key), detail=error.detail)
        self._parts.counters.pauses += 1
        self._forget(step)
        while True:
            try:
                await self._release(step, error.detail, PAUSE_S)
            except StorageFullError:
                await asyncio.sleep(PAUSE_S)
            else:
                return Outcome.CANCELLED

    async def _release(self, step: HeldStep, reason: str, delay_s: float) -> None:
        claim, ledger = step.claim, self._parts.ledger
        until = self._now() + round(delay_s * 1000)
        await self._parts.database.write(
            lambda tx: ledger.release(tx, claim.key, claim.fence, reason, until)
        )

    def _wake(self, claim: Claim, effects: Effects) -> None:
        if effects.queued:
            self._parts.work.give()
        if effects.ended_nodes or effects.ended_runs:
            self._parts.runs.give_end(claim.key.run)
        else:
            self._parts.runs.give(claim.key.run)
        for run in effects.ended_runs:
            self._parts.counters.open_runs.discard(run)
            for other in self._parts.held.of_run(run):
                if other.claim.key != claim.key:
                    other.end(Verdict.CANCELLED)

    def _forget(self, step: HeldStep) -> None:
        """Acknowledge an ended execution, or cancel a running one; nobody waits for the answer."""
        task = asyncio.create_task(self._delete(step))
        self._forgetting.add(task)
        task.add_done_callback(self._forgetting.discard)

    async def _delete(self, step: HeldStep) -> None:
        claim = step.claim
        try:
            await self._parts.transport.delete_step(
                step.endpoint, str(claim.key), claim.fence.attempt
            )
        except HivemeshError as error:  # it expires there by itself
            _log.debug("step_not_forgotten", step=str(claim.key), detail=error.detail)

    def _now(self) -> int:
        return milliseconds(self._parts.clock)


def milliseconds(clock: Clock) -> int:
    """Wall time as the ledger writes it."""
    return round(clock.now().timestamp() * 1000)


async def _reconnecting(ask: Callable[[], Awaitable[Page]]) -> Page:
    """Repeat an idempotent request to the same worker while the connection breaks.

    Raises:
        UnreachableError: it is not back in time.
    """
    for waited in range(RECONNECTS):
        try:
            return await ask()
        except UnreachableError:
            await asyncio.sleep(RECONNECT_S * 2**waited)
    return await ask()


def _outcome(document: Problem) -> Outcome:
    match slug_of(document):
        case "worker-unreachable":
            return Outcome.UNREACHABLE
        case "worker-lost":
            return Outcome.LOST
        case _:
            return Outcome.FAILED


def _visible(claim: Claim) -> tuple[frozenset[str], frozenset[str]]:
    """Name the artifacts that the step may read, and which of them are folders."""
    if claim.spec is None:
        document: object = msgspec.json.decode(claim.options)
    else:
        spec = msgspec.json.decode(claim.spec, type=JobSpec)
        document = [spec.options, msgspec.json.decode(spec.input)]
    named, trees = artifact_digests(document)
    return named | {one.sha256 for one in claim.inputs}, trees


def _swallow(future: "asyncio.Future[None]") -> None:
    """A placement that was not kept costs an explanation, nothing else."""
    if not future.cancelled() and future.exception() is not None:
        _log.warning("placement_not_kept", detail=str(future.exception()))
