"""An instance stays known to its platform, and knows when it is alone."""

import pytest
from hivemesh_sdk.contracts.instances import (
    Heartbeat,
    HeartbeatReply,
    Registration,
    RegistrationReply,
)
from hivemesh_sdk.contracts.problems import problem
from hivemesh_sdk.errors import RemoteError
from hivemesh_sdk.lifecycle.membership import JITTER, Membership, Standing
from hivemesh_sdk.testing.clock import ManualClock
from hivemesh_sdk.transport.errors import WorkerUnreachableError

REGISTRATION = Registration(
    worker="echo",
    version="1.0.0",
    manifest_digest="",
    manifest={},
    sdk_version="0.1.0",
    protocol=1,
    host="127.0.0.1",
    port=1,
    incarnation="x",
    slots={},
)
HEARTBEAT = Heartbeat(slots={}, active={}, cpu=0.0, memory=0.0)


class FakeInstances:
    """A platform that remembers what it was told and fails as it is told to."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.told: list[str] = []
        self.failure: Exception | None = None
        self.state = "live"

    async def register(self, instance, registration):
        self._tell("register", instance)
        self.known.add(instance)
        return RegistrationReply(state=self.state, heartbeat_s=1.5)

    async def heartbeat(self, instance, heartbeat):
        self._tell("beat", instance)
        if instance not in self.known:
            raise RemoteError(problem("instance-unknown"))
        return HeartbeatReply(bundle_sequence=7)

    async def deregister(self, instance):
        self._tell("leave", instance)
        self.known.discard(instance)

    def _tell(self, what, instance):
        if self.failure is not None:
            raise self.failure
        self.told.append(f"{what} {instance}")


@pytest.fixture
def platform():
    return FakeInstances()


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def name():
    return ["i1"]


@pytest.fixture
def heard():
    return []


@pytest.fixture
def membership(platform, clock, name, heard):
    return Membership(
        platform,
        lambda: name[0],
        registration=lambda: REGISTRATION,
        heartbeat=lambda: HEARTBEAT,
        heard=heard.append,
        clock=clock,
    )


async def test_the_first_beat_registers(membership, platform):
    await membership.beat()
    await membership.beat()
    assert platform.told == ["register i1", "beat i1", "beat i1"]
    assert (membership.standing, membership.interval_s) == (Standing.LIVE, 1.5)


async def test_a_forgotten_instance_registers_again_in_the_same_beat(membership, platform):
    await membership.beat()
    platform.known.clear()
    await membership.beat()
    assert platform.told[2:] == ["beat i1", "register i1", "beat i1"]
    assert membership.standing is Standing.LIVE


async def test_another_name_after_an_enrolment_registers_that_one(membership, platform, name):
    await membership.beat()
    name[0] = "i2"
    await membership.beat()
    assert platform.told[2:] == ["register i2", "beat i2"]


async def test_an_unreachable_platform_leaves_it_alone_until_it_answers(
    membership, platform, clock
):
    await membership.beat()
    platform.failure = WorkerUnreachableError("gone", sent=False)
    clock.advance(100.0)
    await membership.beat()
    assert (membership.standing, membership.alone_s) == (Standing.ALONE, 100.0)
    platform.failure = None
    await membership.beat()
    assert (membership.standing, membership.alone_s) == (Standing.LIVE, 0.0)


async def test_a_platform_that_was_away_for_a_moment_hears_of_the_instance_at_once(
    membership, platform, clock
):
    await membership.beat()
    assert membership.pause_s == membership.interval_s
    platform.failure = WorkerUnreachableError("gone", sent=False)
    await membership.beat()
    assert membership.pause_s < membership.interval_s / 4
    clock.advance(100.0)
    assert membership.pause_s == pytest.approx(membership.interval_s, rel=JITTER)
    platform.failure = None
    await membership.beat()
    assert membership.pause_s == membership.interval_s


async def test_instances_that_are_alone_do_not_ask_in_the_same_moment(membership, platform):
    platform.failure = WorkerUnreachableError("gone", sent=False)
    await membership.beat()
    assert len({membership.pause_s for _ in range(10)}) > 1


async def test_a_refusal_is_no_solitude(membership, platform, clock):
    platform.failure = RemoteError(problem("instance-duplicate"))
    clock.advance(100.0)
    await membership.beat()
    assert (membership.standing, membership.alone_s) == (Standing.REFUSED, 0.0)


async def test_an_incompatible_instance_says_so_until_it_is_registered_anew(membership, platform):
    platform.state = "incompatible"
    await membership.beat()
    await membership.beat()
    assert membership.standing is Standing.INCOMPATIBLE


async def test_the_trust_bundle_is_known_to_be_newer(membership):
    await membership.beat()
    assert membership.bundle_sequence == 7


async def test_leaving_gives_the_lease_back_once(membership, platform):
    await membership.beat()
    await membership.leave()
    await membership.leave()
    assert platform.told[2:] == ["leave i1"]


async def test_leaving_an_unreachable_platform_is_no_failure(membership, platform):
    await membership.beat()
    platform.failure = WorkerUnreachableError("gone", sent=False)
    await membership.leave()
    assert not platform.told[2:]


async def test_a_heartbeat_is_heard_only_once_it_was_answered(membership, platform, heard):
    await membership.beat()
    platform.failure = WorkerUnreachableError("the platform", sent=False)
    await membership.beat()
    assert heard == [HEARTBEAT]
