"""Goes on without optional steps that nobody has served for a while."""

import asyncio

import structlog
from hivemesh_sdk.clock import Clock

from hivemesh_platform.execution.ledger import store
from hivemesh_platform.execution.ledger.port import Effects, Ledger, milliseconds
from hivemesh_platform.execution.ports import Placement
from hivemesh_platform.execution.wakes import Wakes
from hivemesh_platform.storage.database import Database

POLL_S = 1.0

_log = structlog.get_logger("hivemesh.execution")


class OptionalSteps:
    """Watches the optional steps whose rows wait."""

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        placement: Placement,
        wakes: Wakes,
        wait_s: float,
        clock: Clock,
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._placement = placement
        self._wakes = wakes
        self._wait_s = wait_s
        self._clock = clock
        self._since: dict[tuple[str, str], float] = {}

    async def run(self) -> None:
        """Look once a second, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(min(POLL_S, self._wait_s / 2))

    async def look(self) -> None:
        """Leave those out for which nobody has been live for the whole of the wait."""
        waiting = await self._database.read(store.optional_waiting)
        now = self._clock.monotonic()
        absent = {
            (row["run"], row["name"]): reason
            for row in waiting
            if (reason := self._placement.absent(row["capability"]))
        }
        self._since = {key: self._since.get(key, now) for key in absent}
        for key, reason in absent.items():
            if now - self._since[key] >= self._wait_s:
                await self._leave_out(*key, reason)

    async def _leave_out(self, run: str, node: str, reason: str) -> None:
        at = milliseconds(self._clock)
        effects: Effects = await self._database.write(
            lambda tx: self._ledger.left_out(tx, run, node, reason, at)
        )
        _log.warning("step_left_out", run_id=run, node=node, reason=reason)
        self._wakes.tell(run, effects)
        self._wakes.work.give()
