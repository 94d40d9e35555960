"""Keeps the live instances in the order of their load, so that a choice looks at one of them.

Holds state, does no I/O. Each kind of requirement has a pool: a heap whose outdated entries are
left in place and skipped.
"""

from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

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
_Row = tuple[float, float, float, int, int]  # score, cpu, memory, active, free


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

    def free(self, capability: str) -> int:
        """Slots of a capability that can be given."""
        if capability in self.refused:
            return 0
        return self.slots.get(capability, 0) - self.in_flight.get(capability, 0)

    def load(self) -> Load:
        """The load with our own steps of this moment."""
        active = max(self.reported, sum(self.in_flight.values()))
        return Load(self.cpu, self.memory, active)


class _Pool:
    """The seats that meet one kind of requirement, lowest score first."""

    def __init__(self, wanted: Requirements, weights: Weights) -> None:
        self._capability = wanted.capability
        self._weights = weights
        self._heap: list[tuple[float, int, str, int]] = []
        self._stamps: dict[str, int] = {}
        self.rows: dict[str, _Row] = {}
        self._next_stamp = 0

    def __contains__(self, instance: str) -> bool:
        return instance in self._stamps

    def put(self, seat: Seat) -> None:
        load, free = seat.load(), seat.free(self._capability)
        score = load_score(load, self._weights)
        self.rows[seat.instance] = (score, load.cpu, load.memory, load.active, free)
        self._next_stamp += 1
        self._stamps[seat.instance] = self._next_stamp
        if free > 0:
            heappush(self._heap, (score, seat.last_chosen, seat.instance, self._next_stamp))
        if len(self._heap) > 4 * len(self._stamps) + 64:
            self._heap = [entry for entry in self._heap if self._is_current(entry)]
            heapify(self._heap)

    def drop(self, instance: str) -> None:
        self._stamps.pop(instance, None)
        self.rows.pop(instance, None)

    def best(self, avoid: str = "") -> str | None:
        self._skip_outdated()
        if not self._heap:
            return None
        if self._heap[0][2] != avoid:
            return self._heap[0][2]
        avoided = heappop(self._heap)
        self._skip_outdated()
        second = self._heap[0][2] if self._heap else avoid
        heappush(self._heap, avoided)
        return second

    def _skip_outdated(self) -> None:
        while self._heap and not self._is_current(self._heap[0]):
            heappop(self._heap)

    def _is_current(self, entry: tuple[float, int, str, int]) -> bool:
        return self._stamps.get(entry[2]) == entry[3]


@dataclass(frozen=True, slots=True)
class _Kept:
    """A decision as it is kept: a copy of the pool's rows, turned into candidates when asked for."""

    chosen: str | None
    reason: str
    rows: dict[str, _Row]

    def decision(self) -> Decision:
        rows = sorted(self.rows.items(), key=lambda item: (item[1][0], item[0]))
        return Decision(
            chosen=self.chosen,
            reason=self.reason,
            candidates=tuple(
                Candidate(instance=name, score=s, cpu=c, memory=m, active=a, free=f)
                for name, (s, c, m, a, f) in rows
            ),
        )


class Board:
    """All live instances; chooses, counts what is in flight, and remembers its decisions."""

    def __init__(self, weights: Weights, *, kept: int = 2000) -> None:
        self._weights = weights
        self._seats: dict[str, Seat] = {}
        self._pools: OrderedDict[Requirements, _Pool] = OrderedDict()
        self._decisions: dict[int, _Kept] = {}
        self._order: deque[int] = deque()
        self._kept_rows = 0
        self._max_rows = kept * 16
        self._kept = kept
        self._number = 0

    def put(self, seat: Seat) -> None:
        """Add an instance, or take over its new load; what is in flight stays counted."""
        known = self._seats.get(seat.instance)
        if known is not None:
            seat.in_flight, seat.last_chosen = known.in_flight, known.last_chosen
        self._seats[seat.instance] = seat
        for wanted, pool in self._pools.items():
            if unmet(seat.features, wanted):
                pool.drop(seat.instance)
            else:
                pool.put(seat)

    def drop(self, instance: str) -> None:
        """Forget an instance that is not live any more."""
        if self._seats.pop(instance, None) is not None:
            for pool in self._pools.values():
                pool.drop(instance)

    def choose(self, wanted: Requirements, avoid: str = "") -> int:
        """Decide and count the step as in flight; returns the number of the decision.

        The instance `avoid` is chosen only where it is the only one with a free slot.
        """
        pool = self._pool(wanted)
        rows = pool.rows.copy()
        best = pool.best(avoid)
        if best is None:
            return self._keep(_Kept(None, self._why_none(wanted, pool), rows))
        seat = self._seats[best]
        self._number += 1
        seat.last_chosen = self._number
        self._count(seat, wanted.capability, 1)
        reason = _reason(len(rows), best, avoid)
        return self._keep(_Kept(best, reason, rows))

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

    def absent(self, wanted: Requirements) -> str:
        """Why no live instance fits, or "" where some do, even if they are busy."""
        pool = self._pool(wanted)
        return "" if pool.rows else self._why_none(wanted, pool)

    def free(self, capability: str) -> int:
        """Free slots of a capability over all live instances."""
        return sum(
            max(0, seat.free(capability))
            for seat in self._seats.values()
            if capability in seat.features.capabilities
        )

    def free_slots(self) -> dict[str, int]:
        """Free slots of every capability that has a live instance."""
        names = {name for seat in self._seats.values() for name in seat.features.capabilities}
        return {name: self.free(name) for name in names}

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
        for pool in self._pools.values():
            if seat.instance in pool:
                pool.put(seat)

    def _pool(self, wanted: Requirements) -> _Pool:
        pool = self._pools.get(wanted)
        if pool is None:
            pool = _Pool(wanted, self._weights)
            for seat in self._seats.values():
                if not unmet(seat.features, wanted):
                    pool.put(seat)
            self._pools[wanted] = pool
            if len(self._pools) > MAX_POOLS:
                self._pools.popitem(last=False)
        self._pools.move_to_end(wanted)
        return pool

    def _why_none(self, wanted: Requirements, pool: _Pool) -> str:
        if pool.rows:
            return f"all {len(pool.rows)} live instances of {wanted.capability} are busy"
        return why_none([seat.features for seat in self._seats.values()], wanted)

    def _keep(self, kept: _Kept) -> int:
        self._number += 1
        self._decisions[self._number] = kept
        self._order.append(self._number)
        self._kept_rows += len(kept.rows)
        while len(self._order) > 1 and (
            len(self._order) > self._kept or self._kept_rows > self._max_rows
        ):
            self._kept_rows -= len(self._decisions.pop(self._order.popleft()).rows)
        return self._number


def _reason(candidates: int, chosen: str, avoid: str) -> str:
    if candidates == 1:
        return "the only instance"
    if avoid == chosen:
        return "the only instance with a free slot"
    return "lowest load score" + (" without the one that failed" if avoid else "")
