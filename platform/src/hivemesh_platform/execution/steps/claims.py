"""Takes rows from the ledger while there are free slots, and has each of them dispatched.

Claims only for capabilities with free slots, as many as there are; the worker's 429 is the last
word. Wakes on a signal (new rows, a slot set free), on a change of the directory, and once a
second, because a row may have been delayed or queued by another process.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import msgspec
import structlog
from hivemesh_sdk.contracts.instances import Endpoint

from hivemesh_platform import crash
from hivemesh_platform.execution.ledger import clock_sql, limit_sql, queue_sql, submit_sql
from hivemesh_platform.execution.ledger.group_rules import GroupSizes, spread, travels
from hivemesh_platform.execution.ledger.port import Claim, Unclaimed, milliseconds
from hivemesh_platform.execution.ports import Choice, NoCandidate, Outcome
from hivemesh_platform.execution.steps.dispatch import Dispatcher
from hivemesh_platform.execution.steps.groups import GroupDispatcher
from hivemesh_platform.execution.steps.parts import Parts
from hivemesh_platform.execution.steps.requirement import requirement_of
from hivemesh_platform.execution.steps.turns import Turns
from hivemesh_platform.execution.steps.unplaced import SOON_MS, Unplaced
from hivemesh_platform.replicas.model import StaleReplicaError
from hivemesh_platform.storage.errors import StorageFullError
from hivemesh_platform.storage.transaction import Transaction

POLL_S = 1.0
TIDY_S = 300.0  # between two looks for what the queue need not remember
MORE = 4  # rows that are tried early for one that was placed: of many more each time
MAX_STEPS = 256  # at once in this process: bounds memory whatever the directory says
MAX_SOURCES = 192  # of them: the steps that they wait for need places too

# Of the steps that ran when a worker died one is the cause: apart from each other they tell which.
_APART = "its last worker died; it waits to run apart from others whose worker died"
_ENOUGH = "as many sources run here as may at a time"

_log = structlog.get_logger("hivemesh.execution")


class Claimer:
    """The loop that turns queued rows into running steps."""

    def __init__(self, parts: Parts, dispatcher: Dispatcher) -> None:
        self._parts = parts
        self._dispatcher = dispatcher
        self._groups = GroupDispatcher(parts, dispatcher)
        self._sizes = GroupSizes()
        self._turns = Turns()
        self._unplaced = Unplaced()
        self._ahead = parts.held.ahead
        self._back: list[Unclaimed] = []  # what the round puts back
        self._early: Counter[str] = Counter()  # rows that need not be put off, by capability
        self._steps: set[asyncio.Task[None]] = set()
        self._sources: set[asyncio.Task[None]] = set()
        self._reading: set[str] = set()  # capabilities that are known to be those of sources
        self._suspects: dict[asyncio.Task[None] | None, str] = {}  # and the instance that has it
        self._reasons: dict[str, str] = {}
        self._found = False  # whether the last round has found rows: so there may be more
        self._explained_at = self._tidied_at = 0.0

    async def run(self) -> None:
        """Claim until cancelled."""
        while True:
            await self._round()
            given = self._parts.work.given
            await self._parts.work.wait(POLL_S if given else await self._until_next())

    async def follow_directory(self) -> None:
        """Wake `run` whenever instances or slots have changed, until cancelled."""
        while True:
            await self._parts.placement.wait_for_change()
            self._start_ahead()  # a slot does not wait for a claim that is under way
            self._parts.work.give()

    async def recover(
        self, of: str | None = None, fence: Callable[[Transaction], bool] = lambda _tx: True
    ) -> bool:
        """Take over the rows of a replica (None: of any), this one's at the start included.

        `fence` sees to it, in the same transaction, that the replica commits nothing more; False
        where that was not possible, and nothing was taken over.
        """
        now, ledger = milliseconds(self._parts.clock), self._parts.ledger
        found = await self._parts.database.write(
            lambda tx: ledger.recover_travels(tx, now, of) if fence(tx) else None
        )
        if found is None:
            return False
        sources, travels = found
        for claim in sources:
            endpoint = msgspec.json.decode(claim.endpoint, type=Endpoint)
            explanation = {"reason": "went on with the execution that was running"}
            choice = Choice(endpoint=endpoint, capability=claim.capability, explanation=explanation)
            self._spawn(claim, choice, resume=True)
        if sources:
            _log.info("sources_resumed", count=len(sources))
        for travel in travels:
            if travel.claims:
                task = asyncio.create_task(self._groups.resume(travel), name=travel.key)
                self._steps.add(task)
                task.add_done_callback(self._ended)
        self._parts.work.give()
        return True

    async def stop(self) -> None:
        """Let go of the running steps; their rows stay as they are for the next start."""
        for task in self._steps:
            task.cancel()
        if self._steps:
            await asyncio.wait(self._steps)
        await self._dispatcher.close()

    async def _round(self) -> None:
        """Claim once; a full disk only delays it."""
        try:
            await self._claim()
            if self._back or self._early:
                self._put_back()
            await self._explain()
        except StorageFullError as error:
            _log.error("storage_full", detail=error.detail)
        except StaleReplicaError as error:  # the next heartbeat joins again
            _log.warning("claim_refused", detail=error.detail)

    async def _claim(self) -> None:
        resumed = max(0, len(self._sources) - MAX_SOURCES)  # they take no places of other steps
        room = MAX_STEPS - len(self._steps) + resumed
        self._start_ahead()
        self._put_back_late()
        more = {
            name: count + self._ahead.more(name)
            for name, count in self._parts.placement.free_slots().items()
            if not (self._parts.secrets.holds_back(name) or self._has_enough(name))
        }
        free = {name: count for name, count in more.items() if count}
        if not free or room <= 0:
            return
        database = self._parts.database
        if database.dialect != "sqlite" and not self._found:
            # there a transaction that finds nothing is synced too
            free = await database.read(lambda tx: self._claimable(tx, free, self._parts.now()))
            if not free:
                return
        claims = await database.write(lambda tx: self._claim_all(tx, free, room))
        self._found = bool(claims)
        crash.reach("claim.after")
        for some in self._parted(self._beyond(claims)):
            if len(some) == 1:
                self._start(some[0])
            else:
                self._start_together(some)

    def _has_enough(self, capability: str) -> bool:
        return capability in self._reading and len(self._sources) >= MAX_SOURCES

    def _start_ahead(self) -> None:
        """Start what was claimed before there was a slot for it."""
        for capability, slots in self._parts.placement.free_slots().items():
            for claim in self._ahead.take(capability, slots):
                self._start(claim)

    def _put_back_late(self) -> None:
        until = milliseconds(self._parts.clock)
        for claim in self._ahead.late(self._parts.clock.monotonic()):
            self._back.append(Unclaimed(claim.key, claim.fence, "", until))

    def _beyond(self, claims: Sequence[Claim]) -> list[Claim]:
        """Keep the rows for which there are no slots yet; returns the others."""
        left = Counter(self._parts.placement.free_slots())
        now: list[Claim] = []
        later: list[Claim] = []
        for claim in claims:
            if left[claim.capability] <= 0 and not travels(claim):
                later.append(claim)
                continue
            if not left[claim.capability]:
                self._ahead.stop(claim.capability)
            left[claim.capability] -= 1
            now.append(claim)
        return now + self._ahead.put(later, self._parts.clock.monotonic())

    def _claimable(self, tx: Transaction, free: Mapping[str, int], now: int) -> dict[str, int]:
        """The free slots of capabilities that have something to do."""
        ready = self._parts.ledger.claimable(tx, tuple(free), now)
        return {name: count for name, count in free.items() if name in ready}

    def _claim_all(self, tx: Transaction, free: Mapping[str, int], room: int) -> list[Claim]:
        ledger, sizes = self._parts.ledger, self._sizes
        now = self._parts.now()  # in the transaction: what is committed by then was made before
        free = self._claimable(tx, free, now)
        return self._turns.claim(
            free, room, lambda name, limit: ledger.claim(tx, name, limit, now, sizes.most(name))
        )

    def _parted(self, claims: Sequence[Claim]) -> list[list[Claim]]:
        """What goes to a worker in one request each, in order."""
        slots = Counter(self._parts.placement.free_slots())
        parts: list[list[Claim]] = []
        groups: dict[tuple[str, str], list[Claim]] = {}
        for claim in claims:
            if travels(claim):
                groups.setdefault((claim.capability, claim.together), []).append(claim)
            else:
                slots[claim.capability] -= 1
                parts.append([claim])
        for (capability, _), some in groups.items():
            requests = self._sizes.requests(capability, len(some), slots[capability])
            slots[capability] -= requests
            parts += spread(some, requests)
        return parts

    def _choose(self, claims: list[Claim]) -> Choice | None:
        """Choose who takes the rows; where nobody can they are put back."""
        now, wanted = milliseconds(self._parts.clock), requirement_of(*claims)
        choice = self._parts.placement.choose(wanted)
        if isinstance(choice, NoCandidate):
            until = self._unplaced.again(wanted, now)
            self._back += [Unclaimed(one.key, one.fence, choice.reason, until) for one in claims]
            return None
        if self._unplaced.found(wanted, now):
            self._early[wanted.capability] += MORE * len(claims)
        return choice

    def _start_together(self, claims: list[Claim]) -> None:
        choice = self._choose(claims)
        if choice is None:
            return
        task = asyncio.create_task(self._travel(claims, choice), name=str(claims[0].key))
        self._steps.add(task)
        for claim in claims:
            self._parts.runs.give(claim.key.run)
        task.add_done_callback(self._ended)

    async def _travel(self, claims: list[Claim], choice: Choice) -> None:
        answered, seconds = await self._groups.run(claims, choice)
        if answered:
            self._sizes.learn(choice.capability, answered, seconds)

    async def _alone(self, claim: Claim, choice: Choice, *, resume: bool) -> None:
        started, own = self._parts.clock.monotonic(), asyncio.current_task()

        def harmless() -> None:
            self._suspects.pop(own, None)

        def learn() -> None:
            """Before the next row is claimed; a failure's time says nothing of it."""
            self._sizes.learn(choice.capability, 1, self._parts.clock.monotonic() - started)

        def learn_alone() -> None:
            self._ahead.learn(claim, self._parts.clock.monotonic() - started)

        answered = learn if travels(claim) else learn_alone
        await self._dispatcher.run(
            claim, choice, resume=resume, answered=answered, harmless=harmless
        )

    def _start(self, claim: Claim) -> None:
        if claim.kind == "source":
            self._reading.add(claim.capability)
            if self._has_enough(claim.capability):
                self._put_off(claim, _ENOUGH)
                return
        choice = self._choose([claim])
        if choice is not None and claim.suspect and self._has_suspect(choice):
            choice = self._choose_apart(claim, choice)
        if choice is not None:
            self._spawn(claim, choice, resume=False)

    def _has_suspect(self, choice: Choice) -> bool:
        return choice.endpoint.instance in self._suspects.values()

    def _choose_apart(self, claim: Claim, taken: Choice) -> Choice | None:
        """Choose another instance for a suspect; where each has one already it is put back."""
        placement = self._parts.placement
        wanted = replace(requirement_of(claim), avoid=frozenset(self._suspects.values()))
        other = placement.choose(wanted)
        placement.report(taken, Outcome.CANCELLED, 0.0)
        if isinstance(other, Choice):
            if not self._has_suspect(other):
                return other
            placement.report(other, Outcome.CANCELLED, 0.0)
        self._put_off(claim, _APART)
        return None

    def _put_off(self, claim: Claim, reason: str) -> None:
        until = milliseconds(self._parts.clock) + SOON_MS
        self._back.append(Unclaimed(claim.key, claim.fence, reason, until))

    def _put_back(self) -> None:
        """Queue rows again; on a full disk that waits for space, and nothing waits for it."""
        back, self._back = self._back, []
        early, self._early = self._early, Counter()
        now, ledger = milliseconds(self._parts.clock), self._parts.ledger

        def write(tx: Transaction) -> None:
            ledger.unclaim(tx, back)
            for capability, count in early.items():
                ledger.bring_forward(tx, capability, count, now)

        async def work() -> None:
            await self._parts.surely(write)
            self._parts.work.give()

        task = asyncio.create_task(work(), name="put back")
        self._steps.add(task)
        task.add_done_callback(self._ended)

    def _spawn(self, claim: Claim, choice: Choice, *, resume: bool) -> None:
        work = self._alone(claim, choice, resume=resume)
        task = asyncio.create_task(work, name=str(claim.key))
        self._steps.add(task)
        if claim.kind == "source":
            self._sources.add(task)
        if claim.suspect:
            self._suspects[task] = choice.endpoint.instance
        self._parts.runs.give(claim.key.run)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._steps.discard(task)
        self._sources.discard(task)
        self._suspects.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("dispatch_broken", step=task.get_name(), exc_info=error)

    async def _until_next(self) -> float:
        """Seconds until a delayed row is due, at most the poll interval."""
        now = milliseconds(self._parts.clock)
        due = await self._parts.database.read(lambda tx: self._parts.ledger.next_time(tx, now))
        return POLL_S if due is None else min(POLL_S, max(0.01, (due - now) / 1000))

    async def _explain(self) -> None:
        """Once a second, tell people why rows wait."""
        if self._parts.clock.monotonic() - self._explained_at < POLL_S:
            return
        self._explained_at = self._parts.clock.monotonic()
        now = milliseconds(self._parts.clock)
        waiting = await self._parts.database.read(lambda tx: self._parts.ledger.waiting(tx, now))
        held_back = await self._parts.database.read(lambda tx: limit_sql.reasons(tx, waiting, now))
        reasons = {name: held_back.get(name) or self._why(name) for name in waiting}
        changed = {
            name: reason
            for name, reason in reasons.items()
            if self._reasons.get(name, "") != reason
        }
        self._reasons = reasons
        if changed:
            await self._parts.database.write(lambda tx: self._write_reasons(tx, changed))
            self._parts.runs.give_all()
        await self._follow_clock(now)
        if self._explained_at - self._tidied_at >= TIDY_S:
            self._tidied_at = self._explained_at
            kept = round(self._parts.settings.submit_keys_hours * 3_600_000)
            await self._parts.database.write(lambda tx: _tidy(tx, now - kept))

    async def _follow_clock(self, now: int) -> None:
        """Let nothing wait for as long as the clock was set back."""
        max_s, database = self._parts.settings.retry.max_s, self._parts.database
        if await database.read(lambda tx: clock_sql.any_far_ahead(tx, now, max_s)):
            count = await database.write(lambda tx: clock_sql.bring_near(tx, now, max_s))
            _log.warning("clock_set_back", rows=count)
            self._parts.work.give()

    def _why(self, capability: str) -> str:
        return self._parts.secrets.holds_back(capability) or self._parts.placement.absent(
            capability
        )

    def _write_reasons(self, tx: Transaction, reasons: Mapping[str, str]) -> None:
        for capability, reason in reasons.items():
            self._parts.ledger.explain_waiting(tx, capability, reason)


def _tidy(tx: Transaction, before: int) -> None:
    queue_sql.forget_shares(tx)
    submit_sql.forget(tx, before)
