"""Which instance is called."""

import asyncio
from collections import Counter
from itertools import cycle

import pytest
from hivemesh_sdk.contracts.instances import Discovery, Endpoint
from hivemesh_sdk.testing.clock import ManualClock
from hivemesh_sdk.transport import MeshClient, WorkerUnreachableError, balance, serve
from hivemesh_sdk.transport.balance import ERRORS, Balancer, Caller, Discoverer


def endpoint(name="i1", load=0.0, port=1, identity="spiffe://a.b/worker/echo/i1"):
    return Endpoint(
        instance=name,
        worker="echo",
        version="1",
        identity=identity,
        host="127.0.0.1",
        port=port,
        capabilities=["echo@1"],
        load=load,
    )


@pytest.fixture
def clock():
    return ManualClock()


def balancer_of(clock, in_flight=None):
    counts = in_flight or {}
    even = cycle(number / 97 for number in range(97))
    return Balancer(lambda each: counts.get(each.instance, 0), clock=clock, chance=even.__next__)


def picks(balancer, endpoints, times=400):
    return Counter(balancer.choose(endpoints).instance for _ in range(times))


def test_single_endpoint_is_chosen(clock):
    assert picks(balancer_of(clock), [endpoint()], 3) == {"i1": 3}


def test_equal_endpoints_share_the_calls(clock):
    counts = picks(balancer_of(clock), [endpoint(name) for name in "abcd"])
    assert min(counts.values()) > 50


def test_of_two_the_less_busy_is_chosen(clock):
    assert picks(balancer_of(clock, {"a": 3, "b": 1}), [endpoint("a"), endpoint("b")]) == {"b": 400}


def test_of_two_the_less_loaded_is_chosen(clock):
    assert picks(balancer_of(clock), [endpoint("a", 0.9), endpoint("b", 0.1)]) == {"b": 400}


def test_failing_endpoint_is_left_out_for_a_while(clock):
    balancer, bad, good = balancer_of(clock), endpoint("bad"), endpoint("good")
    for _ in range(ERRORS):
        balancer.failed(bad)
    assert picks(balancer, [bad, good]) == {"good": 400}
    clock.advance(31)
    assert picks(balancer, [bad, good])["bad"] > 100


def test_success_forgives(clock):
    balancer, one, other = balancer_of(clock), endpoint("a"), endpoint("b")
    for _ in range(ERRORS - 1):
        balancer.failed(one)
    balancer.succeeded(one)
    balancer.failed(one)
    assert picks(balancer, [one, other])["a"] > 100


def test_endpoint_that_fails_again_stays_out_longer(clock):
    balancer, bad, good = balancer_of(clock), endpoint("bad"), endpoint("good")
    for _ in range(ERRORS):
        balancer.failed(bad)
    clock.advance(31)
    balancer.failed(bad)
    clock.advance(31)
    assert picks(balancer, [bad, good]) == {"good": 400}


def answers(balancer, clock, seconds, *endpoints, times=3):
    for _ in range(times):
        for each in endpoints:
            balancer.succeeded(each, "echo@1", seconds)
        clock.advance(0.1)


def test_slow_endpoint_is_left_out_until_one_call_is_quick(clock):
    slow, one, other = endpoint("slow"), endpoint("a"), endpoint("b")
    in_flight = {"slow": 0}
    balancer = balancer_of(clock, in_flight)
    answers(balancer, clock, 0.1, one, other)
    answers(balancer, clock, 1.0, slow, times=2)
    assert picks(balancer, [slow, one, other])["slow"] > 80
    answers(balancer, clock, 1.0, slow, times=1)
    assert "slow" not in picks(balancer, [slow, one, other])
    clock.advance(11)
    answers(balancer, clock, 0.1, one, other)
    in_flight["slow"] = 1  # the probe
    assert "slow" not in picks(balancer, [slow, one, other])
    in_flight.clear()
    answers(balancer, clock, 0.1, slow, times=1)
    in_flight.update(slow=1, a=1, b=1)
    assert picks(balancer, [slow, one, other])["slow"] > 80


def test_endpoint_whose_probe_is_slow_stays_out_longer(clock):
    slow, one = endpoint("slow"), endpoint("a")
    balancer = balancer_of(clock)
    answers(balancer, clock, 0.1, one)
    answers(balancer, clock, 1.0, slow)
    clock.advance(11)
    answers(balancer, clock, 0.1, one)
    answers(balancer, clock, 1.0, slow, times=1)
    clock.advance(11)
    assert picks(balancer, [slow, one]) == {"a": 400}


@pytest.mark.parametrize(
    ("own", "others"),
    [
        ([0.02] * 8, [0.001] * 8),  # nobody would notice
        ([1.0, 0.1, 0.1, 0.1], [0.1] * 4),  # one long input
        ([0.25] * 8, [0.1] * 8),  # not three times slower
        ([5.0] * 8, [0.1, 5.0] * 4),  # inputs that are long for all
    ],
)
def test_what_is_no_slow_endpoint(clock, own, others):
    one, other = endpoint("a"), endpoint("b")
    balancer = balancer_of(clock)
    for each, times in ((other, others), (one, own)):
        for seconds in times:
            balancer.succeeded(each, "echo@1", seconds)
    assert picks(balancer, [one, other])["a"] > 100


