"""Takes crashes back that were none: a worker that answers again has not died of its steps.

When a worker is lost nobody can tell a dead process from a broken network. Its steps are placed
again at once and count a crash, for an input that kills hosts must not go on for ever. Then the
worker is asked on: where the process answers that ran them, only the connection was lost.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from hivemesh_sdk.contracts.instances import Endpoint
from hivemesh_sdk.errors import HivemeshError

from hivemesh_platform.execution.held import HeldStep
from hivemesh_platform.execution.model import WorkKey
from hivemesh_platform.execution.steps.parts import Parts
from hivemesh_platform.storage.errors import PASSING
from hivemesh_platform.storage.transaction import Transaction

ASKED_S = 600.0  # for so long after a loss
MOST = 4096  # losses that are remembered; of more the oldest stay crashes

_PARDON = """
UPDATE work SET crashes = crashes - 1, suspect = CASE WHEN crashes > 1 THEN suspect ELSE 0 END
 WHERE run = ? AND node = ? AND seq = ? AND attempt >= ? AND crashes > 0 AND ended_at IS NULL
"""
_log = structlog.get_logger("hivemesh.execution")


@dataclass(frozen=True, slots=True)
class _Loss:
    """A step that was lost with its worker; times are monotonic."""

    key: WorkKey
    attempt: int
    endpoint: Endpoint
    began: float
    at: float


class Survivors:
    """Asks the workers of lost steps whether they are alive after all."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._losses: list[_Loss] = []

    def __len__(self) -> int:
        return len(self._losses)

    def lost(self, step: HeldStep) -> None:
        """A step was lost with its worker, and counted as a crash."""
        claim, now = step.claim, self._parts.clock.monotonic()
        loss = _Loss(claim.key, claim.fence.attempt, step.endpoint, step.started, now)
        self._losses = [*self._losses[-MOST + 1 :], loss]

    async def run(self) -> None:
        """Ask as often as workers with steps are asked, until cancelled."""
        while True:
            await asyncio.sleep(self._parts.settings.status_interval_s)
            try:
                await self.look()
            except PASSING as error:  # the next look comes
                _log.warning("look_interrupted", detail=error.detail)

    async def look(self) -> None:
        """Ask each of them once, all at the same time; an error is raised when all are done."""
        since = self._parts.clock.monotonic() - ASKED_S
        self._losses = [one for one in self._losses if one.at > since]
        endpoints = {one.endpoint.identity: one.endpoint for one in self._losses}
        asked = map(self._ask, endpoints.values())
        for found in await asyncio.gather(*asked, return_exceptions=True):
            if found is not None:
                raise found

    async def _ask(self, endpoint: Endpoint) -> None:
        timeout_s = 0.75 * self._parts.settings.status_interval_s
        try:
            status = await self._parts.transport.status(endpoint, timeout_s=timeout_s)
        except HivemeshError:
            return
        started = self._parts.clock.monotonic() - status.uptime_s
        known = [one for one in self._losses if one.endpoint.identity == endpoint.identity]
        alive = [one for one in known if started <= one.began]
        if alive:
            await self._parts.database.write(lambda tx: _pardon(tx, alive))
            _log.info("worker_survived", instance=endpoint.instance, steps=len(alive))
        self._losses = [one for one in self._losses if one not in known]


def _pardon(tx: Transaction, losses: Sequence[_Loss]) -> None:
    for one in losses:
        tx.send(_PARDON, (one.key.run, one.key.node, one.key.seq, one.attempt))
