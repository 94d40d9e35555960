"""An identity renews itself before half of its life, whatever the clocks do."""

import asyncio
import itertools
from datetime import timedelta

import pytest
from cryptography import x509
from hivemesh_sdk.contracts.problems import problem
from hivemesh_sdk.errors import RemoteError
from hivemesh_sdk.testing.clock import ManualClock
from hivemesh_sdk.transport import WorkerUnreachableError
from hivemesh_sdk.trust import renewal
from hivemesh_sdk.trust.enrolment import Identity
from hivemesh_sdk.trust.renewal import Renewer
from hivemesh_sdk.trust.source import IdentitySource
from hivemesh_sdk.trust.wire import IdentityAnswer
from structlog.testing import capture_logs

HOUR = timedelta(hours=1)


class Platform:
    """Renews by the throw-away authority; may be away or refuse."""

    def __init__(self, ca, clock):
        self.ca, self.clock = ca, clock
        self.error = None
        self.keys = []

    async def __call__(self, csr):
        key = x509.load_pem_x509_csr(csr).public_key()
        self.keys.append(key.public_numbers())
        if self.error is not None:
            raise self.error
        left = self.clock.now() - ManualClock().now() + HOUR
        return IdentityAnswer(
            certificate_chain=self.ca.sign(self.ca.worker(), key, left).decode(),
            bundle=self.ca.bundle().document(),
            instance="i1",
        )


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def platform(ca, clock):
    return Platform(ca, clock)


@pytest.fixture
def source(ca, clock):
    return IdentitySource(ca.svid(ca.worker(), now=clock.now()), ca.bundle())


def renewer_of(source, platform, clock, **options):
    return Renewer(source, platform, clock=clock, **{"chance": lambda: 0.5, **options})


@pytest.mark.parametrize(("chance", "minutes"), [(0.0, 21), (0.5, 24), (1.0, 27)])
def test_renewal_is_due_when_more_than_half_of_the_life_is_left(
    source, platform, clock, chance, minutes
):
    renewer = renewer_of(source, platform, clock, chance=lambda: chance)
    assert abs(renewer.due - clock.now() - timedelta(minutes=minutes)) < timedelta(seconds=2)


async def test_nothing_happens_before_it_is_due(source, platform, clock):
    clock.advance(timedelta(minutes=23))
    await renewer_of(source, platform, clock).tick()
    assert platform.keys == []


async def test_due_identity_is_replaced_by_one_with_a_new_key(source, platform, clock):
    before, renewer = source.svid(), renewer_of(source, platform, clock)
    clock.advance(timedelta(minutes=31))
    await renewer.tick()
    after = source.svid()
    assert after.id == before.id
    assert after.key.public_key() != before.key.public_key()
    assert renewer.renewals == 1
    assert renewer.due > clock.now() + timedelta(minutes=20)


async def test_failed_renewal_is_repeated_within_a_fifth_of_the_life_with_the_same_key(
    source, platform, clock
):
    renewer = renewer_of(source, platform, clock)
    platform.error = WorkerUnreachableError("away", sent=True)
    clock.advance(timedelta(minutes=31))
    await renewer.tick()
    await renewer.tick()
    assert len(platform.keys) == renewer.failures == 1
    platform.error = None
    clock.advance(timedelta(minutes=12))
    await renewer.tick()
    assert platform.keys[0] == platform.keys[1]
    assert renewer.renewals == 1


async def test_each_identity_gets_its_own_key(source, platform, clock):
    renewer = renewer_of(source, platform, clock)
    for _ in range(3):
        clock.advance(timedelta(minutes=37))
        await renewer.tick()
    assert len(set(platform.keys)) == 3


async def test_last_quarter_without_success_is_a_warning(source, platform, clock):
    renewer = renewer_of(source, platform, clock)
    platform.error = WorkerUnreachableError("away", sent=False)
    levels = []
    for minutes in (31, 20):
        clock.advance(timedelta(minutes=minutes))
        with capture_logs() as lines:
            await renewer.tick()
        levels += [line["log_level"] for line in lines if "renewal" in line["event"]]
    assert levels == ["info", "warning"]


async def test_slept_laptop_renews_at_the_next_tick(source, platform, clock):
    renewer = renewer_of(source, platform, clock)
    clock.jump(timedelta(minutes=40))  # wall time alone: monotonic clocks stand still in sleep
    await renewer.tick()
    assert renewer.renewals == 1


async def test_expired_and_supervised_enrols_again(ca, source, platform, clock):
    async def re_enrol():
        svid = ca.svid(ca.worker("echo", "i2"), now=clock.now())
        return Identity(svid=svid, bundle=ca.bundle())

    renewer = renewer_of(source, platform, clock, re_enrol=re_enrol)
    clock.jump(timedelta(hours=2))
    await renewer.tick()
    assert source.svid().id == ca.worker("echo", "i2")
    assert platform.keys == []
    assert renewer.due > clock.now()


