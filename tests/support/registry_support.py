"""Registry test data, and what every `InstanceDirectory` has to do."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hivemesh_platform.registry.model import Instance, InstanceState, InstanceUnknownError
from hivemesh_platform.registry.ports import InstanceDirectory
from hivemesh_sdk.contracts.instances import Heartbeat, Registration
from hivemesh_sdk.contracts.manifest import Manifest
from hivemesh_sdk.testing.clock import ManualClock

TRUST_DOMAIN = "test.hivemesh.internal"


def manifest(name: str = "echo", *, platform: str = ">=0.1,<1", **changes: object) -> Manifest:
    document: dict[str, object] = {
        "apiVersion": "hivemesh/v1",
        "kind": "Worker",
        "metadata": {"name": name, "version": "1.2.3", "publisher": "tests"},
        "platform": platform,
        "runtime": {"entrypoint": "worker_echo.main:worker"},
        "capabilities": [{"id": f"{name}.say@1", "kind": "call", "slots": 2}],
    }
    return Manifest.model_validate({**document, **changes})


def registration(found: Manifest, *, incarnation: str = "a", **changes: object) -> Registration:
    values: dict[str, object] = {
        "worker": found.metadata.name,
        "version": found.metadata.version,
        "manifest_digest": found.digest(),
        "manifest": found.document(),
        "sdk_version": "0.1.0",
        "protocol": 1,
        "host": "127.0.0.1",
        "port": 4001,
        "incarnation": incarnation,
        "slots": {capability.id: capability.slots for capability in found.capabilities},
    }
    return Registration(**{**values, **changes})


def instance(clock: ManualClock, name: str = "i1", **changes: object) -> Instance:
    base = Instance(
        id=name,
        worker="echo",
        version="1.2.3",
        identity=f"spiffe://{TRUST_DOMAIN}/worker/echo/{name}",
        host="127.0.0.1",
        port=4001,
        incarnation="a",
        manifest_digest="d",
        capabilities=frozenset({"echo.say@1"}),
        slots={"echo.say@1": 2},
        registered_at=datetime(2026, 1, 1, tzinfo=UTC),
        certificate_expires_at=datetime(2036, 1, 1, tzinfo=UTC),
        heartbeat_at=clock.monotonic(),
    )
    return replace(base, **changes)


def heartbeat(*, active: int = 0, incarnation: str = "a", **changes: object) -> Heartbeat:
    values: dict[str, object] = {"cpu": 0.1, "memory": 0.2, **changes}
    return Heartbeat(
        slots={"echo.say@1": 2}, active={"echo.say@1": active}, incarnation=incarnation, **values
    )


class InstanceDirectoryConformance:
    """Inherit it and give a `directory` fixture that uses the `clock` fixture."""

    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    async def test_an_instance_is_found_after_it_was_put(
        self, directory: InstanceDirectory, clock: ManualClock
    ) -> None:
        await directory.put(instance(clock))
        found = directory.get("i1")
        assert found is not None
        assert (found.host, found.port) == ("127.0.0.1", 4001)

    async def test_an_unknown_instance_is_none(self, directory: InstanceDirectory) -> None:
        assert directory.get("nobody") is None

    async def test_putting_twice_keeps_one(
        self, directory: InstanceDirectory, clock: ManualClock
    ) -> None:
        await directory.put(instance(clock))
        await directory.put(instance(clock, port=4002))
        assert [one.port for one in directory.all()] == [4002]

    async def test_a_heartbeat_renews_the_lease_and_tells_the_load(
        self, directory: InstanceDirectory, clock: ManualClock
    ) -> None:
        await directory.put(instance(clock))
        clock.advance(7.0)
        await directory.beat("i1", heartbeat(active=1, cpu=0.5))
        found = directory.get("i1")
        assert found is not None
        assert found.state(clock.monotonic()) is InstanceState.LIVE
        assert (found.active, found.cpu) == ({"echo.say@1": 1}, 0.5)

    async def test_a_heartbeat_of_a_stranger_is_refused(self, directory: InstanceDirectory) -> None:
        with pytest.raises(InstanceUnknownError):
            await directory.beat("nobody", heartbeat())

    async def test_a_heartbeat_of_another_incarnation_is_refused(
        self, directory: InstanceDirectory, clock: ManualClock
    ) -> None:
        await directory.put(instance(clock))
        with pytest.raises(InstanceUnknownError):
            await directory.beat("i1", heartbeat(incarnation="b"))

    async def test_a_removed_instance_is_gone_and_removing_it_again_is_no_error(
        self, directory: InstanceDirectory, clock: ManualClock
    ) -> None:
        await directory.put(instance(clock))
        await directory.remove("i1")
        await directory.remove("i1")
        assert not directory.all()

    async def test_the_version_grows_when_an_instance_comes_goes_or_drains(
        self, directory: InstanceDirectory, clock: ManualClock
    ) -> None:
        versions = [directory.version]
        await directory.put(instance(clock))
        versions.append(directory.version)
        await directory.beat("i1", heartbeat(draining=True))
        versions.append(directory.version)
        await directory.remove("i1")
        versions.append(directory.version)
        assert versions == sorted(set(versions))

    async def test_load_alone_does_not_change_the_version(
        self, directory: InstanceDirectory, clock: ManualClock
    ) -> None:
        await directory.put(instance(clock))
        before = directory.version
        await directory.beat("i1", heartbeat(cpu=0.9))
        assert directory.version == before

    async def test_waiting_ends_with_the_change(
        self, directory: InstanceDirectory, clock: ManualClock
    ) -> None:
        before = directory.version
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            waiting = group.create_task(directory.changed(before, 60.0))
            group.create_task(directory.put(instance(clock)))
        assert waiting.result() > before

    async def test_waiting_ends_without_a_change(self, directory: InstanceDirectory) -> None:
        async with asyncio.timeout(30):
            assert await directory.changed(directory.version, 0.01) == directory.version

    async def test_who_knows_an_older_version_does_not_wait(
        self, directory: InstanceDirectory, clock: ManualClock
    ) -> None:
        await directory.put(instance(clock))
        async with asyncio.timeout(30):
            assert await directory.changed(0, 60.0) == directory.version
