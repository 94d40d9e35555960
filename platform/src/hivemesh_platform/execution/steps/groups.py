"""Brings small jobs to their ends that travel together: one request, an answer and a state for each.

A request that ends with a problem means the first member without an answer; those behind it have
not begun, and are queued again at no cost.
"""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
import structlog
from hivemesh_sdk.contracts.artifacts import highest
from hivemesh_sdk.contracts.instances import Endpoint
from hivemesh_sdk.contracts.pages import FramingError, decode_page, encode_request
from hivemesh_sdk.contracts.problems import Problem, problem, slug_of
from hivemesh_sdk.contracts.steps import (
    MAX_WAIT_S,
    InputPart,
    LogEvent,
    MemberEvent,
    ProblemEvent,
    ResultEvent,
    StepRequest,
)
from hivemesh_sdk.errors import HivemeshError
from msgspec.structs import replace

from hivemesh_platform import crash
from hivemesh_platform.artifacts.model import BatchRef
from hivemesh_platform.artifacts.ports import Stored
from hivemesh_platform.execution.held import HeldStep, Verdict, members_of
from hivemesh_platform.execution.ledger.port import Claim, JobEnd, Placed, Travel
from hivemesh_platform.execution.model import (
    JOB_NODE,
    Fence,
    Output,
    WorkKey,
    is_lost_worker,
    is_of_clocks,
)
from hivemesh_platform.execution.plans.spec import JobSpec
from hivemesh_platform.execution.ports import (
    Choice,
    Outcome,
    Page,
    Place,
    StepRefusedError,
    UnreachableError,
)
from hivemesh_platform.execution.steps.dispatch import (
    Dispatcher,
    refused_ticket,
    until_stored,
)
from hivemesh_platform.execution.steps.pages import (
    INLINE_ANSWER,
    StepFailedError,
    as_told,
    wrong_answer,
)
from hivemesh_platform.execution.steps.parts import FULL_S, Parts
from hivemesh_platform.execution.steps.reconnecting import reconnecting
from hivemesh_platform.execution.steps.requests import DEFAULT_IDLE_MS
from hivemesh_platform.replicas.model import StaleReplicaError
from hivemesh_platform.storage.errors import StorageFullError
from hivemesh_platform.storage.transaction import Transaction

GROUP = "group"  # in place of a run, in the key of a request
BUSY_S = 0.2  # before rows are tried again whose worker was full and did not say for how long
_BUSY = frozenset({"overloaded", "overloaded-server", "draining"})
_LOST = frozenset({"execution-unknown", "stale-attempt", "stale-reader"})

_log = structlog.get_logger("hivemesh.execution")
_encode = msgspec.json.Encoder().encode
_decode_spec = msgspec.json.Decoder(JobSpec).decode


class _Input(msgspec.Struct):
    """The part of a spec in which members differ."""

    input: msgspec.Raw = msgspec.Raw(b"null")


_decode_input = msgspec.json.Decoder(_Input).decode


