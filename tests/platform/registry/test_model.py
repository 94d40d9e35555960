from dataclasses import replace

import pytest
from hivemesh_platform.registry.model import (
    CapabilityNotConsentedError,
    InstanceDuplicateError,
    InstanceState,
    ManifestMismatchError,
    WorkerType,
    check_incarnation,
    check_registration,
    incompatibility,
)
from hivemesh_sdk.testing.clock import ManualClock
from registry_support import heartbeat, instance, manifest, registration


@pytest.mark.parametrize(
    ("silence", "expected"),
    [
        (0.0, InstanceState.LIVE),
        (4.0, InstanceState.LIVE),
        (4.1, InstanceState.UNHEALTHY),
        (8.0, InstanceState.UNHEALTHY),
        (8.1, InstanceState.OFFLINE),
    ],
)
def test_silence_makes_unhealthy_after_two_heartbeats_and_offline_after_four(
    silence: float, expected: InstanceState
) -> None:
    clock = ManualClock()
    one = instance(clock)
    clock.advance(silence)
    assert one.state(clock.monotonic()) is expected


def test_an_incompatible_instance_is_never_live() -> None:
    clock = ManualClock()
    one = instance(clock, incompatible="it asks for platform >=9")
    assert one.state(clock.monotonic()) is InstanceState.INCOMPATIBLE


@pytest.mark.parametrize(
    ("cpu", "expected"), [(-1.0, 0.0), (0.5, 0.5), (7.0, 1.0), (float("nan"), 1.0)]
)
def test_load_figures_are_forced_into_their_range(cpu: float, expected: float) -> None:
    clock = ManualClock()
    one = instance(clock).beaten(heartbeat(cpu=cpu), clock.monotonic())
    assert one.cpu == expected


def test_a_heartbeat_cannot_add_capabilities() -> None:
    clock = ManualClock()
    beat = replace_slots({"echo.say@1": 1, "other.do@1": 9})
    assert instance(clock).beaten(beat, clock.monotonic()).slots == {"echo.say@1": 1}


def replace_slots(slots: dict[str, int]):
    beat = heartbeat()
    return type(beat)(slots=slots, active={}, cpu=0.0, memory=0.0)


@pytest.mark.parametrize(
    ("platform", "protocol", "reason"),
    [
        (">=0.1,<1", 1, ""),
        (">=2", 1, "it asks for platform >=2, this is 0.1.0"),
        (">=0.1,<1", 2, "it speaks protocol 2, this platform 1"),
    ],
)
def test_what_does_not_fit_the_platform_is_named(platform: str, protocol: int, reason: str) -> None:
    assert incompatibility(manifest(platform=platform), protocol, "0.1.0") == reason


def installed() -> WorkerType:
    found = manifest()
    return WorkerType(manifest=found, digest=found.digest())


def test_the_installed_manifest_may_register() -> None:
    found = manifest()
    check_registration(registration(found), found, installed())


def test_a_capability_outside_the_manifest_is_refused() -> None:
    found = manifest(
        capabilities=[
            {"id": "echo.say@1", "kind": "call"},
            {"id": "echo.steal@1", "kind": "call"},
        ]
    )
    with pytest.raises(CapabilityNotConsentedError, match=r"echo\.steal@1"):
        check_registration(registration(found), found, installed())


def test_slots_for_a_capability_outside_the_manifest_are_refused() -> None:
    found = manifest()
    with pytest.raises(CapabilityNotConsentedError):
        check_registration(registration(found, slots={"other.do@1": 1}), found, installed())


def test_another_manifest_is_refused() -> None:
    found = manifest(resources={"memory_mb": 9999})
    with pytest.raises(ManifestMismatchError):
        check_registration(registration(found), found, installed())


def test_a_false_digest_is_refused() -> None:
    found = manifest(resources={"memory_mb": 9999})
    lying = registration(found, manifest_digest=installed().digest)
    with pytest.raises(ManifestMismatchError):
        check_registration(lying, found, installed())


def test_the_same_incarnation_may_register_again() -> None:
    clock = ManualClock()
    check_incarnation(instance(clock), "a", clock.monotonic())


def test_another_living_incarnation_is_refused() -> None:
    clock = ManualClock()
    with pytest.raises(InstanceDuplicateError):
        check_incarnation(instance(clock), "b", clock.monotonic())


def test_another_incarnation_may_register_once_the_lease_has_ended() -> None:
    clock = ManualClock()
    old = replace(instance(clock))
    clock.advance(9.0)
    check_incarnation(old, "b", clock.monotonic())
