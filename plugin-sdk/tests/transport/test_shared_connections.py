"""Small calls that begin together share a connection; each gets its own answer, or its own error."""

import asyncio

import pytest
from hivemesh_sdk.transport import (
    DeadlineExceededError,
    Limits,
    MeshClient,
    WorkerUnreachableError,
)
from hivemesh_sdk.transport.connection import (
    FEW_TOGETHER,
    MOST_TOGETHER,
    SMALL,
    Connection,
    Target,
)
from hivemesh_sdk.trust.identity import SpiffeId

WAIT_S = 30.0
LATE_S = 0.5  # enough for a call to reach the server first
PAGE = [b"x-request-id: 1", b"content-type: application/vnd.hivemesh.events"]


class Echo:
    """Answers with path and body, in an order that the test chooses; `sizes` are added."""

    def __init__(self, *, at_once=False, **sizes):
        self.at_once = at_once
        self.hold = False
        self.sizes = {f"/{name}": size for name, size in sizes.items()}
        self.waiting = {}
        self.waited_for = []
        self.ways = []
        self.stages = []

    def takes(self, scope):
        return scope["method"] == "PUT"

    def direct(self, scope, headers, body, reply):
        self.ways.append("direct")
        if scope["path"] == "/raises":
            raise ValueError
        self.stages.append(("read", scope["path"]))
        return lambda: self.run(scope, body, reply)

    def run(self, scope, body, reply):
        self.stages.append(("run", scope["path"]))
        if scope["path"] == "/breaks":
            raise ValueError
        if self.at_once:
            status = 299 if scope["path"] == "/status" else 200  # of no kind that is known
            reply.answer(status, PAGE, scope["path"].encode() + b" " + body)
            return
        if reply.others_wait:
            self.waited_for.append(scope["path"])
        reply.later()
        self.waiting[scope["path"]] = (reply, scope["path"].encode() + b" " + body)
        if not self.hold:
            asyncio.get_running_loop().call_soon(self.give, scope["path"])

    def give(self, path):
        reply, body = self.waiting.pop(path)
        reply.answer(200, [*PAGE, b"hivemesh-execution: e"], body + b"." * self.sizes.get(path, 0))

    async def __call__(self, scope, receive, send):
        self.ways.append("asgi")
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        body = scope["path"].encode() + b" " + body
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def put(mesh, name, *, shared=True, **options):
    options = {"deadline_s": WAIT_S, **options}
    body = options.pop("body", str(name).encode())
    return mesh.client.request(mesh.target, "PUT", f"/{name}", body=body, shared=shared, **options)


async def opened(mesh, count=3):
    """Open connections, and let the server learn the head on each."""
    for _ in range(2):
        await asyncio.gather(*(put(mesh, f"open-{n}", shared=False) for n in range(count)))


class Writes(asyncio.Transport):
    """Keeps each write."""

    def __init__(self):
        super().__init__()
        self.written = []

    def write(self, data):
        self.written.append(data)

    def is_closing(self):
        return False


@pytest.mark.parametrize(
    ("under_way", "together"),
    [(2, FEW_TOGETHER), (20, 10), (32, MOST_TOGETHER), (500, MOST_TOGETHER)],
)
async def test_no_more_than_half_of_the_calls_under_way_share_a_write(under_way, together):
    connection, transport = Connection(Target.platform("127.0.0.1", 1, "a.b")), Writes()
    connection.connection_made(transport)
    connection.gather(under_way)
    until = asyncio.get_running_loop().time() + WAIT_S
    for _ in range(together):
        assert connection.gathers
        connection.exchange(b"", (b"." * SMALL,), 10, until)
    assert not connection.gathers
    assert [len(data) for data in transport.written] == [together * SMALL]
    connection.connection_lost(None)


async def test_calls_that_begin_together_share_connections_and_get_their_own_answers(mesh_of):
    async with mesh_of(Echo()) as mesh:
        await opened(mesh)
        for _ in range(3):
            answers = await asyncio.gather(*(put(mesh, n) for n in range(2 * FEW_TOGETHER)))
            assert [one.body for one in answers] == [
                b"/%d %d" % (n, n) for n in range(2 * FEW_TOGETHER)
            ]
        assert mesh.client.connections == 3
        assert mesh.client.in_flight(mesh.target) == 0


