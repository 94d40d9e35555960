"""This replica among the others: joins, beats, looks at the others, leads where nobody else does.

Who is dead is decided by heartbeats that others count, not by times: see `model.Watch`. Whoever
declares a replica dead takes over its rows in the same transaction; `gone` hands out whose turn
it is, and execution does the taking.
"""

import asyncio
import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from hivemesh_sdk.clock import Clock
from hivemesh_sdk.trust.keys import write_private_file

from hivemesh_platform.replicas import store
from hivemesh_platform.replicas.model import (
    BEAT_S,
    SILENT_BEATS,
    Clocks,
    Leadership,
    Replica,
    ReplicaIdInUseError,
    ReplicaKeysDifferError,
    Urls,
    Watch,
    is_vacant,
)
from hivemesh_platform.replicas.standing import Standing
from hivemesh_platform.storage.database import Database
from hivemesh_platform.storage.errors import PASSING, DatabaseUnreachableError
from hivemesh_platform.storage.transaction import Transaction

FOLDER_FILE = "folder.id"
KEPT_MS = 24 * 3600 * 1000  # people still see a replica that is gone
LEAD_FOR_S = 4.0  # without a heartbeat that came through; less than it takes to be declared dead
AWAY_S = 0.2  # between two looks at a replica of the same id that may still beat

