"""What replicas know of each other, and when one counts as dead. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from hivemesh_sdk.contracts.tickets import SKEW_S
from hivemesh_sdk.errors import ConfigurationError, ConflictError

BEAT_S = 1.0  # between two heartbeats, and between two looks at those of the others
IN_A_ROW = 2  # heartbeats
SILENT_BEATS = 6  # looks in a row that saw no new heartbeat: it is declared dead


class ReplicaState(StrEnum):
    """The life of a replica."""

    LIVE = "live"
    DEAD = "dead"  # declared so by another one
    LEFT = "left"  # ended in order


class StaleReplicaError(ConflictError):
    """This replica was declared dead: what it holds has gone to others, and its commits do not count."""

    slug = "stale-replica"


class ReplicaIdInUseError(ConflictError):
    """Another process runs under this replica's id."""

    slug = "replica-id-in-use"


class ReplicaKeysDifferError(ConfigurationError):
    """The other replicas use other keys."""

    slug = "replica-keys-differ"


@dataclass(frozen=True, slots=True)
class Urls:
    """Where a replica's listeners are reached; empty before they listen."""

    mesh: str = ""
    enrolment: str = ""
    people: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """One row of the replicas' table."""

    id: str
    epoch: int
    state: ReplicaState
    beats: int
    settled: bool
    folder: str
    shared: str
    urls: Urls
    version: str
    started_at: int
    seen_at: int

    @property
    def is_live(self) -> bool:
        """Whether it has joined, and nobody has declared it dead."""
        return self.state is ReplicaState.LIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class Leadership:
    """Who leads in something that one replica alone does."""

    name: str
    holder: str
    holder_epoch: int
    epoch: int
    since: int


@dataclass(frozen=True, slots=True)
class _Seen:
    epoch: int
    beats: int
    silent: int  # looks in a row without a new heartbeat


class Watch:
    """Counts for how many looks each of the others was silent.

    Only looks count that came through to the database, and each counts once however long it took:
    a database that was away, a clock that jumped and an observer that was stopped kill nobody.
    """

    def __init__(self, own: str) -> None:
        self._own = own
        self._seen: dict[str, _Seen] = {}

    def look(self, replicas: Iterable[Replica]) -> list[Replica]:
        """Take a look; returns those that are to be declared dead."""
        seen, silent = dict[str, _Seen](), list[Replica]()
        for one in replicas:
            if not one.is_live or one.id == self._own:
                continue
            before = self._seen.get(one.id)
            same = before is not None and (before.epoch, before.beats) == (one.epoch, one.beats)
            looks = before.silent + 1 if before is not None and same else 0
            seen[one.id] = _Seen(one.epoch, one.beats, looks)
            if looks >= SILENT_BEATS:
                silent.append(one)
        self._seen = seen
        return silent


class Clocks:
    """Finds whose clock is off ours, by the time in heartbeats that are new.

    Two in a row have to say so: where we were stopped, one is older than it looks.
    """

    def __init__(self, own: str) -> None:
        self._own = own
        self._beats: dict[str, tuple[int, int]] = {}
        self._off: dict[str, int] = {}  # new heartbeats in a row

    def look(self, replicas: Iterable[Replica], now: int) -> dict[str, float]:
        """Take a look; returns by how many seconds each is ahead that was found to be off."""
        before, self._beats = self._beats, {}
        found: dict[str, float] = {}
        for one in replicas:
            if not one.is_live or one.id == self._own:
                continue
            self._beats[one.id] = beats = (one.epoch, one.beats)
            if before.get(one.id, beats) == beats:
                continue
            ahead_s = (one.seen_at - now) / 1000
            self._off[one.id] = self._off.get(one.id, 0) + 1 if abs(ahead_s) > SKEW_S else 0
            if self._off[one.id] == IN_A_ROW:
                found[one.id] = ahead_s
        return found


def is_vacant(leadership: Leadership | None, replicas: Mapping[str, Replica]) -> bool:
    """Whether nobody leads: there never was anybody, or he is gone or was declared dead since."""
    if leadership is None:
        return True
    holder = replicas.get(leadership.holder)
    return holder is None or not holder.is_live or holder.epoch != leadership.holder_epoch
