"""The exchange of one row with one worker, page by page, into the ledger.

What a page brings is recorded before the next request acknowledges it.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import structlog
from hivemesh_sdk.contracts.artifacts import highest
from hivemesh_sdk.contracts.steps import MAX_WAIT_S

from hivemesh_platform import crash
from hivemesh_platform.artifacts.model import BatchRef
from hivemesh_platform.artifacts.store import stored_by_run
from hivemesh_platform.execution.held import HeldStep
from hivemesh_platform.execution.ledger.port import Effects, Finished, Placed, Recorded, RowEnd
from hivemesh_platform.execution.ports import Choice, Page, Place
from hivemesh_platform.execution.steps import halves
from hivemesh_platform.execution.steps.pages import PageReader, StepFailedError, Taken
from hivemesh_platform.execution.steps.parts import Parts
from hivemesh_platform.execution.steps.reconnecting import reconnecting
from hivemesh_platform.execution.steps.requests import request_of

ROOM_POLL_S = 1.0
ROOM_GAP_S = (0.001, 0.05)  # between two looks: for each batch that may be ahead, and at most
ASIDE_AFTER_S = 1.0  # of waiting, before it is asked whether it waits for itself
KEEP_ALIVE_S = 60.0  # well below the ten minutes after which a worker drops what nobody asks for
PROGRESS_EVERY_S = 1.0
PLACED_AFTER_S = 0.05  # where no others are: what ends sooner is written with its end, at once

_log = structlog.get_logger("hivemesh.execution")
_encode = msgspec.json.Encoder().encode


class StepAsideError(Exception):
    """A source keeps the steps for which it waits from running: it reads on later."""


class Exchange:
    """Speaks with the worker that holds the step."""

    def __init__(self, parts: Parts, step: HeldStep, choice: Choice) -> None:
        self._parts = parts
        self._step = step
        self._claim = step.claim
        self._choice = choice
        keep = step.claim.kind in {"add", "merge"}
        touched = highest((step.claim.data_class, step.claim.output_class))
        self._reader = PageReader(
            parts.artifacts,
            str(step.claim.key),
            keep_answer=keep,
            may_name=self._may_name,
            withheld=touched if touched.exceeds(parts.settings.log_class_max) else None,
            answered=None if step.claim.kind == "source" else self._give_back,
        )
        self._told = parts.clock.monotonic()  # when progress was last recorded
        self._began = 0  # when the worker was asked
        self._unplaced: Placed | None = None  # where the attempt runs, until it is written
        self._placed: asyncio.Future[None] | None = None

    async def run(self, *, resume: bool) -> None:
        """Bring the row to its good end.

        Raises:
            StepFailedError: the execution ended with a problem.
            StepRefusedError: the worker does not take it.
            UnreachableError: the worker does not answer.
            StaleAttemptError: the row has gone to a later attempt or reader.
        """
        try:
            if self._claim.halved and self._claim.lines is None:  # all that is left is to join them
                await self._join_parts()
            elif self._claim.kind == "source":
                await self._read_source(resume=resume)
            else:
                await self._call()
        finally:
            await self._until_placed()

    async def _call(self) -> None:
        """One input, one answer: call, map, add, merge, result."""
        page = await self._put()
        taken = Taken()
        await self._read(page.body, taken)
        while not taken.ended:
            page = await self._next(page.execution, taken.last)
            await self._read(page.body, taken)
        with self._step.keeping():
            await self._end(taken)

    async def _end(self, taken: Taken) -> None:
        parts = self._parts
        end = Finished(
            batch=await parts.with_space(lambda: halves.join(parts, taken.batches)),
            output=None if taken.output is None else _encode(taken.output).decode(),
            rejected=tuple(taken.rejected),
        )
        if self._claim.halved:
            await self._until_placed()
            await self._end_part(end)
        else:
            await self._finish(end)

    async def _read(self, body: bytes, taken: Taken, batches: int = 0) -> bool:
        """Take a page, as soon as there is space for what it brings; none of it is asked for twice."""
        with self._step.keeping():
            return await self._parts.with_space(lambda: self._reader.take(body, taken, batches))

    async def _end_part(self, end: Finished) -> None:
        parts, claim, now = self._parts, self._claim, self._parts.now()
        last = await parts.surely(
            lambda tx: parts.ledger.end_part(tx, claim.key, claim.fence, end, now)
        )
        if last:
            await self._join_parts()
        else:
            self._step.untold.append(Effects(queued=True))

    async def _join_parts(self) -> None:
        parts, claim = self._parts, self._claim
        self._step.untold.append(await parts.with_space(lambda: halves.finish(parts, claim)))

    async def _read_source(self, *, resume: bool) -> None:
        """Read page by page; the next page is asked for before there is room to record it."""
        claim = self._claim
        taken = Taken(last=claim.after if resume else 0, checkpoint=claim.checkpoint)
        if resume:
            page = await self._next(claim.execution, taken.last)
        else:
            page = await self._put()
            await self._until_placed()
        while True:
            execution = page.execution
            await self._wait_for_room(execution, taken.last)
            while await self._take(page.body, execution, taken):
                await self._wait_for_room(execution, taken.last)
            del page  # megabytes, and the next one is on its way soon
            if taken.ended:
                break
            page = await self._next(execution, taken.last)
        self._parts.end_rights(self._step)
        await self._finish(Finished())

    async def _take(self, body: bytes, execution: str, taken: Taken) -> bool:
        """Record what a page brings, also if it ends with a problem; True where there is more of it.

        The steps behind have something to do while the rest of a long page is stored.
        """
        try:
            more = await self._read(body, taken, self._parts.settings.in_flight_batches)
        except StepFailedError:
            if taken.batches:
                await self._record(execution, taken)
            raise
        late = self._parts.clock.monotonic() - self._told > PROGRESS_EVERY_S
        if not taken.is_empty or (taken.progress is not None and late):
            with self._step.keeping():
                await self._record(execution, taken)
        return more

    def _give_back(self) -> None:
        """The worker has ended: what it said is stored while its slot is used by another step."""
        if self._step.answered is not None:
            self._step.answered()
        self._parts.end_rights(self._step)
        self._parts.held.give_back(self._step, self._parts.placement, self._choice)

    async def _may_name(self, sha256: str) -> bool:
        """Whether the step may name an artifact: it was given to it, or its run has stored it."""
        if sha256 in self._step.digests:
            return True
        run = self._claim.key.run
        return await self._parts.database.read(lambda tx: stored_by_run(tx, run, sha256))

    def _place(self) -> Placed:
        endpoint = self._choice.endpoint
        return Placed(
            instance=endpoint.instance,
            identity=endpoint.identity,
            worker=f"{endpoint.worker} {endpoint.version}",
            explanation=_encode(dict(self._choice.explanation)).decode(),
            endpoint=_encode(endpoint).decode() if self._claim.kind == "source" else "",
        )

    def _write_place(self) -> None:
        """Write where the attempt runs, while the worker is asked."""
        placed, self._unplaced = self._unplaced, None
        if placed is None:
            return
        ledger, claim, began = self._parts.ledger, self._claim, self._began
        self._placed = self._parts.database.write(
            lambda tx: ledger.placed(tx, claim.key, claim.fence, placed, began)
        )
        self._placed.add_done_callback(_swallow)

    async def _until_placed(self) -> None:
        """Wait for it before the row's end is written; its slot does not wait for it."""
        self._write_place()
        if self._placed is not None:
            await asyncio.wait([self._placed])

    async def _put(self) -> Page:
        parts, step, key = self._parts, self._step, str(self._claim.key)
        body = await request_of(self._claim, parts.artifacts, parts.settings)
        self._unplaced, self._began = self._place(), self._parts.now()
        if self._claim.kind == "source" or parts.has_others():  # they are asked what it may do
            self._write_place()
        else:
            asyncio.get_running_loop().call_later(PLACED_AFTER_S, self._write_place)
        crash.reach("dispatch.before")
        page = await reconnecting(
            lambda: parts.transport.put_step(
                step.endpoint, key, body, ticket=parts.tickets.of(step), wait_s=MAX_WAIT_S
            )
        )
        crash.reach("dispatch.after")
        step.begun = True
        return page

    async def _next(self, execution: str, after: int) -> Page:
        parts, step, claim = self._parts, self._step, self._claim
        crash.reach("ack.before")
        page = await reconnecting(
            lambda: parts.transport.get_events(
                step.endpoint,
                str(claim.key),
                Place(execution, claim.fence.epoch, after),
                ticket=parts.tickets.of(step),
                wait_s=MAX_WAIT_S,
            )
        )
        crash.reach("ack.after")
        return page

    async def _wait_for_room(self, execution: str, after: int) -> None:
        """Let the steps behind catch up: this, and the worker's own buffer, bound the run."""
        parts, (run, node) = self._parts, (self._claim.key.run, self._claim.key.node)
        most = parts.settings.in_flight_batches
        asked = looked = parts.clock.monotonic()
        with parts.runs.listen(run) as changed:
            while True:
                waiting = await parts.database.read(
                    lambda tx: parts.ledger.open_rows(tx, run, node)
                )
                self._step.waits = waiting >= most
                if not self._step.waits:
                    return
                self._clear()  # those behind may be suspects too, which would wait for its end
                await changed.wait(ROOM_POLL_S)
                await asyncio.sleep(min(ROOM_GAP_S[0] * most, ROOM_GAP_S[1]))
                if parts.clock.monotonic() - looked > ASIDE_AFTER_S:
                    await self._step_aside()
                    looked = parts.clock.monotonic()
                if parts.clock.monotonic() - asked > KEEP_ALIVE_S:
                    await self._next(execution, after)
                    asked = parts.clock.monotonic()

    async def _step_aside(self) -> None:
        """End here where those behind could run, but for a limit that this source fills."""
        parts, (run, node) = self._parts, (self._claim.key.run, self._claim.key.node)
        held_up = await parts.database.read(
            lambda tx: parts.ledger.held_up(tx, run, node, parts.now())
        )
        free = parts.placement.free_slots()
        if any(free.get(name, 0) > 0 for name in held_up):
            message = "it makes room for the steps behind it, which its own limit holds back"
            raise StepAsideError(message)

    def _clear(self) -> None:
        if self._step.harmless is not None:
            self._step.harmless()

    async def _record(self, execution: str, taken: Taken) -> None:
        parts, claim, now = self._parts, self._claim, self._parts.now()
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
        effects = await parts.surely(
            lambda tx: parts.ledger.record(tx, claim.key, claim.fence, page, now)
        )
        crash.reach("record.after")
        parts.counters.batches_recorded += len(taken.batches)
        self._count_processed(taken.batches)
        if taken.batches:
            self._step.advanced = True
            self._clear()
        self._told = parts.clock.monotonic()
        taken.clear()
        parts.wake(claim, effects)

    async def _finish(self, end: Finished) -> None:
        parts, claim = self._parts, self._claim
        if self._placed is not None:
            await asyncio.wait([self._placed])
        placed, self._unplaced = self._unplaced, None
        whole = replace(end, placed=placed, began=self._began)
        crash.reach("finish.before")
        try:
            effects = await parts.with_space(
                lambda: parts.ends.finish(RowEnd(claim.key, claim.fence, whole))
            )
        except BaseException:
            self._unplaced = placed
            raise
        crash.reach("finish.after")
        parts.counters.rows_finished += 1
        self._count_processed([end.batch] if end.batch is not None else [])
        self._step.untold.append(effects)

    def _count_processed(self, batches: Sequence[BatchRef]) -> None:
        size = sum(batch.bytes for batch in batches)
        counters, worker = self._parts.counters, self._step.endpoint.worker
        counters.bytes_by_worker[worker] += size
        counters.records_by_worker[worker] += sum(batch.count for batch in batches)


def _swallow(future: "asyncio.Future[None]") -> None:
    """A placement that was not kept costs an explanation, nothing else."""
    if not future.cancelled() and future.exception() is not None:
        _log.warning("placement_not_kept", detail=str(future.exception()))
