"""What the supervisor does about one worker's processes: decided here, done in `fleet`. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0
STABLE_S = 30.0  # a process that lived this long has started well
LOOPING = 4  # ends in a row after which it is called a crash loop
FREE_DEATHS = 16  # of steps, in a row: what one record costs that is found by halves of a batch
CONDEMNED_S = 60.0  # a lost process may come back for this long before it is killed
RESTARTED = "restarted by the operator"
KILL_AFTER_S = 5.0  # past the drain grace


class Phase(StrEnum):
    """Where a process stands."""

    STARTING = "starting"  # not registered yet
    LIVE = "live"
    CONDEMNED = "condemned"  # silent or lost: a replacement takes its place
    STOPPING = "stopping"  # was asked to end


class Sign(StrEnum):
    """What is known of a process from outside."""

    UNSEEN = "unseen"  # the registry does not know it
    BEATING = "beating"
    SILENT = "silent"  # heartbeats are missing, the lease still holds
    LOST = "lost"  # the lease has ended, or it does not answer for its steps
    SUSPENDED = "suspended"  # stopped by a signal and silent


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One process as the decision sees it; times are monotonic seconds."""

    instance: str
    phase: Phase
    since: float  # when the phase began
    sign: Sign
    active: int = 0
    outdated: bool = False  # it is to be replaced, when it is its turn


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do; `instance` is empty for a start."""

    kind: Literal["start", "stop", "kill", "condemn", "pardon", "live"]
    instance: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The supervisor's patience."""

    start_s: float = 30.0
    grace_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before the next start, from the ends in a row."""

    failures: int = 0
    not_before: float = 0.0
    of_steps: int = 0  # deaths in a row that cost no wait

    def failed(self, now: float, *, of_a_step: bool = False) -> "Backoff":
        """After a process that ended by itself; `of_a_step`: it served, and had steps when it died.

        What kills it then is among its steps, which are given up after a few deaths: others that
        wait for it are not to wait longer for that. Where it goes on, it is an end like any other.
        """
        if of_a_step and self.of_steps < FREE_DEATHS:
            return replace(self, of_steps=self.of_steps + 1)
        delay = min(BACKOFF_S * 2 ** min(self.failures, 10), LONGEST_BACKOFF_S)
        return replace(self, failures=self.failures + 1, not_before=now + delay)

    @property
    def looping(self) -> bool:
        """Whether it ends again and again soon after its start."""
        return self.failures >= LOOPING


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, and when to look again at the latest (None: only when something happens)."""

    actions: tuple[Action, ...]
    look_again_at: float | None


def plan(
    members: Sequence[Member], wanted: int, backoff: Backoff, limits: Limits, now: float
) -> Plan:
    """Decide what brings the processes of one worker to the wanted number.

    Those that are outdated are replaced one after the other: the next when all others are live. So
    where a new one does not start, the others go on.
    """
    actions = [action for one in members if (action := _judge(one, limits, now)) is not None]
    phases = {one.instance: one.phase for one in members}
    phases.update({action.instance: _AFTER[action.kind] for action in actions})
    serving = [one for one in members if phases[one.instance] in {Phase.STARTING, Phase.LIVE}]
    missing = wanted - len(serving)
    if missing > 0 and now >= backoff.not_before:
        actions += [Action("start")] * missing
    for one in sorted(serving, key=_dispensable)[: max(0, -missing)]:
        actions.append(Action("stop", one.instance, "scaled down"))
    if missing == 0 and all(phases[one.instance] is Phase.LIVE for one in serving):
        actions += [Action("stop", one.instance, RESTARTED) for one in serving if one.outdated][:1]
    times = [time for one in members if (time := _deadline(one, limits)) > now]
    if missing > 0 and now < backoff.not_before:
        times.append(backoff.not_before)
    return Plan(tuple(actions), min(times) if times else None)


def _judge(one: Member, limits: Limits, now: float) -> Action | None:
    """What a single process calls for."""
    if one.phase is Phase.LIVE:
        return Action("condemn", one.instance, _LOST[one.sign]) if one.sign in _LOST else None
    if one.sign is Sign.BEATING and one.phase in _WELCOME:
        return Action(_WELCOME[one.phase], one.instance)
    if now >= _deadline(one, limits):
        return Action("kill", one.instance, _LATE[one.phase])
    return None


def _deadline(one: Member, limits: Limits) -> float:
    match one.phase:
        case Phase.STARTING:
            return one.since + limits.start_s
        case Phase.CONDEMNED:
            return one.since + CONDEMNED_S
        case Phase.STOPPING:
            return one.since + limits.grace_s + KILL_AFTER_S
        case Phase.LIVE:
            return 0.0


def _dispensable(one: Member) -> tuple[bool, bool, int, float]:
    """Those that do not serve go first, then the outdated, the least busy, the youngest."""
    return one.phase is Phase.LIVE, not one.outdated, one.active, -one.since


_AFTER = {
    "live": Phase.LIVE,
    "pardon": Phase.LIVE,
    "condemn": Phase.CONDEMNED,
    "kill": Phase.STOPPING,
    "stop": Phase.STOPPING,
}
_WELCOME: dict[Phase, Literal["live", "pardon"]] = {
    Phase.STARTING: "live",
    Phase.CONDEMNED: "pardon",
}
_LATE = {
    Phase.STARTING: "it did not register in time",
    Phase.CONDEMNED: "it did not come back",
    Phase.STOPPING: "it did not end in time",
}
_LOST = {
    Sign.LOST: "it does not answer",
    Sign.SUSPENDED: "it is suspended by a signal",
    Sign.UNSEEN: "it left the platform",
}
