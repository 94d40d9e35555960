import json
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hivemesh_platform.registry.embedded import EmbeddedDirectory
from hivemesh_platform.registry.model import (
    CapabilityNotConsentedError,
    ClockOffError,
    InstanceDuplicateError,
    InstanceState,
    InstanceUnknownError,
    ManifestMismatchError,
)
from hivemesh_platform.registry.service import RegistryService
from hivemesh_platform.registry.types import WorkerTypes
from hivemesh_sdk.errors import InvalidError, NotAuthorizedError
from hivemesh_sdk.testing.clock import ManualClock
from hivemesh_sdk.trust.identity import Peer, SpiffeId
from registry_support import TRUST_DOMAIN, heartbeat, manifest, registration
from structlog.testing import capture_logs


def peer(identity: SpiffeId) -> Peer:
    return Peer(
        id=identity, not_after=datetime(2036, 1, 1, tzinfo=UTC), serial=7, uri=str(identity)
    )


def worker(name: str = "i1", worker_name: str = "echo") -> Peer:
    return peer(SpiffeId.worker(TRUST_DOMAIN, worker_name, name))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def write_manifest(folder: Path, **changes: object) -> None:
    (folder / "echo").mkdir(exist_ok=True)
    # JSON is YAML
    (folder / "echo" / "plugin.yaml").write_text(json.dumps(manifest(**changes).document()))


@pytest.fixture
def service(clock: ManualClock, tmp_path: Path) -> RegistryService:
    write_manifest(tmp_path)
    types = WorkerTypes([tmp_path])
    types.refresh()
    return RegistryService(EmbeddedDirectory(clock), types, clock, "0.1.0")


async def test_a_registered_instance_is_discovered(service: RegistryService) -> None:
    reply = await service.register(worker(), "i1", registration(manifest()))
    found = await service.discover(0, 0.0)
    assert reply.state == "live"
    assert [(one.instance, one.capabilities) for one in found.endpoints] == [("i1", ["echo.say@1"])]


@pytest.mark.parametrize(
    "stranger",
    [
        worker("i2"),
        worker("i1", "other"),
        peer(SpiffeId.user(TRUST_DOMAIN, "operator")),
        peer(SpiffeId.platform(TRUST_DOMAIN, "i1")),
    ],
)
async def test_only_the_very_instance_may_register(
    service: RegistryService, stranger: Peer
) -> None:
    with pytest.raises(NotAuthorizedError):
        await service.register(stranger, "i1", registration(manifest()))


async def test_only_the_very_instance_may_beat_and_leave(service: RegistryService) -> None:
    await service.register(worker(), "i1", registration(manifest()))
    with pytest.raises(NotAuthorizedError):
        await service.heartbeat(worker("i2"), "i1", heartbeat(), 1)
    with pytest.raises(NotAuthorizedError):
        await service.deregister(worker("i2"), "i1")


async def test_an_unlisted_capability_is_refused(service: RegistryService) -> None:
    more = manifest(capabilities=[{"id": "echo.steal@1", "kind": "call"}])
    with pytest.raises(CapabilityNotConsentedError):
        await service.register(worker(), "i1", registration(more))


async def test_a_worker_that_is_not_installed_is_refused(service: RegistryService) -> None:
    other = manifest("other")
    with pytest.raises(ManifestMismatchError, match="not installed"):
        await service.register(worker("i1", "other"), "i1", registration(other))


async def test_a_banned_package_is_not_registered_whoever_certifies_it(
    service: RegistryService,
) -> None:
    sent = registration(manifest())
    service.ban(frozenset({sent.manifest_digest}))
    with pytest.raises(NotAuthorizedError, match="banned"):
        await service.register(worker(), "i1", sent)
    service.ban(frozenset())
    assert (await service.register(worker(), "i1", sent)).state == "live"


async def test_expelled_identities_are_known_no_longer(service: RegistryService) -> None:
    for name in ("i1", "i2"):
        await service.register(worker(name), name, registration(manifest()))
    assert await service.expel({worker("i1").uri}) == ["i1"]
    assert [one.instance.id for one in service.instances()] == ["i2"]


async def test_a_changed_manifest_is_read_again_when_it_registers(
    service: RegistryService, tmp_path: Path
) -> None:
    changed = manifest(labels={"gpu": "true"})
    write_manifest(tmp_path, labels={"gpu": "true"})
    assert (await service.register(worker(), "i1", registration(changed))).state == "live"


async def test_a_manifest_that_is_none_is_invalid(service: RegistryService) -> None:
    broken = registration(manifest(), manifest={"kind": "Worker"})
    with pytest.raises(InvalidError) as caught:
        await service.register(worker(), "i1", broken)
    assert "/metadata" in {error.pointer for error in caught.value.errors}


async def test_another_platform_range_is_registered_as_incompatible(
    service: RegistryService, tmp_path: Path
) -> None:
    write_manifest(tmp_path, platform=">=2")
    reply = await service.register(worker(), "i1", registration(manifest(platform=">=2")))
    assert reply.state == "incompatible"
    assert ">=2" in reply.reason
    assert not (await service.discover(0, 0.0)).endpoints
    assert service.instances()[0].state is InstanceState.INCOMPATIBLE


async def test_registering_again_is_no_error(service: RegistryService) -> None:
    await service.register(worker(), "i1", registration(manifest()))
    await service.register(worker(), "i1", registration(manifest(), port=4009))
    assert [one.instance.port for one in service.instances()] == [4009]


async def test_a_second_living_process_is_refused(service: RegistryService) -> None:
    await service.register(worker(), "i1", registration(manifest()))
    with pytest.raises(InstanceDuplicateError):
        await service.register(worker(), "i1", registration(manifest(), incarnation="b"))