_log = structlog.get_logger("hivemesh.replicas")


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """What this replica says of itself."""

    id: str
    folder: str  # id of its state folder
    shared: str  # id of the folder with the keys
    version: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All replicas and leaders, as a heartbeat found them."""

    replicas: Mapping[str, Replica] = field(default_factory=dict)
    leaders: Mapping[str, Leadership] = field(default_factory=dict)
    fenced: bool = False


class Replicas:
    """The replicas of one installation, seen from one of them.

    `alone`: the database is a file, so there is no other one and nothing to beat for.
    """

    def __init__(
        self,
        database: Database,
        own: Own,
        clock: Clock,
        *,
        alone: bool,
        singletons: Sequence[str] = (),
    ) -> None:
        self.own = own
        self.alone = alone
        self.standing = Standing(own.id)
        self._database = database
        self._clock = clock
        self._singletons = tuple(singletons)
        self._watch = Watch(own.id)
        self._clocks = Clocks(own.id)
        self._snapshot = Snapshot()
        self._urls = Urls()
        self._confirmed = float("-inf")  # monotonic: when the last good heartbeat was sent
        self._gone: dict[str, Replica] = {}
        self._changed = asyncio.Event()
        self._away = False
        self.rejoined = asyncio.Event()  # what was held before has gone to others

    async def join(self) -> None:
        """Become one of the replicas, with an epoch that nobody has had before.

        Raises:
            ReplicaIdInUseError: a process on another state folder lives under this id.
            ReplicaKeysDifferError: the others use the keys of another folder.
        """
        before = await self._database.read(store.all_replicas)
        self._check_keys(before)
        await self._check_free(before)
        asked = self._clock.monotonic()
        self.standing.epoch = await self._database.write(self._join)
        self._confirmed = asked
        _log.info("replica_joined", replica=self.own.id, epoch=self.standing.epoch)
        await self.tick()

    async def announce(self, urls: Urls) -> None:
        """Tell the others, and through them the workers, where this replica is reached."""
        self._urls = urls
        await self._database.write(
            lambda tx: store.announce(tx, self.own.id, self.standing.epoch, urls)
        )
        await self.tick()

    async def leave(self) -> None:
        """End in order: what this replica holds may go to others at once."""
        now, epoch = self._now(), self.standing.epoch
        try:
            await self._database.write(lambda tx: store.leave(tx, self.own.id, epoch, now))
        except PASSING as error:
            _log.warning("not_signed_off", detail=error.detail, others="declare it dead instead")

    async def run(self) -> None:
        """Beat and look until cancelled; a database that is away is waited for."""
        while True:
            await asyncio.sleep(BEAT_S)
            if self.alone:
                continue
            try:
                await self.tick()
            except PASSING as error:
                if not self._away:
                    _log.warning("heartbeat_failed", detail=error.detail)
                self._away = True
            else:
                self._away = False

    async def tick(self) -> None:
        """Beat once, look at the others, and lead where nobody does."""
        asked = self._clock.monotonic()  # the others count from the beat, not from its answer
        found = await self._database.write(self._beat)
        if found.fenced:
            await self._join_again()
            return
        self._confirmed = asked
        self._snapshot = found
        self._tell_clocks(found.replicas.values())
        silent = self._watch.look(found.replicas.values())
        gone = [one for one in found.replicas.values() if not one.is_live and not one.settled]
        self._gone = {one.id: one for one in (*gone, *silent) if one.id != self.own.id}
        if self._gone:
            self._changed.set()

    def _tell_clocks(self, replicas: Iterable[Replica]) -> None:
        """Log once whose clock is off: workers refuse the tickets of one of us."""
        for replica, ahead_s in self._clocks.look(replicas, self._now()).items():
            where = "ahead of" if ahead_s > 0 else "behind"
            detail = f"its clock is {abs(ahead_s):.0f} s {where} ours"
            _log.warning("replica_clock_off", replica=replica, detail=detail)

    async def gone(self) -> list[Replica]:
        """Wait for replicas whose work somebody has to take over: silent, dead, or left."""
        while not self._gone:
            self._changed.clear()
            await self._changed.wait()
        gone, self._gone = list(self._gone.values()), {}
        return gone

    async def cut_off(self, gone: Replica) -> None:
        """Take the locks away from a replica that is silent."""
        if gone.is_live:
            await self._database.write(lambda tx: store.cut_off(tx, gone.id))

    def fence(self, tx: Transaction, gone: Replica) -> bool:
        """Make sure that a replica commits nothing more; False where it turned out to be alive."""
        if gone.is_live:
            return store.declare_dead(tx, gone)
        present = store.get(tx, gone.id)
        return present is not None and present.epoch == gone.epoch

    def settle(self, tx: Transaction, gone: Replica) -> None:
        """Everything of a replica that was fenced goes on elsewhere."""
        present = store.get(tx, gone.id)
        if present is not None and not present.is_live and present.epoch - gone.epoch in {0, 1}:
            store.settle(tx, present)

    def leads(self, name: str) -> bool:
        """Whether this replica does what one alone does; a process that was stopped does not."""
        if self.alone:
            return True
        if self._clock.monotonic() - self._confirmed > LEAD_FOR_S:
            return False
        found = self._snapshot.leaders.get(name)
        mine = (self.own.id, self.standing.epoch)
        return found is not None and (found.holder, found.holder_epoch) == mine

    @property
    def others(self) -> list[Replica]:
        """The other replicas that live."""
        return [
            one for one in self._snapshot.replicas.values() if one.is_live and one.id != self.own.id
        ]

    def urls(self) -> list[Urls]:
        """Where the listeners of the replicas that live are reached, this one's first."""
        return [self._urls, *(one.urls for one in self.others)]

    def told(self) -> list[Urls]:
        """What heartbeats of workers are answered; who has no database sends them to the others.

        Raises:
            DatabaseUnreachableError: others may reach it, and need the workers.
        """
        if self.alone:
            return []
        if self.others and self._clock.monotonic() - self._confirmed > LEAD_FOR_S:
            message = "this replica does not reach the database; ask another one"
            raise DatabaseUnreachableError(message)
        return self.urls()

    async def present(self) -> Snapshot:
        """All replicas and leaders at this moment."""
        return await self._database.read(_snapshot)

    def _join(self, tx: Transaction) -> int:
        now = self._now()
        store.forget_before(tx, now - KEPT_MS)
        own = self.own
        epoch = store.join(
            tx, own.id, folder=own.folder, shared=own.shared, version=own.version, now=now
        )
        store.announce(tx, own.id, epoch, self._urls)
        return epoch

    async def _join_again(self) -> None:
        _log.error("replica_was_declared_dead", replica=self.own.id, epoch=self.standing.epoch)
        self.standing.refused += 1
        asked = self._clock.monotonic()
        self.standing.epoch = await self._database.write(self._join)
        self._watch = Watch(self.own.id)
        self._confirmed = asked
        self.rejoined.set()
        _log.warning("replica_joined_again", replica=self.own.id, epoch=self.standing.epoch)

    def _beat(self, tx: Transaction) -> Snapshot:
        own, epoch, now = self.own.id, self.standing.epoch, self._now()
        if not store.beat(tx, own, epoch, now):
            return Snapshot(fenced=True)
        found = _snapshot(tx)
        vacant = [
            (name, found.leaders.get(name))
            for name in self._singletons
            if is_vacant(found.leaders.get(name), found.replicas)
        ]
        for name, before in vacant:
            store.lead(tx, name, (own, epoch), 0 if before is None else before.epoch, now)
        return _snapshot(tx) if vacant else found

    def _check_keys(self, replicas: Sequence[Replica]) -> None:
        for one in replicas:
            if one.id != self.own.id and one.shared != self.own.shared:
                message = (
                    f"replica {one.id!r} keeps its keys in another folder; mount the same folder "
                    "everywhere and set replica.shared_folder to it"
                )
                raise ReplicaKeysDifferError(message)

    async def _check_free(self, replicas: Sequence[Replica]) -> None:
        """Refuse an id whose heartbeats another process writes; who is gone is not waited for."""
        same = next((one for one in replicas if one.id == self.own.id), None)
        if same is None or not same.is_live or same.folder == self.own.folder:
            return  # the lock of a state folder says that the process before is gone
        until = self._clock.monotonic() + SILENT_BEATS * BEAT_S
        while self._clock.monotonic() < until:
            await asyncio.sleep(AWAY_S)
            now = await self._database.read(lambda tx: store.get(tx, self.own.id))
            if now is None or not now.is_live:
                return
            if (now.epoch, now.beats) != (same.epoch, same.beats):
                message = f"another process runs as replica {self.own.id!r}; set replica.id"
                raise ReplicaIdInUseError(message)

    def _now(self) -> int:
        return round(self._clock.now().timestamp() * 1000)


def folder_id(folder: Path) -> str:
    """Return the id of a folder; made where it has none yet, once whoever comes first."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / FOLDER_FILE
    if not path.exists():
        made = path.with_name(f"{FOLDER_FILE}.{secrets.token_hex(4)}")
        write_private_file(made, secrets.token_hex(16).encode())
        with suppress(FileExistsError):
            path.hardlink_to(made)
        made.unlink()
    return path.read_text().strip()


def _snapshot(tx: Transaction) -> Snapshot:
    return Snapshot(
        {one.id: one for one in store.all_replicas(tx)},
        {one.name: one for one in store.leaders(tx)},
    )