def test_capabilities_are_not_compared_with_each_other(clock):
    one, other = endpoint("a"), endpoint("b")
    balancer = balancer_of(clock)
    for _ in range(8):
        balancer.succeeded(one, "long@1", 5.0)
        balancer.succeeded(other, "short@1", 0.1)
    assert picks(balancer, [one, other])["a"] > 100


@pytest.mark.parametrize(("count", "left"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)])
def test_never_more_than_half_are_left_out(clock, count, left):
    balancer = balancer_of(clock)
    endpoints = [endpoint(f"i{number}") for number in range(count)]
    for each in endpoints:
        for _ in range(ERRORS):
            balancer.failed(each)
        clock.advance(0.1)
    assert len(picks(balancer, endpoints)) == left


def test_instances_that_are_gone_are_forgotten(clock):
    balancer = balancer_of(clock)
    balancer.failed(endpoint("a"))
    balancer.keep([endpoint("b")])
    assert balancer._records == {}


class Directory:
    def __init__(self, endpoints):
        self.endpoints, self.away, self.asked = endpoints, False, []

    async def __call__(self, after, wait_s):
        self.asked.append((after, wait_s))
        if self.away:
            raise WorkerUnreachableError("away", sent=False)
        await asyncio.sleep(0)
        return Discovery(version=len(self.asked), endpoints=self.endpoints)


async def test_known_endpoints_stay_while_the_platform_is_away():
    directory = Directory([endpoint()])
    discoverer = Discoverer(directory)
    await discoverer.refresh()
    directory.away = True
    await discoverer.refresh(20)
    assert discoverer.away
    assert [each.instance for each in discoverer.of("echo@1")] == ["i1"]
    assert directory.asked == [(0, 0.0), (1, 20)]


async def test_endpoints_are_found_by_capability():
    discoverer = Discoverer(Directory([endpoint()]))
    await discoverer.refresh()
    assert discoverer.of("other@1") == ()
    assert len(discoverer.endpoints) == 1


async def calling(ca, *endpoints):
    discoverer = Discoverer(Directory(list(endpoints)))
    await discoverer.refresh()
    client = MeshClient(ca.source(ca.platform()))
    return client, Caller(client, discoverer)


async def test_unsent_call_goes_to_another_instance(ca, recorder):
    source = ca.source(ca.worker("echo", "i1"))
    async with serve(recorder, source, "127.0.0.1", 0) as listener:
        wrong = [
            endpoint(name, port=listener.port, identity=str(ca.worker("echo", name)))
            for name in ("i2", "i3")
        ]
        right = endpoint("i1", port=listener.port, identity=str(ca.worker("echo", "i1")))
        client, caller = await calling(ca, *wrong, right)
        async with client:
            for _ in range(4):
                response = await caller.call("echo@1", "GET", "/", deadline_s=30)
                assert response.status == 200
    assert len(recorder.requests) == 4


async def test_call_that_may_have_been_seen_is_not_repeated(ca):
    seen = []

    async def dying(scope, receive, send):
        seen.append(scope["path"])
        for connection in listener._connections.all():
            connection.transport.abort()

    source = ca.source(ca.worker("echo", "i1"))
    async with serve(dying, source, "127.0.0.1", 0) as listener:
        same = str(ca.worker("echo", "i1"))
        client, caller = await calling(
            ca, *(endpoint(f"i{n}", port=listener.port, identity=same) for n in range(3))
        )
        async with client:
            with pytest.raises(WorkerUnreachableError) as caught:
                await caller.call("echo@1", "GET", "/", deadline_s=30)
    assert caught.value.sent is True
    assert seen == ["/"]


async def test_capability_that_nobody_serves_is_told(ca):
    client, caller = await calling(ca)
    async with client:
        with pytest.raises(WorkerUnreachableError, match="no live instance serves 'echo@1'"):
            await caller.call("echo@1", "GET", "/", deadline_s=30)


async def test_server_errors_count_against_an_instance(ca):
    async def failing(scope, receive, send):
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body"})

    source = ca.source(ca.worker("echo", "i1"))
    async with serve(failing, source, "127.0.0.1", 0) as listener:
        client, caller = await calling(
            ca, endpoint(port=listener.port, identity=str(ca.worker("echo", "i1")))
        )
        async with client:
            assert (await caller.call("echo@1", "GET", "/", deadline_s=30)).status == 500
    assert caller._balancer._records["i1"].errors == 1


async def test_discovery_goes_on_asking(monkeypatch):
    monkeypatch.setattr(balance, "PAUSE_S", 0.0)
    directory = Directory([endpoint()])
    directory.away = True
    discoverer = Discoverer(directory)
    task = asyncio.create_task(discoverer.run())
    async with asyncio.timeout(30):
        while len(directory.asked) < 3:  # noqa: ASYNC110 - the directory sets no event
            await asyncio.sleep(0)
        assert discoverer.away
        directory.away = False
        while not discoverer.endpoints:  # noqa: ASYNC110
            await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
