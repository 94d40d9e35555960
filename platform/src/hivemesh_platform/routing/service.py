"""Places steps: keeps the board in step with the directory. Implements execution's `Placement`."""

import asyncio
from collections.abc import Callable, Iterator, Mapping

import structlog
from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.artifacts import DataClass
from hivemesh_sdk.contracts.instances import HEARTBEAT_S, Endpoint
from pydantic import JsonValue

from hivemesh_platform.execution.ports import Choice, NoCandidate, Outcome, Requirement, Survey
from hivemesh_platform.registry.model import Instance, InstanceState
from hivemesh_platform.registry.ports import InstanceDirectory
from hivemesh_platform.routing.board import Board, Seat
from hivemesh_platform.routing.model import (
    Candidate,
    Decision,
    Features,
    Load,
    Requirements,
    Weights,
    load_score,
    requirements,
)
from hivemesh_platform.routing.outliers import Circuit, Outliers, Rule, Standing

BEATS_S = 1.5 * HEARTBEAT_S  # at most: when a loss is noticed, a dead one is silent for longer
SURVEYED = 50  # candidates that a survey lists; the rest are counted
_ENDED_WELL: Mapping[Outcome, bool | None] = {
    Outcome.COMPLETED: True,
    Outcome.FAILED: False,
    Outcome.UNREACHABLE: False,
    Outcome.LOST: False,
}
_log = structlog.get_logger("hivemesh.routing")


class RoutingService:
    """Chooses instances and counts what is in flight."""

    def __init__(
        self,
        directory: InstanceDirectory,
        clock: Clock,
        weights: Weights,
        *,
        kept: int = 2000,
        rule: Rule | None = None,
        clearance: Callable[[str], DataClass] = lambda _: DataClass.SECRET,
    ) -> None:
        self._clearance = clearance  # of a capability, as its manifest says
        self._clearances: dict[str, dict[str, DataClass]] = {}  # by digest of the manifest
        self._directory = directory
        self._clock = clock
        self._weights = weights
        self._board = Board(weights, kept=kept)
        self._outliers = Outliers(rule)
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
            return NoCandidate(self._with_clocks(self._board.reason(number), wanted))
        now = self._clock.monotonic()
        self._outliers.began(number, chosen, requirement.capability, requirement.records, now)
        return Choice(
            endpoint=self._endpoints[chosen],
            capability=requirement.capability,
            explanation=_Explanation(self._board.decision, number, self._weights),
            number=number,
        )

    def survey(self, requirement: Requirement) -> Survey:
        """Say what each instance would be for it, those that take nothing included; choose none."""
        self._update()
        wanted = requirements(
            requirement.capability, requirement.labels, data_class=requirement.data_class
        )
        reason, found = self._board.survey(wanted)
        found += self._out_of_use(wanted)
        found.sort(key=lambda one: (bool(one.misses), bool(one.unmet), one.score, one.instance))
        return Survey(
            reason=self._with_clocks(reason, wanted) if reason else "",
            candidates=[
                {"worker": self._worker_of(one.instance), **_shown(one, self._weights)}
                for one in found[:SURVEYED]
            ],
            not_listed=len(found[SURVEYED:]),
        )

    def give_back(self, choice: Choice) -> bool:
        """Give the slot back: the instance has answered, and its answer is being kept.

        False for one that is tried: its next step waits for what becomes of this one.
        """
        instance = choice.endpoint.instance
        if self._outliers.allowed(instance, choice.capability) is not None:
            return False
        self._board.release(instance, choice.capability)
        self._changed.set()
        return True

    def report(
        self, choice: Choice, outcome: Outcome, seconds: float, *, given_back: bool = False
    ) -> None:
        """Tell how it went, and give the slot back unless that was done."""
        instance = choice.endpoint.instance
        if not given_back:
            self._board.release(instance, choice.capability)
        now = self._clock.monotonic()
        self._outliers.ended(choice.number, ok=_ENDED_WELL.get(outcome), now=now)
        if outcome is Outcome.OVERLOADED:
            self._board.saturate(instance, choice.capability)
        elif outcome in {Outcome.LOST, Outcome.UNREACHABLE}:
            if outcome is Outcome.LOST:
                self._outliers.silent(instance, choice.capability)
            self._suspect(instance)
        if self._eject() or not given_back:
            self._changed.set()

    @property
    def ejections(self) -> int:
        """How often an instance was taken out since the start."""
        return self._outliers.ejections

    def busy(self, instance: str) -> bool:
        """Whether the instance holds steps of ours."""
        return self._board.busy(instance)

    def ejected(self) -> dict[str, list[str]]:
        """The instances that are out or on probation, by capability."""
        return self._outliers.out()

    def standing(self, instance: str, capability: str) -> Standing:
        """Whether an instance takes steps of a capability, and why not."""
        return self._outliers.standing(instance, capability, self._clock.monotonic())

    def beats(self, instance: str) -> bool:
        """Whether the instance has sent a heartbeat a moment ago."""
        found = self._directory.get(instance)
        return found is not None and self._directory.now() - found.heartbeat_at <= BEATS_S

    def tells_time(self, instance: str) -> bool:
        """Whether the instance says what its clock shows."""
        found = self._directory.get(instance)
        return found is not None and found.tells_time

    def unanswered(self) -> frozenset[str]:
        """The instances that send heartbeats and have not answered us since the last one."""
        self._update()
        now, seated = self._directory.now(), self._board.instances()
        return frozenset(
            one.id
            for one in self._directory.all()
            if one.id not in seated and one.state(now) is InstanceState.LIVE
        )

    def absent(self, capability: str) -> str:
        """Why nothing serves the capability; "" where live instances are merely busy."""
        self._update()
        wanted = requirements(capability)
        reason = self._board.absent(wanted)
        return self._with_clocks(reason, wanted) if reason else ""

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

    def _out_of_use(self, wanted: Requirements) -> Iterator[Candidate]:
        """The instances that serve the capability and are given nothing, with why."""
        now, seated = self._directory.now(), self._board.instances()
        for one in self._directory.all():
            if one.id in seated or wanted.capability not in one.capabilities:
                continue
            load = Load(one.cpu, one.memory, one.active_steps)
            yield Candidate(
                instance=one.id,
                score=load_score(load, self._weights),
                cpu=load.cpu,
                memory=load.memory,
                active=load.active,
                free=one.free(wanted.capability),
                misses=_why_out(one, now),
            )

    def _with_clocks(self, reason: str, wanted: Requirements) -> str:
        """Why none could be chosen, with who serves the capability once its clock is right."""
        if not self._board.absent(wanted):
            return reason
        now = self._directory.now()
        off = sorted(
            f"{one.id}: {one.clock_off}"
            for one in self._directory.all()
            if one.clock_off
            and wanted.capability in one.capabilities
            and one.state(now) is InstanceState.DRAINING
        )
        more = f", and {len(off) - 1} more" if off[1:] else ""
        return f"{reason}; {off[0]}{more}" if off else reason

    def _worker_of(self, instance_id: str) -> str:
        found = self._directory.get(instance_id)
        return "" if found is None else found.worker

    def _update(self) -> None:
        now = self._directory.now()
        for instance_id in self._directory.updates():
            instance = self._directory.get(instance_id)
            if instance is None or instance.state(now) is not InstanceState.LIVE:
                self._board.drop(instance_id)
                self._endpoints.pop(instance_id, None)
                self._outliers.forget(instance_id)
            else:
                self._outliers.know(instance_id, instance.capabilities)
                self._board.put(self._seat(instance))
                self._endpoints[instance_id] = instance.endpoint()
        self._eject()

    def _eject(self) -> bool:
        """Bring the board in step with the circuits; says whether any has changed."""
        changed = self._outliers.look(self._clock.monotonic())
        for instance, capability in changed:
            self._board.allow(instance, capability, self._outliers.allowed(instance, capability))
            standing = self.standing(instance, capability)
            log = _log.warning if standing.circuit is Circuit.OPEN else _log.info
            log(
                "circuit_changed",
                instance=instance,
                capability=capability,
                circuit=standing.circuit.value,
                reason=standing.reason,
                probe_in_s=round(standing.probe_in_s, 1),
            )
        return bool(changed)

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
            allowed={
                name: slots
                for name in instance.capabilities
                if (slots := self._outliers.allowed(instance.id, name)) is not None
            },
        )

    def _clearances_of(self, instance: Instance) -> dict[str, DataClass]:
        known = self._clearances.get(instance.manifest_digest)
        if known is None or known.keys() != instance.capabilities:
            known = {name: self._clearance(name) for name in instance.capabilities}
            self._clearances[instance.manifest_digest] = known
        return known