class GroupDispatcher:
    """Runs claimed jobs that travel together; one call of `run` per request."""

    def __init__(self, parts: Parts, dispatcher: Dispatcher) -> None:
        self._parts = parts
        self._dispatcher = dispatcher

    async def run(self, claims: Sequence[Claim], choice: Choice) -> tuple[int, float]:
        """Bring claimed jobs to their ends or to their next attempts.

        Returns how many ended well, 0 where the request did not come to its own end, and the
        seconds that their worker took.
        """
        parts = self._parts
        started = parts.clock.monotonic()
        step = self._step(_group_claim(claims), choice)
        step.members = {str(one.key): one for one in claims}
        parts.held.add(step)
        self._dispatcher.members_began(claims, started)
        outcome = Outcome.CANCELLED
        journey = _Journey(parts, self._dispatcher, step, choice)
        step.drop = partial(self._drop, journey, set())
        try:
            outcome = await self._guarded(journey)
            if outcome is not Outcome.UNREACHABLE:
                self._dispatcher.clock_refusals.taken(claims)
            await self._arrived(journey, outcome)
        finally:
            parts.held.remove(step)
            seconds = parts.clock.monotonic() - started
            parts.placement.report(choice, outcome, seconds, given_back=step.given_back)
            journey.tell()
        return journey.ended if outcome is Outcome.COMPLETED else 0, journey.seconds

    async def resume(self, travel: Travel) -> None:
        """Go on with a request that somebody before us has sent: its worker still works on it.

        Where the worker knows nothing of it any more, what has not ended is queued again.
        """
        endpoint = msgspec.json.decode(travel.endpoint, type=Endpoint)
        first = travel.claims[0]
        reason = {"reason": "went on with the request that was under way"}
        choice = Choice(endpoint=endpoint, capability=first.capability, explanation=reason)
        fence = Fence(1, travel.epoch)
        step = self._step(replace(first, key=_parsed(travel.key), fence=fence), choice)
        held = {str(one.key): one for one in travel.claims}
        all_ = [_member(first, *one) for one in travel.members]
        step.members = {str(one.key): held.get(str(one.key), one) for one in all_}
        self._parts.held.add(step)
        journey = _Journey(self._parts, self._dispatcher, step, choice)
        journey.open = held
        journey.holds_slot = False
        step.drop = partial(self._drop, journey, set())
        try:
            known = await self._found(journey)
            await self._arrived(journey, await self._guarded(journey) if known else None)
        finally:
            self._parts.held.remove(step)
            journey.tell()
            self._parts.work.give()
        _log.info("request_resumed", step=travel.key, open=len(held), ended=journey.ended)

    async def _found(self, journey: "_Journey") -> bool:
        """Whether the worker still knows the request; else what is open is queued."""
        try:
            await journey.find()
        except HivemeshError as error:
            await self._release(journey.unanswered(), error.detail, 0.0)
            return False
        return True

    def _step(self, claim: Claim, choice: Choice) -> HeldStep:
        parts, nothing = self._parts, frozenset[str]()
        clearance = parts.tickets.clearance(choice.capability)
        return HeldStep(
            claim, choice.endpoint, nothing, nothing, parts.clock.monotonic(), clearance
        )

    async def _arrived(self, journey: "_Journey", outcome: Outcome | None) -> None:
        """Nobody has to go on with the request: its worker may forget it, if it knows it (None: no).

        Where another reader goes on with it, that one alone tells the worker so.
        """
        if journey.moved:
            return
        parts, step = self._parts, journey.step
        key, epoch = str(step.claim.key), step.claim.fence.epoch
        if not journey.arrived:
            journey.arrived = await parts.surely(lambda tx: parts.ledger.arrive(tx, key, epoch))
        if not journey.arrived or outcome is None:
            return
        if outcome is Outcome.COMPLETED:
            self._dispatcher.acknowledge(step)
        else:
            self._dispatcher.forget(step)

    def _drop(self, journey: "_Journey", dropped: set[str], key: str) -> None:
        """Tell the worker, once, that one was cancelled; the others go on."""
        claim = journey.open.get(key)
        if claim is not None and key not in dropped:
            dropped.add(key)
            self._dispatcher.forget(_alone(journey.step, claim))

    async def _guarded(self, journey: "_Journey") -> Outcome:
        try:
            outcome = await self._until_verdict(journey)
            if journey.open:
                ended = problem("step-failed", "the request ended without an answer to it")
                outcome = await self._first(journey, ended)
        except StepRefusedError as error:
            return await self._refused(journey, error.document)
        except StepFailedError as error:
            if slug_of(error.document) == "cancelled":  # one of them was, and nobody is to blame
                await self._release(journey.unanswered(), "", 0.0)
                outcome = Outcome.CANCELLED
            else:
                outcome = await self._first(journey, error.document)
        except StaleReplicaError as error:  # others go on with all that was held here
            self._parts.counters.commits_fenced += 1
            _log.warning("commit_refused", step=str(journey.step.claim.key), detail=error.detail)
            outcome, journey.moved = Outcome.CANCELLED, True
        except HivemeshError as error:
            outcome = await self._broken(journey, error)
        except Exception as error:  # noqa: BLE001 - a row must never be left held
            _log.exception("dispatch_broken", step=str(journey.step.claim.key))
            outcome = await self._first(journey, problem("internal", type(error).__name__))
        return outcome

    async def _until_verdict(self, journey: "_Journey") -> Outcome:
        """Run the exchange until it ends or a verdict falls; the worker keeps the deadlines.

        Only one that has ended is completed: its answers are recorded, and may be acknowledged.
        """
        exchange = asyncio.create_task(journey.run())
        ends: set[asyncio.Future[Any]] = {exchange, journey.step.verdict}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            await until_stored(journey.step, exchange)
        finally:
            if not exchange.done():
                exchange.cancel()
                await asyncio.wait({exchange})
        if not exchange.cancelled():
            exchange.result()
            return Outcome.COMPLETED
        verdict, document = journey.step.verdict.result()
        journey.moved = verdict is Verdict.MOVED
        if verdict is not Verdict.CANCELLED and document is not None:
            raise StepFailedError(document)
        await self._release(journey.unanswered(), "", 0.0)  # not those that were cancelled
        journey.open.clear()
        return Outcome.CANCELLED

    async def _refused(self, journey: "_Journey", document: Problem) -> Outcome:
        """Nothing has begun: the worker does not take the request, or not what all have in common."""
        slug = slug_of(document)
        if slug in _BUSY:
            delay_s = document.retry_after_s or BUSY_S
            await self._release(journey.unanswered(), document.title, delay_s)
            return Outcome.OVERLOADED
        tells_time = self._parts.placement.tells_time(journey.step.endpoint.instance)
        if tells_time and is_of_clocks(document):
            left, refusals = journey.unanswered(), self._dispatcher.clock_refusals
            delay_s = max((refusals.again_s(one.key) for one in left), default=0.0)
            await self._release(left, refused_ticket(journey.step, document), delay_s)
            return Outcome.UNREACHABLE
        if slug in _LOST:
            return await self._first(journey, document)
        for claim in journey.unanswered():
            await journey.failed(claim, document)
        return Outcome.FAILED

    async def _broken(self, journey: "_Journey", error: HivemeshError) -> Outcome:
        match error:
            case UnreachableError(sent=False) if not journey.begun:  # so nothing has failed
                await self._release(journey.unanswered(), error.detail, BUSY_S)
                return Outcome.UNREACHABLE
            case _:
                return await self._first(journey, error.problem())

    async def _first(self, journey: "_Journey", document: Problem) -> Outcome:
        """The first without an answer is the one that ran; the others go back.

        Where the worker is gone it may be another one, whose answers were lost on the way: so that
        none of them takes a second worker with it unseen, each goes alone from here.
        """
        left = journey.unanswered()
        if left:
            await self._release(left[1:], "", 0.0, apart=is_lost_worker(document))
            await journey.failed(left[0], document)
        match slug_of(document):
            case "worker-unreachable":
                return Outcome.UNREACHABLE
            case "worker-lost":
                return Outcome.LOST
            case _:
                return Outcome.FAILED

    async def _release(
        self, claims: Sequence[Claim], reason: str, delay_s: float, *, apart: bool = False
    ) -> None:
        parts = self._parts
        until = parts.after(delay_s) if delay_s else 0
        held = [(one.key, one.fence) for one in claims]
        if held:
            await parts.surely(
                lambda tx: parts.ledger.release_jobs(tx, held, reason, until, apart=apart)
            )


