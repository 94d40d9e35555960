"""The directory of one platform process: in memory, with a timer for leases that run out.

Who registers and leaves is also written to the database; leases and load are not, because a
heartbeat renews them.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime

from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.instances import Heartbeat

from hivemesh_platform.registry import store
from hivemesh_platform.registry.model import (
    UNHEALTHY_AFTER_S,
    Instance,
    InstanceState,
    InstanceUnknownError,
)
from hivemesh_platform.storage.database import Database

FORGET_AFTER_S = 300.0  # people still see who went away a moment ago
_MOMENT_S = 0.001


class EmbeddedDirectory:
    """Implements `InstanceDirectory`. Without a database it forgets everything at its end."""

    def __init__(self, clock: Clock, database: Database | None = None) -> None:
        self._clock = clock
        self._database = database
        self._instances: dict[str, Instance] = {}
        self._states: dict[str, InstanceState] = {}
        self._version = 0
        self._updates: dict[str, None] = {}
        self._waiters: set[asyncio.Future[None]] = set()
        self._rearm = asyncio.Event()

    async def load(self) -> None:
        """Take over the instances of the last platform; each is chosen once it beats again."""
        if self._database is None:
            return
        now = self._clock.monotonic()
        silent = now - UNHEALTHY_AFTER_S - _MOMENT_S
        for instance in await self._database.read(lambda tx: store.load(tx, silent)):
            self._add(instance)

    @property
    def version(self) -> int:
        """Number of changes so far."""
        return self._version

    def now(self) -> float:
        """The monotonic time at which leases are judged."""
        return self._clock.monotonic()

    async def put(self, instance: Instance) -> None:
        """Add an instance or replace the one with its id."""
        if self._database is not None:
            await self._database.write(lambda tx: store.save(tx, instance))
        self._add(instance)

    async def beat(
        self,
        instance_id: str,
        heartbeat: Heartbeat,
        expires_at: datetime | None = None,
        clock_off: str = "",
    ) -> Instance:
        """Renew the lease; take over load, expiry of the certificate, and by how much its clock is off.

        Raises:
            InstanceUnknownError: it is not there, or is another incarnation.
        """
        known = self._instances.get(instance_id)
        if known is None or heartbeat.incarnation not in {"", known.incarnation}:
            message = f"instance {instance_id!r} is not registered"
            raise InstanceUnknownError(message)
        instance = known.beaten(heartbeat, self._clock.monotonic(), expires_at, clock_off)
        self._replace(instance)
        return instance

    async def remove(self, instance_id: str) -> None:
        """Forget an instance; no error where it is not there."""
        if self._drop(instance_id) and self._database is not None:
            await self._database.write(lambda tx: store.delete(tx, instance_id))

    def get(self, instance_id: str) -> Instance | None:
        """One instance, whatever its state."""
        return self._instances.get(instance_id)

    async def find(self, instance_id: str) -> Instance | None:
        """One instance, also one that registered elsewhere a moment ago: there is no elsewhere."""
        return self._instances.get(instance_id)

    def all(self) -> Sequence[Instance]:
        """Every instance that has not been forgotten."""
        return tuple(self._instances.values())

    def updates(self) -> Sequence[str]:
        """Ids put, beaten or removed since the last call; there is one caller, routing."""
        ids, self._updates = tuple(self._updates), {}
        return ids

    async def changed(self, after: int, timeout_s: float) -> int:
        """Wait until `version` is above `after`, at most `timeout_s`; returns the version."""
        if self._version <= after and timeout_s > 0:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                await asyncio.wait({waiter}, timeout=timeout_s)
            finally:
                self._waiters.discard(waiter)
        return self._version

    def expire(self) -> None:
        """Notice the instances whose state silence has changed."""
        now = self.now()
        changed = False
        for key, instance in self._instances.items():
            state = instance.state(now)
            if state is not self._states[key]:
                changed = True
                self._states[key] = state
                self._updates[key] = None
        if changed:
            self._bump()

    async def watch(self) -> None:
        """Call `expire` whenever a lease runs out; runs until it is cancelled."""
        while True:
            self._rearm.clear()
            try:
                async with asyncio.timeout(self._next_change()):
                    await self._rearm.wait()
            except TimeoutError:
                self.expire()
                await self._forget_old()

    async def _forget_old(self) -> None:
        now = self.now()
        for instance in self.all():
            if now - instance.heartbeat_at > FORGET_AFTER_S:
                await self.remove(instance.id)

    def _add(self, instance: Instance) -> None:
        self._instances[instance.id] = instance
        self._updates[instance.id] = None
        self._states[instance.id] = instance.state(self.now())
        self._bump()

    def _replace(self, instance: Instance) -> None:
        """Take over a newer form of an instance; one that is not known is added."""
        known = self._instances.get(instance.id)
        if known is None or known.incarnation != instance.incarnation:
            self._add(instance)
            return
        self._instances[instance.id] = instance
        self._updates[instance.id] = None
        state = instance.state(self.now())
        if state is not self._states[instance.id] or instance.slots != known.slots:
            self._states[instance.id] = state
            self._bump()

    def _drop(self, instance_id: str) -> bool:
        """Forget an instance; False where it is not there."""
        if self._instances.pop(instance_id, None) is None:
            return False
        del self._states[instance_id]
        self._updates[instance_id] = None
        self._bump()
        return True

    def _next_change(self) -> float | None:
        now = self._clock.monotonic()
        times = [
            time - now
            for instance in self._instances.values()
            for time in (*instance.changes_at(), instance.heartbeat_at + FORGET_AFTER_S)
            if time >= now
        ]
        return min(times) + _MOMENT_S if times else None

    def _bump(self) -> None:
        self._version += 1
        self._rearm.set()
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
