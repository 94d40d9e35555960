"""Places steps: keeps the board in step with the directory. Implements execution's `Placement`."""

import asyncio
from collections.abc import Callable, Mapping

from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.artifacts import DataClass
from hivemesh_sdk.contracts.instances import Endpoint
from pydantic import JsonValue

from hivemesh_platform.execution.ports import Choice, NoCandidate, Outcome, Requirement
from hivemesh_platform.registry.model import Instance, InstanceState
from hivemesh_platform.registry.ports import InstanceDirectory
from hivemesh_platform.routing.board import Board, Seat
from hivemesh_platform.routing.model import Decision, Features, Weights, requirements

EXPLAINED = 100  # candidates of one decision that are written down; the rest are counted


class RoutingService:
    """Chooses instances and counts what is in flight."""

    def __init__(
        self,
        directory: InstanceDirectory,
        clock: Clock,
        weights: Weights,
        *,
        kept: int = 2000,
        clearance: Callable[[str], DataClass] = lambda _: DataClass.SECRET,
    ) -> None:
        self._clearance = clearance  # of a capability, as its manifest says
        self._clearances: dict[str, dict[str, DataClass]] = {}  # by digest of the manifest
        self._directory = directory
        self._clock = clock
        self._weights = weights
        self._board = Board(weights, kept=kept)
        self._endpoints: dict[str, Endpoint] = {}
        self._lost: set[str] = set()
        self._changed = asyncio.Event()
        self._suspected = asyncio.Event()

    async def run(self) -> None:
        """Wake those who wait whenever the directory changes; runs until it is cancelled."""
        version = self._directory.version
        while True:
            version = await self._directory.changed(version, 3600.0)
            self._changed.set()

    def free_slots(self) -> Mapping[str, int]:
        """Per capability, how many steps could be placed now."""
        self._update()
        return self._board.free_slots()

    def choose(self, requirement: Requirement) -> Choice | NoCandidate:
        """Choose an instance and hold one slot there until `report`."""
        self._update()
        wanted = requirements(
            requirement.capability, requirement.labels, data_class=requirement.data_class
        )
        number = self._board.choose(wanted, requirement.avoid)
        chosen = self._board.chosen(number)
        if chosen is None:
            return NoCandidate(self._board.reason(number))
        decision = self._board.decision(number)
        return Choice(
            endpoint=self._endpoints[chosen],
            capability=requirement.capability,
            explanation=_explanation(decision, self._weights) if decision is not None else {},
        )

    def report(self, choice: Choice, outcome: Outcome, seconds: float) -> None:
        """Give the slot back and tell how it went."""
        instance = choice.endpoint.instance
        self._board.release(instance, choice.capability)
        if outcome is Outcome.OVERLOADED:
            self._board.saturate(instance, choice.capability)
        elif outcome in {Outcome.LOST, Outcome.UNREACHABLE}:
            self._suspect(instance)
        self._changed.set()

    def absent(self, capability: str) -> str:
        """Why nothing serves the capability; "" where live instances are merely busy."""
        self._update()
        return self._board.absent(requirements(capability))

    async def wait_for_change(self) -> None:
        """Return when instances or slots have changed since the last return."""
        await self._changed.wait()
        self._changed.clear()

    async def suspects(self) -> frozenset[str]:
        """Wait for instances that did not answer; each report is handed out once."""
        await self._suspected.wait()
        self._suspected.clear()
        lost, self._lost = frozenset(self._lost), set()
        return lost

    def _suspect(self, instance: str) -> None:
        """Choose it no more until its next heartbeat."""
        self._board.drop(instance)
        self._lost.add(instance)
        self._suspected.set()

    def _update(self) -> None:
        now = self._directory.now()
        for instance_id in self._directory.updates():
            instance = self._directory.get(instance_id)
            if instance is None or instance.state(now) is not InstanceState.LIVE:
                self._board.drop(instance_id)
                self._endpoints.pop(instance_id, None)
            else:
                self._board.put(self._seat(instance))
                self._endpoints[instance_id] = instance.endpoint()

    def _seat(self, instance: Instance) -> Seat:
        features = Features(
            capabilities=instance.capabilities,
            labels=instance.labels,
            version=instance.version,
            clearances=self._clearances_of(instance),
        )
        return Seat(
            instance=instance.id,
            features=features,
            slots=instance.slots,
            cpu=instance.cpu,
            memory=instance.memory,
            reported=instance.active_steps,
        )

    def _clearances_of(self, instance: Instance) -> dict[str, DataClass]:
        known = self._clearances.get(instance.manifest_digest)
        if known is None or known.keys() != instance.capabilities:
            known = {name: self._clearance(name) for name in instance.capabilities}
            self._clearances[instance.manifest_digest] = known
        return known


def _explanation(decision: Decision, weights: Weights) -> dict[str, JsonValue]:
    candidates: list[JsonValue] = [
        {
            "instance": one.instance,
            "score": round(one.score, 4),
            "parts": {name: round(value, 4) for name, value in one.parts(weights).items()},
            "active": one.active,
            "free": one.free,
        }
        for one in decision.candidates[:EXPLAINED]
    ]
    return {
        "chosen": decision.chosen,
        "reason": decision.reason,
        "candidates": candidates,
        "not_listed": max(0, len(decision.candidates) - EXPLAINED),
    }