@dataclass(slots=True)
class _Said:
    """What a page brings: answers, members that failed, and how the request has ended."""

    answers: list[tuple[Claim, bytes]] = field(default_factory=list)
    failures: list[tuple[Claim, Problem]] = field(default_factory=list)
    last: ResultEvent | Problem | None = None

    def take(self, claim: Claim, body: bytes, failure: Problem | None) -> None:
        """Take how a member has ended."""
        body = body or b"null"
        if failure is not None:
            self.failures.append((claim, as_told(failure)))
        elif len(body) <= INLINE_ANSWER and (wrong := wrong_answer(body)) is not None:
            self.failures.append((claim, wrong))
        else:
            self.answers.append((claim, body))


class _Journey:
    """The exchange of one request with one worker, page by page, into the ledger."""

    def __init__(
        self, parts: Parts, dispatcher: Dispatcher, step: HeldStep, choice: Choice
    ) -> None:
        self._parts = parts
        self._dispatcher = dispatcher
        self.step = step
        self.open = dict(step.members)  # without an answer so far
        self.ended = 0  # well
        self.untold: list[str] = []  # jobs whose end is told when nothing is held for them
        self.begun = False  # the worker has answered
        self.moved = False  # to another reader: the worker goes on for that one
        self.arrived = False  # nobody has to go on with it
        self.holds_slot = True
        self._choice = choice
        self._execution = ""  # that was found, where somebody before us has begun it
        self._last = 0
        self._began = parts.now()
        self._sent = parts.clock.monotonic()
        self.seconds = 0.0  # that the worker took, until it last said something
        endpoint = choice.endpoint
        self._placed = Placed(
            instance=endpoint.instance,
            identity=endpoint.identity,
            worker=f"{endpoint.worker} {endpoint.version}",
            explanation=_encode(dict(choice.explanation)).decode(),
            endpoint="",
        )
        touched = highest((step.claim.data_class, step.claim.output_class))
        self._withheld = touched if touched.exceeds(parts.settings.log_class_max) else None

    def unanswered(self) -> list[Claim]:
        """The members without an answer, in the order in which they run."""
        return list(self.open.values())

    async def run(self) -> None:
        """Ask until every member is answered or the request has ended.

        Raises:
            StepFailedError: the request ended with a problem.
            StepRefusedError: the worker does not take it.
            UnreachableError: the worker does not answer.
        """
        page = await (self._next(self._execution) if self._execution else self._put())
        while not await self._taken(page.body):
            crash.reach("ack.before")
            page = await self._next(page.execution)
            crash.reach("ack.after")

    async def find(self) -> None:
        """Find the execution that somebody before us has begun.

        Raises:
            StepRefusedError: the worker does not know it.
            UnreachableError: the worker does not answer.
        """
        parts, step = self._parts, self.step
        status = await parts.transport.step_status(step.endpoint, str(step.claim.key))
        if not status.buffered_bytes:  # all that it has said was recorded
            self._last = status.last_event
        self._execution, self.begun = status.execution, True

    async def _put(self) -> Page:
        parts, step, key = self._parts, self.step, str(self.step.claim.key)
        travel = Travel(
            key=key,
            epoch=step.claim.fence.epoch,
            endpoint=_encode(step.endpoint).decode(),
            members=tuple((one.key.run, one.fence.attempt) for one in step.members.values()),
        )
        await parts.surely(lambda tx: parts.ledger.depart(tx, travel))
        body = _request(step)
        self._sent = parts.clock.monotonic()
        crash.reach("dispatch.before")
        page = await reconnecting(
            lambda: parts.transport.put_step(
                step.endpoint, key, body, ticket=parts.tickets.of(step), wait_s=MAX_WAIT_S
            )
        )
        crash.reach("dispatch.after")
        self.begun = True
        return page

    async def _next(self, execution: str) -> Page:
        parts, step = self._parts, self.step
        return await reconnecting(
            lambda: parts.transport.get_events(
                step.endpoint,
                str(step.claim.key),
                Place(execution, step.claim.fence.epoch, self._last),
                ticket=parts.tickets.of(step),
                wait_s=MAX_WAIT_S,
            )
        )

    async def failed(self, claim: Claim, document: Problem) -> None:
        """One has ended badly: what follows is decided as for one that travelled alone."""
        self.open.pop(str(claim.key), None)
        parts, now, placed = self._parts, self._parts.now(), self._placed
        await parts.surely(lambda tx: parts.ledger.placed(tx, claim.key, claim.fence, placed, now))
        await self._dispatcher.member_failed(_alone(self.step, claim), document)

    async def _taken(self, body: bytes) -> bool:
        """Take a page whatever becomes of its worker: what has ended is not done twice."""
        with self.step.keeping():
            return await self._take(body)

    async def _take(self, body: bytes) -> bool:
        """Record what a page brings, and say whether the request has ended."""
        self.seconds = self._parts.clock.monotonic() - self._sent
        said = self._read(body)
        ended = isinstance(said.last, ResultEvent)
        if ended:
            self._parts.end_rights(self.step)
        if ended and self.holds_slot:
            self._parts.held.give_back(self.step, self._parts.placement, self._choice)
        ends = [
            self._end(claim, data) if len(data) <= INLINE_ANSWER else await self._long(claim, data)
            for claim, data in said.answers
        ]
        await self._finish(ends, whole=ended and len(ends) == len(self.open))
        await asyncio.gather(*(self.failed(*one) for one in said.failures))
        if isinstance(said.last, Problem):
            raise StepFailedError(said.last)
        return ended

    def _read(self, body: bytes) -> "_Said":
        said = _Said()
        try:
            for event, data in decode_page(body):
                if event.no <= self._last:
                    continue
                self._last = event.no
                match event:
                    case MemberEvent(key=key, problem=failure) if claim := self.open.get(key):
                        said.take(claim, data, failure)
                    case LogEvent():
                        self._say(event)
                    case ResultEvent():
                        said.last = event
                    case ProblemEvent():
                        said.last = as_told(event.problem)
        except FramingError as error:
            detail = f"a page of {self.step.claim.key} is damaged: {error}"
            said.last = problem("step-failed", detail, retryable=True)
        return said

    def _end(self, claim: Claim, body: bytes) -> JobEnd:
        """As `Output` is encoded; there are thousands of them in a second."""
        return JobEnd(claim.key, claim.fence, f'{{"value":{body.decode()}}}')

    async def _long(self, claim: Claim, body: bytes) -> JobEnd:
        """A longer answer becomes an artifact."""
        stored = await self._stored(body)
        output = Output(artifact=BatchRef(stored.sha256, 0, stored.size))
        return JobEnd(claim.key, claim.fence, _encode(output).decode())

    async def _stored(self, body: bytes) -> Stored:
        while True:
            try:
                return await self._parts.artifacts.put(body, "")
            except StorageFullError as error:  # those before it in the page are not lost for that
                _log.error("storage_full", step=str(self.step.claim.key), detail=error.detail)
                await asyncio.sleep(FULL_S)

    async def _finish(self, ends: list[JobEnd], *, whole: bool) -> None:
        """End members well; `whole` where these are all that were still without an answer."""
        if not ends:
            return
        parts, placed, began, now = self._parts, self._placed, self._began, self._parts.now()
        key, epoch = str(self.step.claim.key), self.step.claim.fence.epoch

        def finish(tx: Transaction) -> bool:
            parts.ledger.finish_jobs(tx, ends, placed, began, now)
            return whole and parts.ledger.arrive(tx, key, epoch)

        crash.reach("finish.before")
        while True:
            try:
                self.arrived = await parts.database.write(finish)
            except StorageFullError as error:
                _log.error("storage_full", step=str(self.step.claim.key), detail=error.detail)
                await asyncio.sleep(FULL_S)
            else:
                break
        crash.reach("finish.after")
        parts.counters.rows_finished += len(ends)
        self.ended += len(ends)
        self.untold += [end.key.run for end in ends]
        if whole:
            self.open.clear()
            return
        for end in ends:
            self.open.pop(str(end.key), None)
        self.tell()

    def tell(self) -> None:
        """Tell who waits for jobs that they have ended."""
        for run in self.untold:
            self._parts.runs.give_end(run)
        if self.untold and any(one.limited for one in self.step.members.values()):
            self._parts.work.give()
        self.untold.clear()

    def _say(self, event: LogEvent) -> None:
        text = event.message if self._withheld is None else f"({self._withheld}: withheld)"
        _log.info("worker_said", step=str(self.step.claim.key), level=event.level, text=text)


