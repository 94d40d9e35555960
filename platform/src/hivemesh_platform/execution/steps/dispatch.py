"""Brings one claimed row to its end or to its next attempt.

Nothing a worker says counts unless its attempt and epoch are the row's. Retries are decided here
and nowhere else.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import structlog
from hivemesh_sdk.contracts.problems import Problem, problem, slug_of
from hivemesh_sdk.errors import FatalError, HivemeshError

from hivemesh_platform.execution.held import HeldStep, Verdict
from hivemesh_platform.execution.ledger.port import (
    Claim,
    Effects,
    Failure,
    StaleAttemptError,
    StaleReaderError,
)
from hivemesh_platform.execution.model import (
    Again,
    AttemptOutcome,
    Split,
    after_failure,
    is_crash,
    is_lost_worker,
    is_no_fault,
    is_of_clocks,
)
from hivemesh_platform.execution.plans.given import Given
from hivemesh_platform.execution.ports import Choice, Outcome, UnreachableError
from hivemesh_platform.execution.steps import halves
from hivemesh_platform.execution.steps.budget import RetryBudget
from hivemesh_platform.execution.steps.clock_refusals import ClockRefusals
from hivemesh_platform.execution.steps.exchange import Exchange, StepAsideError
from hivemesh_platform.execution.steps.pages import StepFailedError
from hivemesh_platform.execution.steps.parts import Parts
from hivemesh_platform.execution.steps.requests import given_to, granted, not_written, visible
from hivemesh_platform.execution.steps.survivors import Survivors
from hivemesh_platform.replicas.model import StaleReplicaError
from hivemesh_platform.storage.errors import PASSING, StorageFullError
from hivemesh_platform.storage.transaction import Transaction

T = TypeVar("T")

ACKNOWLEDGE_S = 0.05  # for so long what is large waits for a request that acknowledges it
FORGET_EVERY_S = 5.0
FORGET_TRIES = 24  # two minutes: a worker that is alone for longer ends by itself
PAUSE_S = 5.0  # before a row is tried again that found the disk full
BUSY_S = 0.2  # before a row is tried again whose worker was full and did not say for how long
SEALED_S = 1.0  # before a row is tried again whose secrets were sealed
_OVERLOADED = frozenset({"overloaded", "overloaded-server", "draining"})
ASIDE_S = 0.25  # before a source reads on that has made room for the steps behind it
UNSENT_S = 0.25  # before a row is tried again that could not even be sent

_log = structlog.get_logger("hivemesh.execution")


def refused_ticket(step: HeldStep, document: Problem) -> str:
    """Why rows wait whose worker reads another time than we do."""
    return f"{step.endpoint.instance} refused its ticket: {document.detail or document.title}"


class PayloadDamagedError(FatalError):
    """The stored request of a job is not what was accepted; it is never sent."""

    slug = "payload-damaged"


class Dispatcher:
    """Runs claimed rows; one call of `run` per row."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        retry = parts.settings.retry
        self._budget = RetryBudget(retry.budget_ratio, retry.budget_per_s)
        self._forgetting: set[asyncio.Task[None]] = set()
        self.survivors = Survivors(parts)
        self.clock_refusals = ClockRefusals()

    async def run(
        self,
        claim: Claim,
        choice: Choice,
        *,
        resume: bool = False,
        answered: Callable[[], None] | None = None,
        harmless: Callable[[], None] | None = None,
    ) -> Outcome:
        """Bring a claimed row to its end, or to its next attempt; returns how this one went.

        `answered` is told when its worker has answered well, before its slot goes to another row;
        `harmless` when a source goes on, or waits for the steps behind it.
        """
        started = self._parts.clock.monotonic()
        clearance = self._parts.tickets.clearance(claim.capability)
        step = HeldStep(claim, choice.endpoint, frozenset(), frozenset(), started, clearance)
        step.answered = answered
        step.harmless = harmless
        self._parts.held.add(step)
        if not claim.retries:
            self._budget.began(claim.capability, started)
        outcome = Outcome.CANCELLED
        try:
            outcome = await self._guarded(step, choice, resume=resume)
            if outcome is not Outcome.UNREACHABLE:
                self.clock_refusals.taken([claim])
        except StaleReplicaError as error:  # others go on with all that was held here
            self._parts.counters.commits_fenced += 1
            _log.warning("commit_refused", step=str(claim.key), detail=error.detail)
        finally:
            self._parts.end_rights(step)
            self._parts.held.remove(step)
            seconds = self._parts.clock.monotonic() - step.started
            self._parts.placement.report(choice, outcome, seconds, given_back=step.given_back)
            self._tell(step)
        return outcome

    async def readable(self, claim: Claim) -> tuple[frozenset[str], frozenset[str]]:
        """Name the artifacts that the step may read, and the folders among them."""
        if claim.damaged:
            raise PayloadDamagedError(str(claim.key))
        named, trees = visible(claim)
        if claim.spec is not None:  # what a job names was checked when it was accepted
            return named, trees
        inputs = frozenset(one.sha256 for one in claim.inputs)
        if named <= inputs:
            return named, frozenset()
        return await self._granted(claim, inputs, named - inputs, trees)

    async def _granted(
        self, claim: Claim, inputs: frozenset[str], named: frozenset[str], trees: frozenset[str]
    ) -> tuple[frozenset[str], frozenset[str]]:
        """Open only folders that were checked with the run; of others, what the run had before."""

        def read(tx: Transaction) -> tuple[Given, frozenset[str]]:
            given = given_to(tx, claim)
            return given, granted(tx, claim, named, given)

        given, found = await self._parts.database.read(read)
        opened, made = trees & found & given.trees, (trees & found) - given.trees
        if not made:
            return inputs | found, opened
        had = set(given.digests)
        for tree in given.trees:
            had |= await self._parts.trees.entries(tree)
        again: set[str] = set()
        for tree in made:
            again |= had & await self._parts.trees.entries(tree)
        before = Given(frozenset(again), frozenset())
        more = await self._parts.database.read(
            lambda tx: granted(tx, claim, before.digests, before)
        )
        return inputs | found | more, opened

    async def lendable(self, claim: Claim) -> frozenset[str]:
        """Name the secrets that the step's options name, and data did not bring."""
        named = self._parts.tickets.secrets_of(claim)
        if claim.spec is not None or not named:
            return named
        return named - await self._parts.database.read(lambda tx: not_written(tx, claim, named))

    def members_began(self, claims: Sequence[Claim], now: float) -> None:
        """Small jobs that travel together have begun: none of them has been tried before."""
        self._budget.began(claims[0].capability, now, len(claims))

    async def member_failed(self, step: HeldStep, document: Problem) -> None:
        """Decide what follows for a small job that travelled with others and has ended badly."""
        await self._failed(step, document)
        self._tell(step)

    def _tell(self, step: HeldStep) -> None:
        """Tell what its end has changed: by then a step holds neither secrets nor a slot."""
        for effects in step.untold:
            self._parts.wake(step.claim, effects)

    def acknowledge(self, step: HeldStep) -> None:
        """Tell its worker, with what it is asked next, that an answer was recorded."""
        claim = step.claim
        self._parts.transport.acknowledge(step.endpoint, str(claim.key), claim.fence.attempt)

    def forget(self, step: HeldStep) -> None:
        """Tell a worker that nobody will ask for a step again."""
        self._forget(step)

    async def close(self) -> None:
        """Wait a moment for the last acknowledgements."""
        if self._forgetting:
            _, late = await asyncio.wait(self._forgetting, timeout=0.5)
            for task in late:
                task.cancel()

    async def _guarded(self, step: HeldStep, choice: Choice, *, resume: bool) -> Outcome:
        try:
            step.digests, step.trees = await self.readable(step.claim)
            step.secrets = await self.lendable(step.claim)
            step.resumed = resume
            await self._until_verdict(step, choice, resume=resume)
        except StaleReplicaError:
            raise
        except StaleAttemptError as error:
            self._parts.counters.stale_results += 1
            if not isinstance(error, StaleReaderError):
                self._forget(step)
            return Outcome.CANCELLED
        except StorageFullError as error:
            return await self._paused(step, error)
        except Exception as error:  # noqa: BLE001 - a row must never be left held
            return await self._not_done(step, error)
        self.acknowledge(step)
        if step.claim.kind != "call":  # megabytes, and the next request may be far
            self._later(self._delete_unacknowledged(step))
        return Outcome.COMPLETED

    async def _not_done(self, step: HeldStep, error: Exception) -> Outcome:
        match error:
            case StepFailedError():
                return await self._failed(step, error.document)
            case StepAsideError():
                self._forget(step)
                await self._release(step, str(error), ASIDE_S)
                return Outcome.CANCELLED
            case UnreachableError(sent=False) if not step.begun:  # so nothing has failed
                await self._release(step, error.detail, UNSENT_S)
                return Outcome.UNREACHABLE
            case HivemeshError():
                return await self._failed(step, error.problem())
            case _:
                _log.error("dispatch_broken", step=str(step.claim.key), exc_info=error)
                return await self._failed(step, problem("internal", type(error).__name__))

    async def _until_verdict(self, step: HeldStep, choice: Choice, *, resume: bool) -> None:
        """Run the exchange until it ends, a verdict falls or the deadline passes."""
        exchange = asyncio.create_task(Exchange(self._parts, step, choice).run(resume=resume))
        deadline_ms = step.claim.deadline_ms
        ends: set[asyncio.Future[Any]] = {exchange, step.verdict}
        try:
            await asyncio.wait(
                ends,
                timeout=deadline_ms / 1000 if deadline_ms else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            await until_stored(step, exchange)
        finally:
            if not exchange.done():
                exchange.cancel()
                await asyncio.wait({exchange})
            self._parts.end_rights(step)
        if exchange.cancelled():
            raise self._stopped(step)
        exchange.result()

    def _stopped(self, step: HeldStep) -> Exception:
        if not step.verdict.done():
            self._forget(step)
            detail = f"the step took longer than {step.claim.deadline_ms} ms"
            return StepFailedError(problem("deadline-exceeded", detail))
        verdict, document = step.verdict.result()
        if verdict is Verdict.MOVED:
            return StaleReaderError(f"{step.claim.key} has gone to another replica")
        self._forget(step, tries=FORGET_TRIES if verdict is Verdict.LOST else 1)
        if verdict is Verdict.CANCELLED or document is None:
            return StaleAttemptError(f"{step.claim.key} was cancelled")
        return StepFailedError(document)

    async def _failed(self, step: HeldStep, document: Problem) -> Outcome:
        """Write what follows a failure; where it cannot be written as it is, the row ends."""
        try:
            return await self._follow(step, document)
        except (StaleReplicaError, *PASSING):
            raise
        except StaleAttemptError:
            self._parts.counters.stale_results += 1
            return _outcome(document)
        except Exception as error:  # noqa: BLE001 - it would be executed for ever
            _log.error("failure_not_written", step=str(step.claim.key), exc_info=error)
        unwritten = problem("internal", "how the step has failed cannot be written")
        try:
            await self._give_up(step, unwritten)
        except StaleAttemptError:
            self._parts.counters.stale_results += 1
        return _outcome(document)

    async def _follow(self, step: HeldStep, document: Problem) -> Outcome:
        """Decide between a further attempt and the end of the row."""
        slug = slug_of(document)
        if not step.begun and (outcome := await self._put_back(step, document)) is not None:
            return outcome
        sealed = (
            self._parts.secrets.holds_back(step.claim.capability)
            if slug == "secrets-sealed"
            else ""
        )
        if sealed:  # the platform knows it too: the row waits, and its attempt does not count
            await self._release(step, sealed, SEALED_S)
            return Outcome.CANCELLED
        if slug == "stale-reader":
            self._parts.counters.stale_results += 1
            return Outcome.CANCELLED
        claim = step.claim
        if is_lost_worker(document) and not step.advanced and self._is_blameless(step, slug):
            await self._release(step, document.detail, UNSENT_S)
            return _outcome(document)
        decision = after_failure(
            document,
            claim.policy,
            retries=0 if step.advanced else claim.retries,
            crashes=0 if step.advanced else await self._crashes(claim, document),
            jitter=random.random(),  # noqa: S311 - spreads retries, guards nothing
            records=claim.divisible,
            halved=claim.halved,
        )
        match decision:
            case Again():
                await self._retry(step, document, decision)
            case Split():
                await self._split(step, document, decision)
            case _:
                await self._give_up(step, document)
        if is_lost_worker(document):
            self.survivors.lost(step)
        return _outcome(document)

    async def _put_back(self, step: HeldStep, document: Problem) -> Outcome | None:
        """Put a row back, at no cost, that its worker was not able to take."""
        if slug_of(document) in _OVERLOADED:
            await self._release(step, document.title, document.retry_after_s or BUSY_S)
            return Outcome.OVERLOADED
        tells_time = self._parts.placement.tells_time(step.endpoint.instance)
        if tells_time and is_of_clocks(document):  # its next heartbeat says it too
            delay_s = self.clock_refusals.again_s(step.claim.key)
            await self._release(step, refused_ticket(step, document), delay_s)
            return Outcome.UNREACHABLE
        return None

    def _is_blameless(self, step: HeldStep, slug: str) -> bool:
        """Whether a lost step cannot have killed its worker.

        It may have died of our absence, or of the steps for which a source waits; or it lives, and
        beats: only the way to it is broken.
        """
        beats = slug == "worker-lost" and self._parts.placement.beats(step.endpoint.instance)
        return step.resumed or step.waits or beats

    async def _crashes(self, claim: Claim, document: Problem) -> int:
        """How many there were before: some may have been taken back since the row was claimed."""
        if not claim.losses or not is_crash(document):
            return claim.losses
        key = claim.key
        found = await self._parts.database.read(
            lambda tx: tx.one(
                "SELECT crashes FROM work WHERE run = ? AND node = ? AND seq = ?",
                (key.run, key.node, key.seq),
            )
        )
        return 0 if found is None else int(found["crashes"])

    async def _retry(self, step: HeldStep, document: Problem, again: Again) -> None:
        claim, ledger, now = step.claim, self._parts.ledger, self._parts.now()
        outcome = _ended_as(document)
        delay_s = again.delay_s
        if outcome is AttemptOutcome.FAILED and not is_crash(document):
            monotonic = self._parts.clock.monotonic()
            delay_s = max(delay_s, self._budget.take(claim.capability, monotonic))
        failure = Failure(document, outcome, self._parts.after(delay_s))
        await self._surely(lambda tx: ledger.retry(tx, claim.key, claim.fence, failure, now))
        lost = outcome is AttemptOutcome.LOST
        self._parts.counters.attempts_lost += int(lost)
        self._parts.counters.attempts_failed += int(not lost)
        if not lost:
            self.acknowledge(step)
        _log.warning(
            "attempt_failed",
            step=str(claim.key),
            attempt=claim.fence.attempt,
            instance=step.endpoint.instance,
            problem=slug_of(document),
            detail=document.detail,
            again_in_s=round(delay_s, 2),
        )
        step.untold.append(Effects())

    async def _split(self, step: HeldStep, document: Problem, split: Split) -> None:
        claim, ledger, now = step.claim, self._parts.ledger, self._parts.now()
        failure = Failure(document, _ended_as(document), self._parts.after(split.delay_s))
        await self._surely(lambda tx: ledger.split(tx, claim.key, claim.fence, failure, now))
        self._parts.counters.attempts_lost += 1
        _log.warning(
            "batch_halved",
            step=str(claim.key),
            attempt=claim.fence.attempt,
            records=claim.divisible,
            problem=slug_of(document),
            detail=document.detail,
        )
        step.untold.append(Effects())

    async def _give_up(self, step: HeldStep, document: Problem) -> None:
        if step.claim.halved:
            await self._give_part_up(step, document)
            return
        claim, ledger, now = step.claim, self._parts.ledger, self._parts.now()
        effects = await self._surely(
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
        step.untold.append(effects)
        self._forget(step)

    async def _give_part_up(self, step: HeldStep, document: Problem) -> None:
        """Only some records are given up: the others of the batch go on."""
        claim, ledger, now = step.claim, self._parts.ledger, self._parts.now()
        effects, last = await self._surely(
            lambda tx: ledger.drop_part(tx, claim.key, claim.fence, document, now)
        )
        _log.error(
            "records_given_up",
            step=str(claim.key),
            lines=claim.lines,
            problem=slug_of(document),
            detail=document.detail,
        )
        step.untold.append(effects)
        if last:
            end = await self._parts.with_space(lambda: halves.finish(self._parts, claim))
            step.untold.append(end)
        self._forget(step)

    async def _paused(self, step: HeldStep, error: StorageFullError) -> Outcome:
        """The disk is full before the worker was asked: the row waits for its turn again."""
        _log.error("storage_full", step=str(step.claim.key), detail=error.detail)
        self._parts.counters.pauses += 1
        self._forget(step)
        await self._release(step, error.detail, PAUSE_S)
        return Outcome.CANCELLED

    async def _release(self, step: HeldStep, reason: str, delay_s: float) -> None:
        claim, ledger = step.claim, self._parts.ledger
        until = self._parts.after(delay_s)
        advanced_at = self._parts.now() if step.advanced else None
        await self._surely(
            lambda tx: ledger.release(
                tx, claim.key, claim.fence, reason, until, advanced_at=advanced_at
            )
        )

    async def _surely(self, work: Callable[[Transaction], T]) -> T:
        return await self._parts.surely(work)

    def _forget(self, step: HeldStep, *, tries: int = 1) -> None:
        """Acknowledge an ended execution, or cancel a running one; nobody waits for the answer.

        A worker that was lost may come back: its slot would be taken by what nobody reads.
        """
        self._later(self._delete(step, tries))

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._forgetting.add(task)
        task.add_done_callback(self._forgetting.discard)

    async def _delete_unacknowledged(self, step: HeldStep) -> None:
        await asyncio.sleep(ACKNOWLEDGE_S)
        claim = step.claim
        if self._parts.transport.take_back(step.endpoint, str(claim.key), claim.fence.attempt):
            await self._delete(step, 1)

    async def _delete(self, step: HeldStep, tries: int) -> None:
        claim = step.claim
        for left in reversed(range(tries)):
            try:
                await self._parts.transport.delete_step(
                    step.endpoint, str(claim.key), claim.fence.attempt
                )
            except UnreachableError as error:  # it expires there by itself
                _log.debug("step_not_forgotten", step=str(claim.key), detail=error.detail)
            except HivemeshError:  # it is forgotten already, or a later attempt runs there
                return
            else:
                return
            if left:
                await asyncio.sleep(FORGET_EVERY_S)


async def until_stored(step: HeldStep, exchange: "asyncio.Future[None]") -> None:
    """What a worker has answered is kept, however long there is no space for it."""
    while not exchange.done() and step.storing is not None and not step.is_unwanted:
        ends: set[asyncio.Future[Any]] = {exchange, step.storing}
        if not step.verdict.done():
            ends.add(step.verdict)
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)


def _ended_as(document: Problem) -> AttemptOutcome:
    if is_lost_worker(document):
        return AttemptOutcome.LOST
    return AttemptOutcome.INTERRUPTED if is_no_fault(document) else AttemptOutcome.FAILED


def _outcome(document: Problem) -> Outcome:
    match slug_of(document):
        case "worker-unreachable":
            return Outcome.UNREACHABLE
        case "worker-lost":
            return Outcome.LOST
        case _:
            return Outcome.FAILED
