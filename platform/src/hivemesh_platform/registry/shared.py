"""The directory of several platform processes: what one hears, all know within a second.

Each keeps all instances in memory, as one alone does. Heartbeats that came here are written
together, twice a second; those that came to others are read in the same turn. A lease runs by the
clock of whoever reads it, from the moment at which a new heartbeat was seen: clocks need not agree.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import structlog
from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.instances import Heartbeat

from hivemesh_platform.registry import store
from hivemesh_platform.registry.embedded import EmbeddedDirectory
from hivemesh_platform.registry.model import Instance, InstanceUnknownError
from hivemesh_platform.registry.store import StoredInstance, StoredLoad
from hivemesh_platform.storage.database import Database
from hivemesh_platform.storage.errors import PASSING
from hivemesh_platform.storage.transaction import Transaction

EXCHANGE_S = 0.5
BLIND_AFTER_S = 1.0  # without an exchange
_log = structlog.get_logger("hivemesh.registry")

Hear = Callable[[str, int, str], None]  # identity, sequence of its bundle, id of its issuer


class SharedDirectory(EmbeddedDirectory):
    """Implements `InstanceDirectory` on a database that several processes use."""

    def __init__(self, clock: Clock, database: Database) -> None:
        super().__init__(clock, database)
        self._shared = database
        self._beats: dict[str, int] = {}  # by instance, as they were read or written last
        self._unwritten: dict[str, StoredLoad] = {}
        self._own: dict[str, int] = {}  # turns in which an instance was put or removed here
        self._turn = 0
        self._hear: Hear = lambda _identity, _sequence, _issuer: None
        self._away = False
        self._exchanged_at = clock.monotonic()

    def now(self) -> float:
        """The time at which leases are judged: not later than what is known of heartbeats.

        Who was stopped, or had no database for a while, does not know who is silent.
        """
        return min(self._clock.monotonic(), self._exchanged_at + BLIND_AFTER_S)

    def on_beat(self, hear: Hear) -> None:
        """Tell `hear` what the heartbeats at other replicas say of bundles and issuers."""
        self._hear = hear

    async def load(self) -> None:
        """Take over what is known; each instance is chosen once it beats again."""
        await super().load()
        self._beats = dict(await self._shared.read(store.beats))

    async def put(self, instance: Instance) -> None:
        """Add an instance or replace the one with its id."""
        await super().put(instance)
        self._own[instance.id] = self._turn

    async def beat(
        self,
        instance_id: str,
        heartbeat: Heartbeat,
        expires_at: datetime | None = None,
        clock_off: str = "",
    ) -> Instance:
        """Renew the lease; one that registered at another replica is looked up.

        Raises:
            InstanceUnknownError: it is nowhere, or is another incarnation.
        """
        try:
            instance = await super().beat(instance_id, heartbeat, expires_at, clock_off)
        except InstanceUnknownError:
            found = await self._shared.read(lambda tx: store.find(tx, [instance_id]))
            if not found:
                raise
            self._take(found[0])
            instance = await super().beat(instance_id, heartbeat, expires_at, clock_off)
        self._unwritten[instance_id] = StoredLoad(
            heartbeat=heartbeat,
            expires_at=instance.certificate_expires_at,
            clock_off=clock_off,
        )
        return instance

    async def find(self, instance_id: str) -> Instance | None:
        """One instance, also one that registered at another replica a moment ago."""
        if self.get(instance_id) is None:
            for stored in await self._shared.read(lambda tx: store.find(tx, [instance_id])):
                self._take(stored)
        return self.get(instance_id)

    async def remove(self, instance_id: str) -> None:
        """Forget an instance; no error where it is not there."""
        self._own[instance_id] = self._turn
        self._unwritten.pop(instance_id, None)
        await super().remove(instance_id)

    async def exchange(self) -> None:
        """Write the heartbeats that came here and read those that came to others."""
        self._turn += 1
        turn, unwritten = self._turn, self._unwritten
        self._unwritten = {}
        try:
            if unwritten:
                await self._shared.write(lambda tx: store.write_beats(tx, unwritten))
            read = await self._shared.read(lambda tx: self._read(tx, set(unwritten)))
        except PASSING:
            self._unwritten = {**unwritten, **self._unwritten}
            raise
        self._exchanged_at = self._clock.monotonic()
        changed, gone, self._beats = read
        for stored in changed:
            if self._own.get(stored.instance.id, -1) < turn - 1:
                self._take(stored)
        for instance_id in gone:
            if self._own.get(instance_id, -1) < turn - 1:
                self._drop(instance_id)
        self.expire()
        self._own = {key: when for key, when in self._own.items() if when >= turn - 1}

    async def keep_exchanging(self) -> None:
        """Exchange twice a second until cancelled; a database that is away is waited for."""
        while True:
            await asyncio.sleep(EXCHANGE_S)
            try:
                await self.exchange()
            except PASSING as error:
                if not self._away:
                    _log.warning("directory_not_exchanged", detail=error.detail)
                self._away = True
            else:
                self._away = False

    def _read(
        self, tx: Transaction, written: set[str]
    ) -> tuple[list[StoredInstance], list[str], dict[str, int]]:
        """What others have written, what has gone, and the beats that this was found by.

        A read may be repeated, so nothing of this object changes here.
        """
        present = dict(store.beats(tx))
        fresh = [
            name
            for name, beats in present.items()
            if name not in written and self._beats.get(name) != beats
        ]
        gone = [name for name in self._beats if name not in present]
        return store.find(tx, fresh), gone, present

    def _take(self, stored: StoredInstance) -> None:
        """Take over what another replica has written of an instance."""
        known, load = self.get(stored.instance.id), stored.load
        now = self._clock.monotonic()
        instance = stored.instance
        if known is not None and known.incarnation == instance.incarnation:
            instance = replace(known, clock_off=instance.clock_off)
        if load is None or load.heartbeat.incarnation not in {"", instance.incarnation}:
            self._replace(instance.seen_at(now))
            return
        self._replace(instance.beaten(load.heartbeat, now, load.expires_at, load.clock_off))
        self._hear(instance.identity, load.heartbeat.bundle_sequence, load.heartbeat.issuer)