async def test_answers_come_in_the_order_of_requests_whatever_ends_first(mesh_of, until):
    app = Echo()
    async with mesh_of(app) as mesh:
        await opened(mesh)
        app.hold = True
        calls = [asyncio.ensure_future(put(mesh, n)) for n in range(5)]
        await until(lambda: len(app.waiting) == 5)
        assert app.waited_for == ["/1", "/2", "/3"]  # the last one may wait for longer
        for path in ("/3", "/4", "/2", "/0", "/1"):
            app.give(path)
        assert [(await call).body for call in calls] == [b"/%d %d" % (n, n) for n in range(5)]


async def test_call_that_is_cancelled_takes_nothing_from_the_others(mesh_of, until):
    app = Echo()
    async with mesh_of(app) as mesh:
        await opened(mesh)
        app.hold = True
        calls = [asyncio.ensure_future(put(mesh, n)) for n in range(5)]
        await until(lambda: len(app.waiting) == 5)
        calls[2].cancel()
        await asyncio.wait([calls[2]])
        for path in tuple(app.waiting):
            app.give(path)
        assert [(await calls[n]).body for n in (0, 1, 3, 4)] == [
            b"/%d %d" % (n, n) for n in (0, 1, 3, 4)
        ]
        app.hold = False
        assert (await put(mesh, "next")).body == b"/next next"
        assert mesh.client.connections == 3


async def test_connection_ends_when_everybody_on_it_has_left(mesh_of, until):
    app = Echo()
    async with mesh_of(app) as mesh:
        await opened(mesh)
        app.hold = True
        calls = [asyncio.ensure_future(put(mesh, n)) for n in range(5)]
        await until(lambda: len(app.waiting) == 5)
        for call in calls[1:]:
            call.cancel()
        await asyncio.wait(calls[1:])
        await until(lambda: mesh.client.connections == 2)
        app.give("/0")
        assert (await calls[0]).body == b"/0 0"
        assert mesh.client.in_flight(mesh.target) == 0


@pytest.mark.parametrize("why", ["cancelled", "late"])
async def test_no_call_waits_behind_an_answer_that_nobody_waits_for(mesh_of, until, why):
    app = Echo()
    async with mesh_of(app) as mesh:
        await opened(mesh)
        app.hold = True
        calls = [
            asyncio.ensure_future(
                put(mesh, n, deadline_s=LATE_S if (n, why) == (2, "late") else WAIT_S)
            )
            for n in range(3)
        ]
        await until(lambda: len(app.waiting) == 3)  # the first one alone, two on one connection
        if why == "cancelled":
            calls[2].cancel()
        await asyncio.gather(calls[2], return_exceptions=True)
        app.give("/0")
        app.give("/1")
        assert [(await call).body for call in calls[:2]] == [b"/0 0", b"/1 1"]
        assert mesh.client.connections == 2
        app.hold = False  # yet "/2" stays without its answer
        answers = await asyncio.gather(*(put(mesh, n, shared=False) for n in range(3, 6)))
        assert [one.body for one in answers] == [b"/%d %d" % (n, n) for n in range(3, 6)]
        assert "/2" in app.waiting
        app.give("/2")  # goes nowhere
        await until(lambda: mesh.listener.requests == 0)


async def test_deadline_of_one_call_is_not_that_of_the_others(mesh_of, until):
    app = Echo()
    async with mesh_of(app) as mesh:
        await opened(mesh)
        app.hold = True
        calls = [
            asyncio.ensure_future(put(mesh, n, deadline_s=LATE_S if n == 2 else WAIT_S))
            for n in range(5)
        ]
        await until(lambda: len(app.waiting) == 5)
        with pytest.raises(DeadlineExceededError):
            await calls[2]
        for path in tuple(app.waiting):
            app.give(path)
        assert [(await calls[n]).body for n in (0, 1, 3, 4)] == [
            b"/%d %d" % (n, n) for n in (0, 1, 3, 4)
        ]


