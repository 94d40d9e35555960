"""The other replicas, as execution meets them: their work is taken over, their changes are heard.

A replica alone has none of these loops.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import structlog

from hivemesh_platform import crash
from hivemesh_platform.execution.held import HeldStep, Verdict
from hivemesh_platform.execution.ledger.port import Claim
from hivemesh_platform.execution.runs.engine import RunEngine
from hivemesh_platform.execution.runs.service import RunService
from hivemesh_platform.execution.steps.claims import Claimer
from hivemesh_platform.execution.steps.parts import Parts
from hivemesh_platform.replicas.model import Replica
from hivemesh_platform.replicas.service import Replicas
from hivemesh_platform.storage.transaction import Transaction

GATHER_S = 0.02  # changes that are told together: a busy run changes a hundred times a second
TOLD_AT_ONCE = 100  # runs in one notice: PostgreSQL takes 8,000 bytes
CHECK_S = 1.0
LISTEN_S = 5.0  # all who follow a run look again so often, should a notice be lost

_OURS = """
SELECT run, node, seq, attempt, epoch FROM work WHERE state = 'running' AND replica = ?
"""
_HELD = """
SELECT run, node, seq, attempt, epoch, replica FROM work
 WHERE state = 'running' AND run = ? AND node = ? AND seq = ?
"""

_log = structlog.get_logger("hivemesh.execution")


class Notice(msgspec.Struct, frozen=True):
    """What one replica tells the others: runs that have changed, and those with ended nodes."""

    replica: str
    changed: list[str] = []
    ended: list[str] = []


class Others:
    """Takes over from replicas that are gone, and keeps in step with those that live."""

    def __init__(
        self,
        parts: Parts,
        replicas: Replicas,
        claimer: Claimer,
        engine: RunEngine,
        runs: RunService,
    ) -> None:
        self._parts = parts
        self._replicas = replicas
        self._claimer = claimer
        self._engine = engine
        self._runs = runs
        self._doubtful: dict[HeldStep, Verdict] = {}
        parts.runs.shared = not replicas.alone

    def loops(self) -> Sequence[Callable[[], Awaitable[None]]]:
        """What runs beside the claiming."""
        if self._replicas.alone:
            return ()
        return (self.take_over, self.tell, self.listen, self.look_again, self.check)

    async def take_over(self) -> None:
        """Take over the work of replicas that are gone, until cancelled."""
        while True:
            for gone in await self._replicas.gone():
                await self._take_over(gone)

    async def tell(self) -> None:
        """Tell the others which runs have changed here, until cancelled."""
        while True:
            await self._parts.runs.told.wait(CHECK_S)
            await asyncio.sleep(GATHER_S)
            untold = list(self._parts.runs.untold().items())
            if not self._replicas.others:
                continue
            for start in range(0, len(untold), TOLD_AT_ONCE):
                some = untold[start : start + TOLD_AT_ONCE]
                notice = Notice(
                    self._replicas.own.id,
                    [run for run, ended in some if not ended],
                    [run for run, ended in some if ended],
                )
                await self._parts.database.notify(msgspec.json.encode(notice).decode())

    async def listen(self) -> None:
        """Wake those who follow what has changed at other replicas, until cancelled."""
        async for text in self._parts.database.notices():
            self._hear(text)

    async def look_again(self) -> None:
        """Have all who follow a run look again now and then, until cancelled."""
        while True:
            await asyncio.sleep(LISTEN_S)
            self._parts.runs.give_all()

    async def check(self) -> None:
        """End the exchanges whose rows have ended or gone elsewhere, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(CHECK_S):
                    await self._replicas.rejoined.wait()
                self._replicas.rejoined.clear()
                await self.check_held()
            except TimeoutError:
                pass
            await self.check_held()

    async def check_held(self) -> None:
        """End what is not ours any more; what was just ended here is seen to be so twice."""
        steps = self._parts.held.all()
        if not steps:
            return
        verdicts, cancelled = await self._parts.database.read(lambda tx: self._verdicts(tx, steps))
        for run in cancelled:
            self._parts.held.drop_job(run)
        for step, verdict in verdicts.items():
            if self._doubtful.get(step) is verdict:
                _log.warning("step_let_go", step=str(step.claim.key), verdict=verdict.value)
                step.end(verdict)
        self._doubtful = verdicts

    async def _take_over(self, gone: Replica) -> None:
        """Rows first, with the fence; then runs. Each part may be repeated, by others too."""
        await self._replicas.cut_off(gone)
        crash.reach("takeover.before")
        fenced = await self._claimer.recover(gone.id, lambda tx: self._replicas.fence(tx, gone))
        if not fenced:
            return
        crash.reach("takeover.fenced")
        _log.warning("replica_taken_over", replica=gone.id, state=gone.state.value)
        self._parts.counters.replicas_taken_over += 1
        await self._engine.take_over(gone.id)
        await self._runs.reconcile()
        crash.reach("takeover.after")
        await self._parts.database.write(lambda tx: self._replicas.settle(tx, gone))
        self._parts.runs.give_all()

    def _hear(self, text: str) -> None:
        if not text:  # the connection was away: anything may have changed
            self._parts.runs.give_all()
            self._parts.work.give()
            return
        try:
            notice = msgspec.json.decode(text, type=Notice)
        except msgspec.DecodeError:
            return
        if notice.replica == self._replicas.own.id:
            return
        for run in notice.changed:
            self._parts.runs.hear(run)
        for run in notice.ended:
            self._parts.runs.hear_end(run)
        self._parts.work.give()

    def _verdicts(
        self, tx: Transaction, steps: Sequence[HeldStep]
    ) -> tuple[dict[HeldStep, Verdict], list[str]]:
        """What has to end, and the jobs that were cancelled of those that travel together."""
        found: dict[HeldStep, Verdict] = {}
        cancelled: list[str] = []
        rows = tx.all(_OURS, (self._replicas.own.id,))  # small jobs are held by the thousand
        running = {tuple(row) for row in rows}
        for step in steps:
            claims = list(step.members.values()) or [step.claim]
            verdicts = [
                None if _held(claim) in running else self._verdict(tx, claim) for claim in claims
            ]
            ours = any(verdict is None for verdict in verdicts)
            if ours:
                cancelled += [
                    claim.key.run
                    for claim, verdict in zip(claims, verdicts, strict=True)
                    if verdict is Verdict.CANCELLED
                ]
            if not ours and verdicts[0] is not None:
                found[step] = verdicts[0]
        return found, cancelled

    def _verdict(self, tx: Transaction, claim: Claim) -> Verdict | None:
        """How the exchange of a claim has to end; None where it is still ours."""
        key, fence = claim.key, claim.fence
        row = tx.one(_HELD, (key.run, key.node, key.seq))
        if row is None or row["attempt"] != fence.attempt:
            return Verdict.CANCELLED
        if row["epoch"] != fence.epoch or row["replica"] != self._replicas.own.id:
            return Verdict.MOVED
        return None


def _held(claim: Claim) -> tuple[str, str, int, int, int]:
    key, fence = claim.key, claim.fence
    return key.run, key.node, key.seq, fence.attempt, fence.epoch