def _alone(whole: HeldStep, claim: Claim) -> HeldStep:
    """One of those that travel together, as if it travelled alone."""
    nothing: frozenset[str] = frozenset()
    return HeldStep(claim, whole.endpoint, nothing, nothing, whole.started, whole.clearance)


def _group_claim(claims: Sequence[Claim]) -> Claim:
    """The request as a whole: like its members, under a key that no row has."""
    return replace(claims[0], key=WorkKey(GROUP, uuid.uuid4().hex, 0), fence=Fence(1, 1))


def _member(like: Claim, run: str, attempt: int) -> Claim:
    """One that has ended: the worker was told of it, and of its request all are known."""
    return replace(like, key=WorkKey(run, JOB_NODE, 0), fence=Fence(attempt, 0))


def _parsed(key: str) -> WorkKey:
    group, number, seq = key.split(".")
    return WorkKey(group, number, int(seq))


def _request(step: HeldStep) -> list[bytes]:
    """All but their inputs is what the members have in common."""
    common = _decode_spec(step.claim.spec or "{}")
    body = b"\n".join(
        [bytes(_decode_input(one.spec or "{}").input) for one in step.members.values()]
    )
    request = StepRequest(
        capability=step.claim.capability,
        kind="call",
        attempt=1,
        epoch=1,
        inputs=[InputPart(bytes=len(body), count=len(step.members))],
        parameters=common.options,
        deadline_ms=common.deadline_ms,
        idle_timeout_ms=common.idle_timeout_ms or DEFAULT_IDLE_MS,
        members=members_of(step),
    )
    return encode_request(request, [body])