async def test_large_answer_among_small_ones_arrives_whole_and_in_its_place(mesh_of, until):
    sizes = {"2": 3_000_000, "3": 3_000_000}
    async with mesh_of(Echo(**sizes)) as mesh:
        await opened(mesh)
        answers = await asyncio.gather(*(put(mesh, n) for n in range(6)))
        assert [len(one.body) for one in answers] == [4, 4, 3_000_004, 3_000_004, 4, 4]
        assert (await put(mesh, "next")).body == b"/next next"


@pytest.mark.parametrize(
    "names", [[0, 1, "raises", 2, 3, 4, 5], [0, "raises", 1], [0, 1, "raises", 2]]
)
@pytest.mark.parametrize("broken", ["raises", "breaks"])
async def test_one_broken_answer_costs_its_neighbours_nothing(mesh_of, names, broken):
    app = Echo()
    names = [broken if one == "raises" else one for one in names]
    async with mesh_of(app) as mesh:  # the server closes the connection behind it
        await opened(mesh)
        answers = await asyncio.gather(*(put(mesh, one) for one in names))
        assert answers[names.index(broken)].status == 500
        assert [one.body for one in answers if one.status == 200] == [
            b"/%d %d" % (n, n) for n in range(len(names) - 1)
        ]
        assert mesh.client.in_flight(mesh.target) == 0


async def test_what_breaks_again_is_not_sent_a_third_time(mesh_of, until):
    app = Echo()
    async with mesh_of(app) as mesh:
        await opened(mesh)
        app.ways.clear()
        app.give = lambda path: app.waiting.pop(path)[0].protocol.transport.abort()
        found = await asyncio.gather(*(put(mesh, n) for n in range(5)), return_exceptions=True)
        assert [(type(one), one.sent) for one in found] == [(WorkerUnreachableError, True)] * 5
        assert 5 < len(app.ways) <= 10


async def test_connection_that_is_lost_ends_every_call_on_it(mesh_of, until):
    app = Echo()
    async with mesh_of(app) as mesh:
        await opened(mesh)
        app.hold = True
        calls = [asyncio.ensure_future(put(mesh, n)) for n in range(5)]
        await until(lambda: len(app.waiting) == 5)
        mesh.denials.replace(identities=[str(mesh.ca.worker())])
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(found[0], WorkerUnreachableError)  # it went alone
        assert {one.status for one in found[1:]} == {403}  # asked again, and refused
        assert len(app.waiting) == 5
        for path in tuple(app.waiting):
            app.give(path)  # goes nowhere
        assert mesh.listener.requests == 0


async def test_large_calls_share_nothing(mesh_of):
    app = Echo()
    async with mesh_of(app) as mesh:
        await opened(mesh)
        await asyncio.gather(*(put(mesh, n, body=b"." * 20_000) for n in range(3)))
        assert app.waited_for == []


@pytest.mark.parametrize("why", ["slow", "early"])
async def test_calls_go_alone_for_a_while_where_one_was_slow(mesh_of, until, why):
    app = Echo()
    async with mesh_of(app) as mesh:
        await opened(mesh)
        app.hold = True
        calls = [asyncio.ensure_future(put(mesh, n)) for n in range(3)]
        await until(lambda: len(app.waiting) == 3)
        if why == "slow":
            mesh.clock.advance(1)
        else:
            app.waiting["/1"] = (app.waiting["/1"][0], b"")  # it goes on: an empty page
        for path in tuple(app.waiting):
            app.give(path)
        await asyncio.gather(*calls)
        app.hold = False
        assert app.waited_for == ["/1"]
        await asyncio.gather(*(put(mesh, n) for n in range(3)))
        assert app.waited_for == ["/1"]
        mesh.clock.advance(3)
        await asyncio.gather(*(put(mesh, n) for n in range(3)))
        assert app.waited_for == ["/1", "/1"]


REQUEST = b"PUT /%b HTTP/1.1\r\ncontent-length: %d\r\nhost: x\r\n\r\n%b"


