"""Finds rows that this replica has claimed and that no step of it holds, and queues them again.

Whatever has lost them between their claim and their step, they are not to wait for a restart. One
that is lost again and again ends: it would be executed, or be claimed, for ever.
"""

import asyncio

import structlog
from hivemesh_sdk.contracts.problems import problem

from hivemesh_platform.execution.ledger.port import Effects, StaleAttemptError, milliseconds
from hivemesh_platform.execution.model import Fence, WorkKey
from hivemesh_platform.execution.steps.parts import Parts
from hivemesh_platform.replicas.standing import Standing
from hivemesh_platform.storage.errors import PASSING
from hivemesh_platform.storage.transaction import Transaction

MOST_LOSSES = 5  # of one row
EVERY_S = 5.0  # seen twice that far apart; from a claim to its step it takes milliseconds

_CLAIMED = """
SELECT run, node, seq, attempt, epoch FROM work
 WHERE state = 'running' AND replica = ? AND replica_epoch = ?
"""
_OPEN = "SELECT 1 FROM work WHERE run = ? AND node = ? AND seq = ? AND ended_at IS NULL"
_log = structlog.get_logger("hivemesh.execution")
_Row = tuple[WorkKey, Fence]


class UnheldRows:
    """Compares the rows that are claimed here with the steps that are held here."""

    def __init__(self, parts: Parts, standing: Standing) -> None:
        self._parts = parts
        self._standing = standing
        self._seen: frozenset[_Row] = frozenset()
        self._losses: dict[WorkKey, int] = {}  # of rows that have not ended

    async def run(self) -> None:
        """Look regularly, until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await self.look()
            except PASSING as error:  # the next look comes
                _log.warning("look_interrupted", detail=error.detail)

    async def look(self) -> int:
        """Queue those again that the last look has found as well; returns how many."""
        rows = await self._parts.database.read(self._claimed)
        held = self._parts.held
        unheld = frozenset(one for one in rows if not held.holds(str(one[0]), one[1].attempt))
        lost, self._seen = unheld & self._seen, unheld
        if lost:
            await self._free(lost)
        return len(lost)

    async def _free(self, lost: frozenset[_Row]) -> None:
        losses = await self._parts.database.read(self._open_losses)
        for key, _ in lost:
            losses[key] = losses.get(key, 0) + 1
        self._losses = losses
        again = frozenset(one for one in lost if losses[one[0]] < MOST_LOSSES)
        await self._parts.database.write(lambda tx: self._release(tx, again))
        _log.error("rows_unheld", count=len(lost), steps=sorted(str(key) for key, _ in lost)[:10])
        for key, fence in sorted(lost - again, key=str):
            await self._give_up(key, fence)
        self._parts.work.give()

    async def _give_up(self, key: WorkKey, fence: Fence) -> None:
        parts, now = self._parts, milliseconds(self._parts.clock)
        document = problem("internal", f"the row was lost {MOST_LOSSES} times before it had an end")
        try:
            effects: Effects = await parts.database.write(
                lambda tx: parts.ledger.fail(tx, key, fence, document, now)
            )
        except StaleAttemptError:  # it has ended meanwhile
            return
        parts.counters.rows_failed += 1
        _log.error("step_failed", step=str(key), problem="internal", detail=document.detail)
        parts.wakes.tell(key.run, effects, key)

    def _open_losses(self, tx: Transaction) -> dict[WorkKey, int]:
        """How often rows were lost that have not ended."""
        return {
            key: count
            for key, count in self._losses.items()
            if tx.one(_OPEN, (key.run, key.node, key.seq)) is not None
        }

    def _claimed(self, tx: Transaction) -> list[_Row]:
        return [
            (WorkKey(row["run"], row["node"], row["seq"]), Fence(row["attempt"], row["epoch"]))
            for row in tx.all(_CLAIMED, (self._standing.replica, self._standing.epoch))
        ]

    def _release(self, tx: Transaction, lost: frozenset[_Row]) -> None:
        """As if nobody could take them: nothing is counted."""
        for key, fence in sorted(lost, key=str):
            self._parts.ledger.release(tx, key, fence, "", 0)