async def test_expired_without_a_supervisor_goes_on_trying(source, platform, clock):
    renewer = renewer_of(source, platform, clock)
    platform.error = RemoteError(problem("renewal-refused"))
    clock.jump(timedelta(hours=2))
    for _ in range(3):
        await renewer.tick()
        clock.advance(60)
    assert renewer.failures == 3


async def test_identity_that_somebody_else_replaced_is_planned_anew(ca, source, platform, clock):
    renewer = renewer_of(source, platform, clock)
    clock.advance(timedelta(minutes=31))
    source.update(svid=ca.svid(ca.worker(), now=clock.now()))
    await renewer.tick()
    assert platform.keys == []
    assert renewer.due > clock.now()


async def test_short_lifetimes_are_renewed_in_time(ca, platform, clock):
    lifetime = timedelta(seconds=20)
    source = IdentitySource(ca.svid(ca.worker(), now=clock.now(), lifetime=lifetime), ca.bundle())
    renewer = renewer_of(source, platform, clock)
    assert timedelta(seconds=7) < renewer.due - clock.now() < timedelta(seconds=9)


async def test_running_renewer_ticks_until_cancelled(source, platform, clock, monkeypatch):
    monkeypatch.setattr(renewal, "TICK_S", 0.0)
    renewer = renewer_of(source, platform, clock)
    clock.advance(timedelta(minutes=31))
    task = asyncio.create_task(renewer.run())
    async with asyncio.timeout(30):
        while not renewer.renewals:  # noqa: ASYNC110 - the renewer sets no event
            await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_authority_away_for_half_a_life_is_not_overrun_when_it_is_back(ca):
    """A fleet of all ages: nobody expires, and the renewals are spread over a fifth of a life."""
    clock = ManualClock()
    platform = Platform(ca, clock)
    numbers = itertools.count()

    def chance():  # spread evenly, whatever the order
        return next(numbers) * 0.618034 % 1

    fleet = []
    for number in range(60):
        svid = ca.svid(ca.worker(), now=clock.now(), lifetime=HOUR)
        source = IdentitySource(svid, ca.bundle())
        fleet.append(Renewer(source, platform, clock=clock, chance=chance))
        if number < 59:
            clock.advance(21)  # they came one after the other, the last ones 20 minutes later
    for renewer in fleet:
        await renewer.tick()

    async def pass_by(minutes):
        for _ in range(minutes * 6):
            clock.advance(10)
            for renewer in fleet:
                before = renewer.renewals
                await renewer.tick()
                if renewer.renewals > before:
                    renewed.append(clock.monotonic())
                assert clock.now() < renewer._source.svid().not_after

    renewed = []
    platform.error = WorkerUnreachableError("away", sent=False)
    await pass_by(30)
    assert renewed == []
    platform.error, back = None, clock.monotonic()
    await pass_by(30)
    first = [moment for moment in renewed if moment - back < 30 * 60][: len(fleet)]
    assert len(first) == len(fleet)
    spread = max(first) - min(first)
    assert spread >= 0.2 * HOUR.total_seconds()


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
async def test_an_authority_back_after_half_a_life_is_asked_in_time(ca, chance):
    """Away from the moment at which the oldest certificate is due: the worst one."""
    clock = ManualClock()
    platform = Platform(ca, clock)
    source = IdentitySource(ca.svid(ca.worker(), now=clock.now(), lifetime=HOUR), ca.bundle())
    renewer = Renewer(source, platform, clock=clock, chance=lambda: chance)
    clock.advance(renewer.due - clock.now())
    platform.error = WorkerUnreachableError("away", sent=False)
    back = clock.now() + HOUR / 2
    while clock.now() < back:
        await renewer.tick()
        clock.advance(1)
    platform.error = None
    while not renewer.renewals:
        await renewer.tick()
        clock.advance(1)
        assert clock.now() < source.svid().not_after


async def test_an_identity_that_is_not_valid_yet_is_renewed_once(source, platform, clock):
    renewer = renewer_of(source, platform, clock)
    clock.jump(-HOUR)
    await renewer.tick()
    await renewer.tick()
    assert len(platform.keys) == renewer.renewals == 1


async def test_a_clock_that_was_set_back_everywhere_has_it_enrolled_again(
    ca, source, platform, clock
):
    platform.error = WorkerUnreachableError("not valid yet", sent=False)
    enrolled = []

    async def enrol_again():
        svid = ca.svid(ca.worker(), now=clock.now())
        enrolled.append(svid)
        return Identity(svid=svid, bundle=ca.bundle())

    renewer = renewer_of(source, platform, clock, re_enrol=enrol_again)
    clock.jump(-HOUR)
    await renewer.tick()
    await renewer.tick()
    assert [source.svid()] == enrolled


async def test_what_is_not_valid_yet_and_cannot_be_renewed_is_tried_again_soon(
    source, platform, clock
):
    platform.error = WorkerUnreachableError("not valid yet", sent=False)
    renewer = renewer_of(source, platform, clock)
    clock.jump(-HOUR)
    for _ in range(3):
        await renewer.tick()
        clock.advance(60)
    assert renewer.failures == 3