def request(name, body=b"b"):
    return REQUEST % (name, len(body), body)


async def learnt(connection):
    for _ in range(2):
        connection.send(request(b"first"))
        await connection.answer()


async def test_requests_in_one_piece_are_answered_in_order_with_a_known_head(mesh_of, wire):
    app = Echo()
    async with mesh_of(app) as mesh:
        connection = await wire(mesh)
        await learnt(connection)
        connection.send(b"".join(request(b"%d" % n) for n in range(100)))
        assert [(await connection.answer())[2] for _ in range(100)] == [
            b"/%d b" % n for n in range(100)
        ]
        connection.send(request(b"last"))
        assert (await connection.answer())[2] == b"/last b"


async def test_what_is_no_known_request_behind_known_ones_is_parsed_in_its_turn(mesh_of, wire):
    app = Echo()
    async with mesh_of(app) as mesh:
        connection = await wire(mesh)
        await learnt(connection)
        other = b"PUT /other HTTP/1.1\r\ncontent-length: 1\r\nHost:  x\r\nx: 1\r\n\r\nb"
        get = b"GET /get HTTP/1.1\r\nhost: x\r\n\r\n"
        connection.send(request(b"1") + request(b"2") + other + get + request(b"3")[:-1])
        assert [(await connection.answer())[2] for _ in range(4)] == [
            b"/1 b",
            b"/2 b",
            b"/other b",
            b"/get ",
        ]
        connection.send(b"b" + request(b"4"))
        assert [(await connection.answer())[2] for _ in range(2)] == [b"/3 b", b"/4 b"]


async def test_garbage_behind_known_requests_closes_the_connection(mesh_of, wire):
    app = Echo()
    async with mesh_of(app) as mesh:
        connection = await wire(mesh)
        await learnt(connection)
        connection.send(request(b"1") + b"\0garbage\r\n\r\n")
        assert b"/garbage" not in await connection.rest()
        assert mesh.listener.requests == 0


@pytest.mark.parametrize(("limit", "together"), [(1000, True), (3, False)])
async def test_all_are_read_before_one_is_run_unless_each_counts_for_the_next(
    mesh_of, wire, limit, together
):
    app = Echo()
    async with mesh_of(app, limits=Limits(requests=limit)) as mesh:
        connection = await wire(mesh)
        await learnt(connection)
        app.stages.clear()
        connection.send(b"".join(request(b"%d" % n) for n in range(3)))
        assert [(await connection.answer())[0] for _ in range(3)] == [200] * 3
        read, run = ([(kind, f"/{n}") for n in range(3)] for kind in ("read", "run"))
        each = [stage for pair in zip(read, run, strict=True) for stage in pair]
        assert app.stages == (read + run if together else each)


@pytest.mark.parametrize("broken", [b"raises", b"breaks"])
async def test_failure_among_others_ends_the_connection_there(mesh_of, wire, broken):
    app = Echo()
    async with mesh_of(app) as mesh:
        connection = await wire(mesh)
        await learnt(connection)
        connection.send(request(b"1") + request(broken) + request(b"3"))
        rest = await connection.rest()
        assert b"/3" not in rest
        assert ("run", "/3") not in app.stages
        assert mesh.listener.requests == 0


async def test_answers_before_a_failure_among_others_are_given(mesh_of, wire):
    """Be it one of reading, of running or of an answer that cannot be written."""
    for broken in (b"raises", b"breaks", b"status"):
        app = Echo(at_once=True)
        async with mesh_of(app) as mesh:
            connection = await wire(mesh)
            await learnt(connection)
            connection.send(request(b"1") + request(broken) + request(b"3"))
            answers = [(await connection.answer())[::2] for _ in range(2)]
            assert answers[0] == (200, b"/1 b")
            assert answers[1][0] == 500
            assert b"/3" not in await connection.rest()


async def test_each_of_them_is_admitted_by_itself(mesh_of, wire):
    app = Echo()
    async with mesh_of(app, limits=Limits(requests=2)) as mesh:
        connection = await wire(mesh)
        await learnt(connection)
        connection.send(b"".join(request(b"%d" % n) for n in range(4)))
        assert [(await connection.answer())[0] for _ in range(3)] == [200, 200, 429]
        assert await connection.rest() == b""


