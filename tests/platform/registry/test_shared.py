"""The directory of several replicas: each knows what the others have heard."""

from types import SimpleNamespace

import pytest
from hivemesh_platform.registry.model import InstanceState
from hivemesh_platform.registry.shared import SharedDirectory
from hivemesh_sdk.testing.clock import ManualClock
from registry_support import InstanceDirectoryConformance, heartbeat, instance


class TestSharedDirectory(InstanceDirectoryConformance):
    @pytest.fixture
    def directory(self, clock, database):
        return SharedDirectory(clock, database)


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
async def here(clock, database):
    return SharedDirectory(clock, database)


@pytest.fixture
async def there(database):
    """Another replica, whose clocks have nothing to do with ours."""
    clock = ManualClock()
    clock.advance(123_456.0)
    return SharedDirectory(clock, database)


def state(directory, name="i1"):
    found = directory.get(name)
    return None if found is None else found.state(directory.now())


async def exchange(*directories, turns=1):
    for _ in range(turns):
        for one in directories:
            await one.exchange()


async def test_an_instance_is_live_at_every_replica(here, there, clock):
    await here.put(instance(clock))
    await exchange(there)
    assert state(there) is InstanceState.LIVE
    assert there.get("i1").host == here.get("i1").host


async def test_a_heartbeat_renews_the_lease_everywhere(here, there, clock):
    await here.put(instance(clock))
    await exchange(here, there)
    there._clock.advance(6.0)
    await exchange(there)
    assert state(there) is InstanceState.UNHEALTHY
    await here.beat("i1", heartbeat(cpu=0.7))
    await exchange(here, there)
    assert state(there) is InstanceState.LIVE
    assert there.get("i1").cpu == 0.7


async def test_a_heartbeat_goes_to_any_replica(here, there, clock):
    """The instance registered here and goes on there, before anything was exchanged."""
    await here.put(instance(clock))
    await there.beat("i1", heartbeat(draining=True))
    await exchange(here, there, here, turns=2)
    assert state(here) is InstanceState.DRAINING


async def test_who_is_silent_is_offline_everywhere(here, there, clock):
    await here.put(instance(clock))
    await exchange(here, there)
    for one in (here, there):
        one._clock.advance(9.0)
    await exchange(here, there, turns=3)
    assert state(here) is state(there) is InstanceState.OFFLINE


async def test_who_was_stopped_does_not_take_the_others_for_silent(here, there, clock):
    await here.put(instance(clock))
    await exchange(here, there)
    there._clock.advance(3600.0)
    assert state(there) is InstanceState.LIVE
    await here.beat("i1", heartbeat())
    await exchange(here, there)
    assert state(there) is InstanceState.LIVE


async def test_who_has_left_is_gone_everywhere(here, there, clock):
    await here.put(instance(clock))
    await exchange(here, there, turns=2)
    await here.remove("i1")
    await exchange(there, here, turns=2)
    assert (here.get("i1"), there.get("i1")) == (None, None)


async def test_another_incarnation_replaces_the_one_before(here, there, clock):
    await here.put(instance(clock))
    await exchange(here, there, turns=2)
    await here.put(instance(clock, incarnation="b", port=9))
    await exchange(here, there, turns=2)
    assert (there.get("i1").incarnation, there.get("i1").port) == ("b", 9)


async def test_routing_hears_of_what_came_to_others(here, there, clock):
    await here.put(instance(clock))
    there.updates()
    await exchange(here, there)
    assert there.updates() == ("i1",)


async def test_what_a_heartbeat_says_of_the_bundle_is_told_to_every_replica(here, there, clock):
    heard = []
    there.on_beat(lambda *said: heard.append(said))
    await here.put(instance(clock))
    await here.beat("i1", heartbeat(bundle_sequence=7, issuer="x"))
    await exchange(here, there)
    assert heard == [(instance(clock).identity, 7, "x")]


async def test_whose_clock_is_off_is_known_everywhere_until_it_is_right(here, there, clock):
    off = "its clock is 600 s ahead of the platform's (HM-1306)"
    await here.put(instance(clock, clock_off=off))
    await exchange(there)
    assert (state(there), there.get("i1").clock_off) == (InstanceState.DRAINING, off)
    await here.put(instance(clock))  # it has registered again
    await exchange(here, there, turns=2)
    assert (state(there), there.get("i1").clock_off) == (InstanceState.LIVE, "")
    await there.beat("i1", heartbeat(), None, off)
    await exchange(there, here, turns=2)
    assert (state(here), here.get("i1").clock_off) == (InstanceState.DRAINING, off)
    await there.beat("i1", heartbeat())
    await exchange(there, here, turns=2)
    assert state(here) is InstanceState.LIVE


async def test_a_read_that_is_repeated_finds_the_same_again(here, there, clock, monkeypatch):
    await here.put(instance(clock))
    read = there._shared.read

    async def twice(work):
        def repeated(tx):
            work(tx)  # the connection broke at its end
            return work(tx)

        return await read(repeated)

    monkeypatch.setattr(there, "_shared", SimpleNamespace(read=twice, write=there._shared.write))
    await exchange(there)
    assert state(there) is InstanceState.LIVE