async def test_a_lease_ends_after_four_missed_heartbeats(
    service: RegistryService, clock: ManualClock
) -> None:
    await service.register(worker(), "i1", registration(manifest()))
    clock.advance(8.1)
    assert service.instances()[0].state is InstanceState.OFFLINE
    assert not (await service.discover(0, 0.0)).endpoints


async def test_who_is_unknown_is_told_to_register(service: RegistryService) -> None:
    with pytest.raises(InstanceUnknownError):
        await service.heartbeat(worker(), "i1", heartbeat(), 1)


async def test_a_heartbeat_is_told_the_number_of_the_trust_bundle(
    service: RegistryService,
) -> None:
    await service.register(worker(), "i1", registration(manifest()))
    assert (await service.heartbeat(worker(), "i1", heartbeat(), 5)).bundle_sequence == 5


async def test_a_heartbeat_shows_when_the_renewed_certificate_expires(
    service: RegistryService,
) -> None:
    await service.register(worker(), "i1", registration(manifest()))
    renewed = replace(worker(), not_after=worker().not_after + timedelta(hours=1))
    await service.heartbeat(renewed, "i1", heartbeat(), 1)
    assert service.instances()[0].instance.certificate_expires_at == renewed.not_after


def told(clock: ManualClock, off_s: float) -> float:
    """What an instance says whose clock is off by so much."""
    return clock.now().timestamp() + off_s


@pytest.mark.parametrize("off_s", [-60, 55])
async def test_clocks_may_differ_by_nearly_a_minute(
    service: RegistryService, clock: ManualClock, off_s: float
) -> None:
    await service.register(worker(), "i1", registration(manifest(), clock=told(clock, off_s)))
    await service.heartbeat(worker(), "i1", heartbeat(clock=told(clock, off_s)), 1)
    assert service.instances()[0].state is InstanceState.LIVE


@pytest.mark.parametrize(
    ("off_s", "said"),
    [
        (-600, "is 600 s behind the platform's"),
        (-61, "is 61 s behind"),  # it refuses every ticket
        (56, "is 56 s ahead of"),  # and a minute, if this took some seconds to come
    ],
)
async def test_who_has_another_time_gets_nothing_and_is_told_the_difference(
    service: RegistryService, clock: ManualClock, off_s: float, said: str
) -> None:
    with pytest.raises(ClockOffError, match=f"the clock of i1 {said}") as refused:
        await service.register(worker(), "i1", registration(manifest(), clock=told(clock, off_s)))
    assert f"{clock.now():%Y-%m-%dT%H:%M:%SZ}" in refused.value.detail
    assert refused.value.problem().code == "HM-1306"
    (found,) = service.instances()
    assert found.state is InstanceState.DRAINING
    assert found.instance.clock_off.startswith(f"its clock {said}")
    assert found.instance.clock_off.endswith("the platform's (HM-1306)")
    assert not (await service.discover(0, 0.0)).endpoints


async def test_who_asks_again_with_another_time_stays_known_and_is_taken_when_it_is_right(
    service: RegistryService, clock: ManualClock
) -> None:
    async def register(off_s: float, incarnation: str = "a") -> None:
        at = told(clock, off_s)
        await service.register(
            worker(), "i1", registration(manifest(), clock=at, incarnation=incarnation)
        )

    for off_s in (600, 600, 90):
        with pytest.raises(ClockOffError):
            await register(off_s)
        clock.advance(6.0)  # longer than a lease in all
    assert service.instances()[0].instance.clock_off.startswith("its clock is 90 s ahead")
    with pytest.raises(InstanceDuplicateError):
        await register(0, "another process of this name")
    await register(0)
    (found,) = service.instances()
    assert (found.state, found.instance.clock_off) == (InstanceState.LIVE, "")


async def test_an_instance_whose_clock_jumps_takes_nothing_until_it_is_right_again(
    service: RegistryService, clock: ManualClock
) -> None:
    await service.register(worker(), "i1", registration(manifest()))
    with pytest.raises(ClockOffError):
        await service.heartbeat(worker(), "i1", heartbeat(clock=told(clock, 600)), 1)
    assert service.instances()[0].state is InstanceState.DRAINING
    await service.heartbeat(worker(), "i1", heartbeat(clock=told(clock, 0)), 1)
    assert service.instances()[0].state is InstanceState.LIVE


async def test_the_log_names_an_instance_whose_clock_is_off_once_until_it_is_right(
    service: RegistryService, clock: ManualClock
) -> None:
    await service.register(worker(), "i1", registration(manifest()))
    with capture_logs() as lines:
        for off_s in (90, 90, 0, 90):
            with suppress(ClockOffError):
                await service.heartbeat(worker(), "i1", heartbeat(clock=told(clock, off_s)), 1)
    assert [line["instance"] for line in lines if line["event"] == "clock_off"] == ["i1", "i1"]


async def test_an_instance_tells_its_time_or_does_not(
    service: RegistryService, clock: ManualClock
) -> None:
    async def tells(**changes: float) -> bool:
        await service.heartbeat(worker(), "i1", heartbeat(**changes), 1)
        return service.instances()[0].instance.tells_time

    await service.register(worker(), "i1", registration(manifest(), clock=told(clock, 0)))
    assert service.instances()[0].instance.tells_time
    assert not await tells()
    assert await tells(clock=told(clock, 0))


async def test_who_leaves_is_forgotten(service: RegistryService) -> None:
    await service.register(worker(), "i1", registration(manifest()))
    await service.deregister(worker(), "i1")
    assert not service.instances()