HEALTH = b"GET /v1/health HTTP/1.1\r\n"


@pytest.mark.parametrize(("kind", "places"), [("user", 3), ("worker", 4)])
async def test_question_of_health_before_them_leaves_them_no_more_places(
    mesh_of, wire, until, ca, kind, places
):
    app = Echo()
    svid = ca.svid(SpiffeId(ca.trust_domain, (kind, "one", "1")[: 2 if kind == "user" else 3]))
    async with mesh_of(app, limits=Limits(requests=4)) as mesh:
        connections = [await wire(mesh, svid) for _ in range(places + 1)]
        for one in connections:
            await learnt(one)
            one.send(HEALTH + b"host: x\r\n\r\n")  # no known form: it is parsed
            assert (await one.answer())[2] == b"/v1/health "
        app.hold = True
        for n, one in enumerate(connections[:-1], 1):
            one.send(request(b"%d" % n))
            await until(lambda n=n: len(app.waiting) == n)
        connections[-1].send(request(b"last"))
        assert (await connections[-1].answer())[0] == 429
        for path in tuple(app.waiting):
            app.give(path)
        assert [(await one.answer())[0] for one in connections[:-1]] == [200] * places


async def test_question_of_health_with_a_known_head_is_answered_however_many_others_ask(
    mesh_of, wire, until
):
    class Healthy(Echo):
        def takes(self, scope):
            return True

    app = Healthy()
    async with mesh_of(app, limits=Limits(requests=1)) as mesh:
        busy, asking = await wire(mesh), await wire(mesh)
        await learnt(busy)
        await learnt(asking)
        app.hold = True
        busy.send(request(b"busy"))
        await until(lambda: "/busy" in app.waiting)
        app.hold = False
        asking.send(HEALTH + b"content-length: 0\r\nhost: x\r\n\r\n")
        status, _, body = await asking.answer()
        assert (status, body) == (200, b"/v1/health ")
        app.give("/busy")
        assert (await busy.answer())[0] == 200


async def test_peer_is_judged_when_they_are_read(mesh_of, wire, until):
    app = Echo()
    async with mesh_of(app) as mesh:
        connection = await wire(mesh)
        await learnt(connection)
        mesh.clock.advance(2 * 86400)
        connection.send(request(b"1") + request(b"2"))
        status, _, body = await connection.answer()
        assert status == 401
        assert b"peer-certificate-expired" in body
        assert await connection.rest() == b""
        assert app.waiting == {}


async def test_closing_waits_for_all_of_them(mesh_of, wire, until):
    app = Echo()
    async with mesh_of(app) as mesh:
        connection = await wire(mesh)
        await learnt(connection)
        app.hold = True
        connection.send(request(b"1") + request(b"2"))
        await until(lambda: len(app.waiting) == 2)
        closing = asyncio.create_task(mesh.listener.close())
        await asyncio.sleep(0)  # it has begun to close
        app.give("/2")
        app.give("/1")
        assert [(await connection.answer())[2] for _ in range(2)] == [b"/1 b", b"/2 b"]
        await closing
        assert await connection.rest() == b""


async def test_client_refuses_an_answer_that_nobody_asked_for(mesh_of, wire, ca):
    """Also in one piece with the answer that was asked for, and in the known form."""

    class Twice(Echo):
        def give(self, path):
            reply, body = self.waiting.pop(path)
            reply.answer(200, [*PAGE, b"hivemesh-execution: e"], body)
            reply.protocol.transport.write(
                b"HTTP/1.1 200 OK\r\ndate: Sun, 22 Nov 2026 09:07:58 GMT\r\nx-request-id: 1\r\n"
                b"content-type: a\r\nhivemesh-execution: e\r\ncontent-length: 1\r\n\r\nx"
            )

    async with mesh_of(Twice()) as mesh:
        for n in range(3):
            assert (await put(mesh, n)).body == b"/%d %d" % (n, n)
        assert isinstance(mesh.client, MeshClient)
