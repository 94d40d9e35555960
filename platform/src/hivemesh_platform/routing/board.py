"""Keeps the live instances in the order of their load, so that a choice looks at few of them.

Holds state, does no I/O. Each kind of requirement has a pool: those with a free slot and those
without one, each in order.
"""

from bisect import bisect_left, insort
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain, islice

from hivemesh_platform.routing.model import (
    Candidate,
    Decision,
    Features,
    Load,
    Requirements,
    Weights,
    load_score,
    unmet,
    why_none,
)

MAX_POOLS = 256
LISTED = 20  # candidates that a decision keeps; the rest are counted
_Row = tuple[float, float, float, int, int, str]  # score, cpu, memory, active, free, ejected
_Unfit = tuple[str, _Row]  # what it does not meet, and its load of the last heartbeat
_Entry = tuple[float, int, str]  # score, last chosen, instance


@dataclass(slots=True)
class Seat:
    """One live instance and what we have given it.

    Its own report of active steps is up to a heartbeat old, so it counts for the load alone;
    which slots are free follows from our own choices, and the worker's 429 is the last word.
    """

    instance: str
    features: Features
    slots: Mapping[str, int]
    cpu: float
    memory: float
    reported: int = 0  # active steps, as the instance says
    refused: set[str] = field(default_factory=set)  # capabilities it answered 429 for
    in_flight: dict[str, int] = field(default_factory=dict)
    last_chosen: int = 0
    allowed: dict[str, int] = field(default_factory=dict)  # of an ejected one: 0, or 1 as a probe

    def free(self, capability: str) -> int:
        """Slots of a capability that can be given."""
        slots = self.allowed.get(capability)
        if slots is None:
            return self.unlimited(capability)
        return min(slots - self.in_flight.get(capability, 0), self.unlimited(capability))

    def unlimited(self, capability: str) -> int:
        """Free slots, whether the instance is ejected or not."""
        if capability in self.refused:
            return 0
        return self.slots.get(capability, 0) - self.in_flight.get(capability, 0)

    def ejected(self, capability: str) -> str:
        """How its circuit stands, or "" where it is closed."""
        slots = self.allowed.get(capability)
        return "" if slots is None else "half-open" if slots else "open"

    def load(self) -> Load:
        """The load with our own steps of this moment."""
        active = max(self.reported, sum(self.in_flight.values()))
        return Load(self.cpu, self.memory, active)


class _Pool:
    """The seats that meet one kind of requirement, lowest score first."""

    def __init__(self, wanted: Requirements, weights: Weights) -> None:
        self._capability = wanted.capability
        self._weights = weights
        self._ready: list[_Entry] = []  # with a free slot
        self._busy: list[_Entry] = []
        self._entries: dict[str, tuple[bool, _Entry]] = {}
        self.rows: dict[str, _Row] = {}
        self.unfit: dict[str, _Unfit] = {}  # that serve the capability

    def __contains__(self, instance: str) -> bool:
        return instance in self.rows

    def put(self, seat: Seat) -> None:
        row = self._row(seat)
        free = row[4]
        self.rows[seat.instance] = row
        entry = (row[0], seat.last_chosen, seat.instance)
        self._remove(seat.instance)
        self.unfit.pop(seat.instance, None)
        self._entries[seat.instance] = free > 0, entry
        insort(self._ready if free > 0 else self._busy, entry)

    def put_unfit(self, seat: Seat, misses: str) -> None:
        self.drop(seat.instance)
        if misses != self._capability:
            self.unfit[seat.instance] = misses, self._row(seat)

    def drop(self, instance: str) -> None:
        self._remove(instance)
        self.rows.pop(instance, None)
        self.unfit.pop(instance, None)

    def best(self, avoid: frozenset[str] = frozenset()) -> str | None:
        ready = (instance for _, _, instance in self._ready if instance not in avoid)
        return next(ready, self._ready[0][2] if self._ready else None)

    def best_of_ejected(self, seats: Mapping[str, Seat]) -> str | None:
        """The best one where all that fit are ejected: then none of them is."""
        if not all(row[5] for row in self.rows.values()):
            return None
        free = (one for *_, one in self._busy if seats[one].unlimited(self._capability) > 0)
        return next(free, None)

    def top(self) -> tuple[tuple[str, _Row], ...]:
        """The first ones as they stand."""
        first = islice(chain(self._ready, self._busy), LISTED)
        return tuple([(instance, self.rows[instance]) for _, _, instance in first])

    def _row(self, seat: Seat) -> _Row:
        return _row(seat, self._capability, self._weights)

    def _remove(self, instance: str) -> None:
        found = self._entries.pop(instance, None)
        if found is not None:
            ready, entry = found
            entries = self._ready if ready else self._busy
            del entries[bisect_left(entries, entry)]


