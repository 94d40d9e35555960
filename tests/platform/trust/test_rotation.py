"""When the authority's keys change: everybody knows, everybody has renewed, or a lifetime has passed."""

from datetime import timedelta

import pytest
from hivemesh_platform.audit.model import Actor
from hivemesh_platform.audit.ports import NoAudit
from hivemesh_platform.trust.authority import open_authority
from hivemesh_platform.trust.keyring import KeyKind, KeyState
from hivemesh_platform.trust.model import CaBusyError
from hivemesh_platform.trust.profile import Lifetimes
from hivemesh_platform.trust.rotation import LINGER, SIGNED, Rotation
from hivemesh_sdk.errors import HivemeshError
from hivemesh_sdk.testing.clock import ManualClock

ONE, TWO = "spiffe://a.b/worker/echo/i1", "spiffe://a.b/worker/echo/i2"
HOUR = timedelta(hours=1)
CA = [KeyKind.ROOT, KeyKind.ISSUER]


class World:
    """An authority, its rotation, and instances that report what they are told to."""

    def __init__(self, folder):
        self.folder, self.clock, self.live = folder, ManualClock(), {ONE, TWO}
        self.open()

    def open(self):
        self.authority = open_authority(self.folder, self.clock, Lifetimes())
        self.rotation = Rotation(self.authority, lambda: self.live, self.clock, NoAudit())

    def report(self, *identities, sequence=None, issuer=None):
        bundle = self.authority.bundle()
        active = self.authority.ring.active(KeyKind.ISSUER).id
        for one in identities:
            self.rotation.hear(
                one, bundle.sequence if sequence is None else sequence, issuer or active
            )

    def state(self, kind):
        """The states of all but the key in use."""
        return sorted(
            key.state.value
            for key in self.rotation.status()
            if key.kind is kind and key.state is not KeyState.ACTIVE
        )


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


async def settle(world):
    """Everybody renews, and the little while after it passes."""
    world.report(ONE, TWO)
    await world.rotation.tick()
    world.clock.advance(LINGER)
    await world.rotation.tick()


@pytest.mark.parametrize("kind", CA)
async def test_a_key_is_used_when_every_live_instance_knows_it(world, kind):
    world.report(ONE, TWO)
    await world.rotation.begin(kind)
    await world.rotation.tick()
    assert world.state(kind) == ["prepared"]
    world.report(ONE)
    await world.rotation.tick()
    assert world.state(kind) == ["prepared"]
    world.report(TWO)
    await world.rotation.tick()
    assert world.state(kind) == ["tainted"]


@pytest.mark.parametrize("kind", CA)
async def test_a_key_goes_when_every_live_instance_has_renewed(world, kind):
    await world.rotation.begin(kind)
    old = world.authority.ring.active(KeyKind.ISSUER).id
    world.report(ONE, TWO)
    await world.rotation.tick()
    world.report(ONE)
    world.report(TWO, issuer=old)
    world.clock.advance(LINGER)
    await world.rotation.tick()
    assert world.state(kind) == ["tainted"]
    await settle(world)
    assert world.state(kind) == ["revoked"]


@pytest.mark.parametrize("kind", CA)
async def test_nobody_is_waited_for_longer_than_a_lifetime(world, kind):
    await world.rotation.begin(kind)
    world.clock.advance(HOUR)
    await world.rotation.tick()
    assert world.state(kind) == ["tainted"]
    world.clock.advance(HOUR - timedelta(seconds=1))
    await world.rotation.tick()
    assert world.state(kind) == ["tainted"]
    world.clock.advance(1)
    await world.rotation.tick()
    assert world.state(kind) == ["revoked"]


async def test_an_instance_that_has_gone_is_not_waited_for(world):
    await world.rotation.begin(KeyKind.ROOT)
    world.report(ONE)
    world.live.discard(TWO)
    await world.rotation.tick()
    assert world.state(KeyKind.ROOT) == ["tainted"]


async def test_a_change_goes_on_after_a_restart_at_every_step(world):
    await world.rotation.begin(KeyKind.ROOT)
    world.open()
    assert world.state(KeyKind.ROOT) == ["prepared"]
    world.report(ONE, TWO)
    await world.rotation.tick()
    world.open()
    assert world.state(KeyKind.ROOT) == ["tainted"]
    await settle(world)
    world.open()
    assert world.state(KeyKind.ROOT) == ["revoked"]


async def test_one_change_at_a_time(world):
    await world.rotation.begin(KeyKind.ISSUER)
    for kind in CA:
        with pytest.raises(CaBusyError):
            await world.rotation.begin(kind)


@pytest.mark.parametrize(
    ("kind", "half"),
    [(KeyKind.ISSUER, timedelta(days=3.5)), (KeyKind.SIGNER, timedelta(days=7))],
)
async def test_a_change_begins_by_itself(world, kind, half):
    world.live.clear()
    world.clock.advance(half - timedelta(minutes=1))
    if kind is KeyKind.ISSUER:
        await world.rotation.tick()
        assert world.state(kind) == []
    world.clock.advance(timedelta(minutes=2))
    await world.rotation.tick()
    assert world.state(kind) == ["prepared"]


async def test_the_root_is_changed_at_half_of_its_life(world):
    world.clock.advance(timedelta(days=3650) / 2 + timedelta(days=1))
    await world.rotation.tick()
    assert world.state(KeyKind.ROOT) == ["prepared"]


async def test_a_signing_key_stays_announced_until_its_signatures_have_ended(world):
    await world.rotation.begin(KeyKind.SIGNER)
    world.report(ONE, TWO)
    await world.rotation.tick()
    assert world.state(KeyKind.SIGNER) == ["tainted"]
    world.clock.advance(SIGNED - timedelta(seconds=1))
    await world.rotation.tick()
    assert world.state(KeyKind.SIGNER) == ["tainted"]
    world.clock.advance(1)
    await world.rotation.tick()
    assert world.state(KeyKind.SIGNER) == []


async def test_status_says_who_is_waited_for_and_until_when(world):
    await world.rotation.begin(KeyKind.ROOT)
    world.report(ONE)
    (prepared,) = [key for key in world.rotation.status() if key.state is KeyState.PREPARED]
    assert prepared.waiting == (TWO,)
    assert prepared.latest == prepared.since + HOUR


async def test_what_cannot_be_written_down_does_not_happen(world):
    class Full(NoAudit):
        async def record(self, event):
            message = "the disk is full"
            raise HivemeshError(message)

    rotation = Rotation(world.authority, lambda: (), world.clock, Full())
    for change in (rotation.begin(KeyKind.ROOT), rotation.start_over(Actor(id="ada"))):
        with pytest.raises(HivemeshError):
            await change
    assert world.authority.bundle().sequence == 1


async def test_starting_over_waits_for_nobody(world):
    await world.rotation.begin(KeyKind.ROOT)
    await world.rotation.start_over(Actor(id="ada"))
    assert world.state(KeyKind.ROOT) == ["revoked", "revoked"]
    assert world.authority.changing(KeyKind.ROOT) is None
