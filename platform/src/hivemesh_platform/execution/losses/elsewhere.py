"""Steps that another replica holds, as their rows tell: for what their workers ask here."""

import asyncio

import msgspec
import structlog
from hivemesh_sdk.contracts.instances import Endpoint
from msgspec.structs import replace

from hivemesh_platform.execution.held import HeldStep
from hivemesh_platform.execution.ledger import group_sql
from hivemesh_platform.execution.ledger.claim_sql import claim_of
from hivemesh_platform.execution.ledger.port import Claim, Travel
from hivemesh_platform.execution.model import Fence, WorkKey
from hivemesh_platform.execution.steps.dispatch import Dispatcher
from hivemesh_platform.execution.steps.parts import Parts
from hivemesh_platform.storage.transaction import Transaction

PLACED_WITHIN_S = 2.0  # where an attempt runs is written while its request is under way
POLL_S = 0.02
PARTS_OF_KEY = 3

_FOUND = """
SELECT work.*, attempt.identity AS identity
  FROM work LEFT JOIN attempt
       ON attempt.run = work.run AND attempt.node = work.node AND attempt.seq = work.seq
      AND attempt.attempt = work.attempt
 WHERE work.run = ? AND work.node = ? AND work.seq = ? AND work.state = 'running'
"""

_log = structlog.get_logger("hivemesh.execution")


class StepsElsewhere:
    """Looks up steps in the ledger; what a step may read is found out once per attempt."""

    def __init__(self, parts: Parts, dispatcher: Dispatcher) -> None:
        self._parts = parts
        self._dispatcher = dispatcher

    async def look_up(self, key: str, known: HeldStep | None) -> HeldStep | None:
        """Return the step with this key if any replica holds it now.

        `known` is the answer before, which holds for as long as its attempt runs.
        """
        where = _split(key)
        if where is None:
            return None
        until = self._parts.clock.monotonic() + PLACED_WITHIN_S
        while True:
            found = await self._parts.database.read(lambda tx: _find(tx, where))
            if found is None:
                return None
            claim, identity, travel = found
            if known is not None and known.members.get(key, known.claim).fence == claim.fence:
                return known
            if travel is not None:
                return self._travelling(claim, travel)
            if identity:
                return await self._held(claim, identity)
            if self._parts.clock.monotonic() >= until:
                _log.warning("step_not_placed", step=key)
                return None
            await asyncio.sleep(POLL_S)

    def _travelling(self, claim: Claim, travel: Travel) -> HeldStep:
        """The request with which a small job travels; it was given nothing but its input."""
        group, number, seq = travel.key.split(".")
        nothing: frozenset[str] = frozenset()
        return HeldStep(
            replace(claim, key=WorkKey(group, number, int(seq)), fence=Fence(1, travel.epoch)),
            msgspec.json.decode(travel.endpoint, type=Endpoint),
            nothing,
            nothing,
            self._parts.clock.monotonic(),
            self._parts.tickets.clearance(claim.capability),
            members={str(claim.key): claim},
        )

    async def _held(self, claim: Claim, identity: str) -> HeldStep:
        digests, trees = await self._dispatcher.readable(claim)
        return HeldStep(
            claim,
            _endpoint(identity),
            digests,
            trees,
            self._parts.clock.monotonic(),
            self._parts.tickets.clearance(claim.capability),
            secrets=await self._dispatcher.lendable(claim),
        )


def _find(tx: Transaction, where: tuple[str, str, int]) -> tuple[Claim, str, Travel | None] | None:
    row = tx.one(_FOUND, where)
    if row is None:
        return None
    identity, travel = row["identity"] or "", None
    if row["together"] and not identity:
        travel = group_sql.with_member(tx, row["replica"], row["run"], row["attempt"])
    return claim_of(tx, row), identity, travel


def _split(key: str) -> tuple[str, str, int] | None:
    parts = key.split(".")
    if len(parts) != PARTS_OF_KEY or not parts[2].isdecimal() or len(parts[2]) > 18:
        return None
    return parts[0], parts[1], int(parts[2])


def _endpoint(identity: str) -> Endpoint:
    """Whoever holds the step; how it is reached, the replica that holds the step knows."""
    return Endpoint(
        instance=identity.rpartition("/")[2],
        worker="",
        version="",
        identity=identity,
        host="",
        port=0,
        capabilities=[],
    )
