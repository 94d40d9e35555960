import asyncio

import pytest
from hivemesh_platform.registry.embedded import EmbeddedDirectory
from hivemesh_platform.registry.model import InstanceState
from hivemesh_platform.storage.database import Database
from hivemesh_sdk.testing.clock import ManualClock
from registry_support import InstanceDirectoryConformance, heartbeat, instance


class TestStoredDirectory(InstanceDirectoryConformance):
    @pytest.fixture
    def directory(self, clock: ManualClock, database: Database) -> EmbeddedDirectory:
        return EmbeddedDirectory(clock, database)

    async def test_a_restarted_platform_knows_the_instances(
        self, directory: EmbeddedDirectory, clock: ManualClock, database: Database
    ) -> None:
        await directory.put(instance(clock))
        again = EmbeddedDirectory(clock, database)
        await again.load()
        (found,) = again.all()
        assert found.identity == instance(clock).identity
        assert found.capabilities == frozenset({"echo.say@1"})

    async def test_a_known_instance_is_live_once_it_beats(
        self, directory: EmbeddedDirectory, clock: ManualClock, database: Database
    ) -> None:
        await directory.put(instance(clock))
        again = EmbeddedDirectory(clock, database)
        await again.load()
        assert again.all()[0].state(clock.monotonic()) is InstanceState.UNHEALTHY
        await again.beat("i1", heartbeat())
        assert again.all()[0].state(clock.monotonic()) is InstanceState.LIVE

    async def test_who_left_is_not_known_after_a_restart(
        self, directory: EmbeddedDirectory, clock: ManualClock, database: Database
    ) -> None:
        await directory.put(instance(clock))
        await directory.remove("i1")
        again = EmbeddedDirectory(clock, database)
        await again.load()
        assert not again.all()


class TestEmbeddedDirectory(InstanceDirectoryConformance):
    @pytest.fixture
    def directory(self, clock: ManualClock) -> EmbeddedDirectory:
        return EmbeddedDirectory(clock)

    async def test_a_lease_that_runs_out_is_a_change(
        self, directory: EmbeddedDirectory, clock: ManualClock
    ) -> None:
        await directory.put(instance(clock))
        before = directory.version
        clock.advance(4.1)
        directory.expire()
        clock.advance(4.1)
        directory.expire()
        assert directory.version == before + 2

    async def test_nothing_changes_while_heartbeats_come(
        self, directory: EmbeddedDirectory, clock: ManualClock
    ) -> None:
        await directory.put(instance(clock))
        before = directory.version
        for _ in range(10):
            clock.advance(2.0)
            await directory.beat("i1", heartbeat())
            directory.expire()
        assert directory.version == before

    async def test_the_watch_wakes_those_who_wait_when_a_lease_runs_out(
        self, directory: EmbeddedDirectory, clock: ManualClock
    ) -> None:
        clock.advance(100.0)
        watch = asyncio.create_task(directory.watch())
        await directory.put(instance(clock, heartbeat_at=clock.monotonic() - 4.0 + 0.001))
        before = directory.version
        waiting = asyncio.create_task(directory.changed(before, 30.0))
        clock.advance(0.01)
        async with asyncio.timeout(30):
            assert await waiting > before
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
