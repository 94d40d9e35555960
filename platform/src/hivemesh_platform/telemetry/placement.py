"""Measures every placed attempt on its way through execution's `Placement`."""

from collections.abc import Mapping

from hivemesh_platform.execution.ports import (
    Choice,
    NoCandidate,
    Outcome,
    Placement,
    Requirement,
    Survey,
)
from hivemesh_platform.telemetry.metrics import Metrics


class MeasuredPlacement:
    """Implements `Placement` by another one; observes how long each attempt took."""

    def __init__(self, placement: Placement, metrics: Metrics) -> None:
        self._placement = placement
        self._metrics = metrics

    def free_slots(self) -> Mapping[str, int]:
        """Return per capability how many steps could be placed now."""
        return self._placement.free_slots()

    def choose(self, requirement: Requirement) -> Choice | NoCandidate:
        """Choose an instance and hold one slot there until `report`."""
        return self._placement.choose(requirement)

    def survey(self, requirement: Requirement) -> Survey:
        """Say what each instance would be for it, and choose none."""
        return self._placement.survey(requirement)

    def give_back(self, choice: Choice) -> bool:
        """Give the slot back before `report`; False if not yet."""
        return self._placement.give_back(choice)

    def report(
        self, choice: Choice, outcome: Outcome, seconds: float, *, given_back: bool = False
    ) -> None:
        """Count the attempt, and give the slot back unless that was done."""
        self._placement.report(choice, outcome, seconds, given_back=given_back)
        self._metrics.processing_time.labels(choice.endpoint.worker, outcome.value).observe(seconds)

    def beats(self, instance: str) -> bool:
        """Say whether the instance has sent a heartbeat a moment ago."""
        return self._placement.beats(instance)

    def tells_time(self, instance: str) -> bool:
        """Say whether the instance tells its clock."""
        return self._placement.tells_time(instance)

    def absent(self, capability: str) -> str:
        """Say why nothing serves the capability; "" where live instances are merely busy."""
        return self._placement.absent(capability)

    async def wait_for_change(self) -> None:
        """Return when instances or slots have changed since the last return."""
        await self._placement.wait_for_change()