class _Explanation(Mapping[str, JsonValue]):
    """Why an instance was chosen; made when it is first read, which is off the way of a choice."""

    def __init__(self, of: Callable[[int], Decision | None], number: int, weights: Weights) -> None:
        self._of = of
        self._number = number
        self._weights = weights
        self._made: dict[str, JsonValue] | None = None

    def __getitem__(self, name: str) -> JsonValue:
        return self._content()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._content())

    def __len__(self) -> int:
        return len(self._content())

    def _content(self) -> dict[str, JsonValue]:
        if self._made is None:
            decision = self._of(self._number)
            self._made = {} if decision is None else _explanation(decision, self._weights)
        return self._made


def _shown(one: Candidate, weights: Weights) -> dict[str, JsonValue]:
    return {
        "instance": one.instance,
        "score": round(one.score, 4),
        "parts": {name: round(value, 4) for name, value in one.parts(weights).items()},
        "active": one.active,
        "free": one.free,
        "unmet": one.unmet,
    }


def _why_out(instance: Instance, now: float) -> str:
    match instance.state(now):
        case InstanceState.DRAINING:
            return instance.clock_off or "draining: it finishes what it has"
        case InstanceState.INCOMPATIBLE:
            return f"incompatible: {instance.incompatible}"
        case InstanceState.UNHEALTHY:
            return "unhealthy: its heartbeats are missing"
        case InstanceState.OFFLINE:
            return "offline: its lease has run out"
        case _:
            return "no answer: it is chosen again from its next heartbeat on"


def _explanation(decision: Decision, weights: Weights) -> dict[str, JsonValue]:
    return {
        "chosen": decision.chosen,
        "reason": decision.reason,
        "candidates": [_shown(one, weights) for one in decision.candidates],
        "not_listed": decision.not_listed,
    }