@dataclass(frozen=True, slots=True)
class _Kept:
    """A decision as it is kept, turned into candidates when asked for."""

    chosen: str | None
    reason: str
    rows: tuple[tuple[str, _Row], ...]
    fitting: int
    unfit: tuple[tuple[str, _Unfit], ...]
    unfitting: int

    def decision(self) -> Decision:
        return Decision(
            chosen=self.chosen,
            reason=self.reason,
            candidates=(
                *(_candidate(name, row) for name, row in self.rows),
                *(_candidate(name, row, misses) for name, (misses, row) in self.unfit),
            ),
            not_listed=self.fitting + self.unfitting - len(self.rows) - len(self.unfit),
        )


class Board:
    """All live instances; chooses, counts what is in flight, and remembers its decisions."""

    def __init__(self, weights: Weights, *, kept: int = 2000) -> None:
        self._weights = weights
        self._seats: dict[str, Seat] = {}
        self._pools: OrderedDict[Requirements, _Pool] = OrderedDict()
        self._decisions: OrderedDict[int, _Kept] = OrderedDict()
        self._kept = kept
        self._number = 0
        self._free: Counter[str] = Counter()  # slots, by capability
        self._serving: Counter[str] = Counter()  # instances, by capability
        self._given: dict[str, dict[str, int]] = {}  # what each seat adds to `_free`

    def put(self, seat: Seat) -> None:
        """Add an instance, or take over its new load; what is in flight stays counted."""
        known = self._seats.get(seat.instance)
        if known is not None:
            seat.in_flight, seat.last_chosen = known.in_flight, known.last_chosen
        self._seats[seat.instance] = seat
        self._count_free(seat.instance)
        for wanted, pool in self._pools.items():
            _put(pool, seat, wanted)

    def drop(self, instance: str) -> None:
        """Forget an instance that is not live any more."""
        if self._seats.pop(instance, None) is not None:
            self._count_free(instance)
            for pool in self._pools.values():
                pool.drop(instance)

    def choose(self, wanted: Requirements, avoid: frozenset[str] = frozenset()) -> int:
        """Decide and count the step as in flight; returns the number of the decision.

        An instance in `avoid` is chosen only where no other has a free slot.
        """
        pool = self._pool(wanted)
        rows, fitting = pool.top(), len(pool.rows)
        unfit = tuple(islice(pool.unfit.items(), LISTED)) if pool.unfit else ()
        best, reason = pool.best(avoid), ""
        if best is None:
            best = pool.best_of_ejected(self._seats)
            reason = "all that fit are ejected, so the lowest load score among them"
        if best is None:
            why = self._why_none(wanted, fitting)
            return self._keep(_Kept(None, why, rows, fitting, unfit, len(pool.unfit)))
        reason = reason or _reason(fitting, best, avoid, pool.rows[best])
        seat = self._seats[best]
        self._number += 1
        seat.last_chosen = self._number
        self._count(seat, wanted.capability, 1)
        return self._keep(_Kept(best, reason, rows, fitting, unfit, len(pool.unfit)))

    def busy(self, instance: str) -> bool:
        """Whether steps that were placed at the instance have not ended."""
        seat = self._seats.get(instance)
        return seat is not None and any(seat.in_flight.values())

    def release(self, instance: str, capability: str) -> None:
        """A step that was chosen for has ended."""
        seat = self._seats.get(instance)
        if seat is not None and seat.in_flight.get(capability, 0) > 0:
            self._count(seat, capability, -1)

    def decision(self, number: int) -> Decision | None:
        """A decision that is still kept."""
        kept = self._decisions.get(number)
        return kept.decision() if kept is not None else None

    def chosen(self, number: int) -> str | None:
        """The instance of a decision, without building its explanation."""
        kept = self._decisions.get(number)
        return kept.chosen if kept is not None else None

    def reason(self, number: int) -> str:
        """The reason of a decision."""
        kept = self._decisions.get(number)
        return kept.reason if kept is not None else ""

    def survey(self, wanted: Requirements) -> tuple[str, list[Candidate]]:
        """Why no instance could be chosen ("" where one could), and all that serve the capability."""
        capability = wanted.capability
        found = [
            _candidate(
                seat.instance, _row(seat, capability, self._weights), unmet(seat.features, wanted)
            )
            for seat in self._seats.values()
            if capability in seat.features.capabilities
        ]
        fitting = [one for one in found if not one.misses]
        if not fitting:
            return self._why_none(wanted, 0), found
        takes = any(one.free for one in fitting)
        if not takes and all(one.ejected for one in fitting):
            takes = any(self._seats[one.instance].unlimited(capability) > 0 for one in fitting)
        return "" if takes else self._why_none(wanted, len(fitting)), found

    def absent(self, wanted: Requirements) -> str:
        """Why no live instance fits, or "" where some do, even if they are busy."""
        pool = self._pool(wanted)
        return "" if pool.rows else self._why_none(wanted, 0)

    def free(self, capability: str) -> int:
        """Free slots of a capability over all live instances."""
        return self._free[capability]

    def free_slots(self) -> dict[str, int]:
        """Free slots of every capability that has a live instance."""
        return dict(self._free)

    def allow(self, instance: str, capability: str, slots: int | None) -> None:
        """Eject an instance (0), try it (1), or give it all its slots again (None)."""
        seat = self._seats.get(instance)
        if seat is None:
            return
        if slots is None:
            seat.allowed.pop(capability, None)
        else:
            seat.allowed[capability] = slots
        self._count(seat, capability, 0)

    def seat(self, instance: str) -> Seat | None:
        """A live instance."""
        return self._seats.get(instance)

    def instances(self) -> frozenset[str]:
        """The live instances."""
        return frozenset(self._seats)

    def saturate(self, instance: str, capability: str) -> None:
        """The instance has no free slot after all; holds until it tells its load again."""
        seat = self._seats.get(instance)
        if seat is not None:
            seat.refused.add(capability)
            self._count(seat, capability, 0)

    def _count(self, seat: Seat, capability: str, change: int) -> None:
        seat.in_flight[capability] = seat.in_flight.get(capability, 0) + change
        self._count_free(seat.instance)
        for pool in self._pools.values():
            if seat.instance in pool:
                pool.put(seat)

    def _count_free(self, instance: str) -> None:
        """Keep the free slots of all instances up to date with those of one."""
        for capability, slots in self._given.pop(instance, {}).items():
            self._free[capability] -= slots
            self._serving[capability] -= 1
            if not self._serving[capability]:
                del self._free[capability], self._serving[capability]
        seat = self._seats.get(instance)
        if seat is None:
            return
        given = {name: max(0, seat.free(name)) for name in seat.features.capabilities}
        self._given[instance] = given
        for capability, slots in given.items():
            self._free[capability] += slots
            self._serving[capability] += 1

    def _pool(self, wanted: Requirements) -> _Pool:
        pool = self._pools.get(wanted)
        if pool is None:
            pool = _Pool(wanted, self._weights)
            for seat in self._seats.values():
                _put(pool, seat, wanted)
            self._pools[wanted] = pool
            if len(self._pools) > MAX_POOLS:
                self._pools.popitem(last=False)
        self._pools.move_to_end(wanted)
        return pool

    def _why_none(self, wanted: Requirements, fitting: int) -> str:
        if fitting:
            return f"all {fitting} live instances of {wanted.capability} are busy"
        return why_none([seat.features for seat in self._seats.values()], wanted)

    def _keep(self, kept: _Kept) -> int:
        self._number += 1
        self._decisions[self._number] = kept
        while len(self._decisions) > max(1, self._kept):
            self._decisions.popitem(last=False)
        return self._number


def _row(seat: Seat, capability: str, weights: Weights) -> _Row:
    load = seat.load()
    score, ejected = load_score(load, weights), seat.ejected(capability)
    return score, load.cpu, load.memory, load.active, seat.free(capability), ejected


def _candidate(instance: str, row: _Row, misses: str = "") -> Candidate:
    score, cpu, memory, active, free, ejected = row
    return Candidate(
        instance=instance,
        score=score,
        cpu=cpu,
        memory=memory,
        active=active,
        free=max(0, free),
        ejected=ejected,
        misses=misses,
    )


def _put(pool: _Pool, seat: Seat, wanted: Requirements) -> None:
    misses = unmet(seat.features, wanted)
    if misses:
        pool.put_unfit(seat, misses)
    else:
        pool.put(seat)


def _reason(candidates: int, chosen: str, avoid: frozenset[str], row: _Row) -> str:
    if candidates == 1:
        return "the only instance"
    if chosen in avoid:
        return "the only instance with a free slot"
    if row[5]:
        return "a probe: whether it is still slower or fails more than the others"
    return "lowest load score" + (" without the one that failed" if avoid else "")
