"""What a listener bears: slow, large, malformed and too many requests."""

import asyncio

import msgspec
import pytest
from hivemesh_sdk.transport import Limits
from hivemesh_sdk.trust.identity import SpiffeId
from hivemesh_sdk.trust.refusals import Reason

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


def slug(body):
    return msgspec.json.decode(body)["type"].rpartition(":")[2]


class Held:
    """An application that answers when it is told to."""

    def __init__(self):
        self.entered = 0
        self.go = asyncio.Event()

    async def __call__(self, scope, receive, send):
        self.entered += 1
        await self.go.wait()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize(
    "half",
    [b"GET / HTTP/1.1\r\nhost:", b"PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhalf"],
    ids=["head", "body"],
)
async def test_half_a_request_is_closed_by_the_receive_deadline(mesh, wire, until, half):
    connection = await wire(mesh)
    connection.send(half)
    await until(lambda: mesh.listener.connections == 1)
    [served] = mesh.listener._connections.all()
    await until(lambda: served.head_bytes > 1 or served.received > 0)
    mesh.clock.advance(19)
    mesh.listener.sweep()
    assert mesh.listener.connections == 1
    mesh.clock.advance(2)
    mesh.listener.sweep()
    status, headers, body = await connection.answer()
    assert (status, headers["connection"], slug(body)) == (408, "close", "slow-request")
    assert await connection.rest() == b""
    assert mesh.source.refusals.counts == {Reason.SLOW: 1}
    assert mesh.app.requests == []


async def test_connection_without_any_byte_is_closed(mesh, wire, until):
    connection = await wire(mesh)
    await until(lambda: mesh.listener.connections == 1)
    mesh.clock.advance(21)
    mesh.listener.sweep()
    assert await connection.rest() == b""


async def test_long_body_has_time_by_its_size(mesh_of, wire, until):
    limits = Limits(receive_s=20, receive_rate=100)
    async with mesh_of(limits=limits) as mesh:
        connection = await wire(mesh)
        connection.send(b"PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 1001\r\n\r\n" + b"x" * 1000)
        await until(lambda: mesh.listener.connections == 1)
        [served] = mesh.listener._connections.all()
        await until(lambda: served.received == 1000)
        mesh.clock.advance(29)
        mesh.listener.sweep()
        connection.send(b"x")
        assert (await connection.answer())[0] == 200


async def test_slow_application_does_not_run_into_its_callers_deadline(mesh_of, wire, until):
    held = Held()
    async with mesh_of(held) as mesh:
        connection = await wire(mesh)
        connection.send(b"PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 300000\r\n\r\n")
        connection.send(b"x" * 200_000)
        await until(lambda: held.entered == 1)
        [served] = mesh.listener._connections.all()
        await until(lambda: served.flow.read_paused)
        mesh.clock.advance(100)
        mesh.listener.sweep()
        connection.send(b"x" * 100_000)
        held.go.set()
        assert (await connection.answer())[0] == 204


async def test_idle_connection_is_closed(mesh, wire, until):
    connection = await wire(mesh)
    connection.send(GET)
    await connection.answer()
    mesh.clock.advance(76)
    mesh.listener.sweep()
    assert await connection.rest() == b""
    assert not mesh.source.refusals.counts


async def test_old_connection_ends_with_its_present_answer(mesh_of, wire, until):
    held = Held()
    async with mesh_of(held) as mesh:
        connection = await wire(mesh)
        connection.send(GET)
        await until(lambda: held.entered == 1)
        mesh.clock.advance(901)
        mesh.listener.sweep()
        held.go.set()
        status, headers, _ = await connection.answer()
        assert (status, headers["connection"]) == (204, "close")
        assert await connection.rest() == b""


async def test_more_requests_than_allowed_get_429(mesh_of, wire, until):
    held = Held()
    async with mesh_of(held, limits=Limits(requests=1, retry_after_s=3)) as mesh:
        first, second = await wire(mesh), await wire(mesh)
        first.send(GET)
        await until(lambda: held.entered == 1)
        second.send(GET)
        status, headers, body = await second.answer()
        assert (status, headers["retry-after"], slug(body)) == (429, "3", "overloaded")
        assert headers["content-type"] == "application/problem+json"
        held.go.set()
        assert (await first.answer())[0] == 204


async def test_people_leave_places_to_processes_and_to_questions_of_health(
    mesh_of, wire, until, ca
):
    held = Held()
    person = ca.svid(SpiffeId(ca.trust_domain, ("user", "operator")))
    async with mesh_of(held, limits=Limits(requests=4)) as mesh:
        people = [await wire(mesh, person) for _ in range(5)]
        for one in people[:3]:
            one.send(GET)
        await until(lambda: held.entered == 3)
        people[3].send(GET)
        assert (await people[3].answer())[0] == 429
        people[4].send(b"GET /v1/health HTTP/1.1\r\nhost: x\r\n\r\n")
        await until(lambda: held.entered == 4)
        process = await wire(mesh)
        process.send(GET)
        assert (await process.answer())[0] == 429
        held.go.set()
        assert (await people[4].answer())[0] == 204


async def test_a_process_takes_the_place_that_people_leave(mesh_of, wire, until, ca):
    held = Held()
    person = ca.svid(SpiffeId(ca.trust_domain, ("user", "operator")))
    async with mesh_of(held, limits=Limits(requests=4)) as mesh:
        people = [await wire(mesh, person) for _ in range(4)]
        for one in people:
            one.send(GET)
        await until(lambda: held.entered == 3)
        process = await wire(mesh)
        process.send(GET)
        await until(lambda: held.entered == 4)
        held.go.set()
        assert (await process.answer())[0] == 204


async def test_more_connections_than_allowed_get_503(mesh_of, wire):
    async with mesh_of(limits=Limits(connections=1)) as mesh:
        first = await wire(mesh)
        first.send(GET)
        assert (await first.answer())[0] == 200
        second = await wire(mesh)
        second.send(GET)
        status, headers, body = await second.answer()
        assert (status, headers["retry-after"], slug(body)) == (503, "1", "overloaded-server")
        first.send(GET)
        assert (await first.answer())[0] == 200


async def test_refusal_arrives_although_the_body_is_still_being_sent(mesh_of):
    async with mesh_of(limits=Limits(body=100_000)) as mesh:
        response = await mesh.client.request(
            mesh.target, "PUT", "/", body=[b"x" * 5_000_000], deadline_s=10
        )
    assert (response.status, slug(response.body)) == (413, "too-large")


async def test_refusal_of_the_peer_arrives_although_a_body_follows(mesh):
    mesh.denials.replace(identities=[str(mesh.ca.worker())])
    response = await mesh.client.request(
        mesh.target, "PUT", "/", body=[b"x" * 5_000_000], deadline_s=10
    )
    assert (response.status, slug(response.body)) == (403, "peer-revoked")
    assert mesh.app.requests == []


async def test_rest_of_a_refused_body_is_read_for_a_while_only(mesh_of, wire, until):
    async with mesh_of(limits=Limits(body=10)) as mesh:
        connection = await wire(mesh)
        connection.send(b"PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n" + b"x" * 50)
        assert (await connection.answer())[0] == 413
        mesh.clock.advance(6)
        mesh.listener.sweep()
        assert await connection.rest() == b""


@pytest.mark.parametrize(
    ("data", "status", "kind"),
    [
        (
            b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 40_000 + b"\r\n\r\n",
            431,
            "headers-too-large",
        ),
        (b"GET /" + b"y" * 40_000 + b" HTTP/1.1\r\n\r\n", 431, "headers-too-large"),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 600_000, 431, "headers-too-large"),  # never ends
        (b"\x00\x01\x02 nonsense\r\n\r\n", 400, "malformed"),
        (b"GET http://elsewhere/ HTTP/1.1\r\nhost: x\r\n\r\n", 400, "malformed"),
        (b"GET /\xc3\xa9 HTTP/1.1\r\nhost: x\r\n\r\n", 400, "malformed"),
        (
            b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
            400,
            "malformed",
        ),
        (b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n", 400, "malformed"),
        (
            b"PUT / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            400,
            "malformed",
        ),
    ],
    ids=[
        "header",
        "target",
        "endless",
        "noise",
        "absolute-form",
        "not-ascii",
        "upgrade",
        "connect",
        "smuggling",
    ],
)
async def test_malformed_request_gets_a_problem_and_is_closed(mesh, wire, data, status, kind):
    connection = await wire(mesh)
    connection.send(data)
    answered, headers, body = await connection.answer()
    assert (answered, slug(body)) == (status, kind)
    assert headers["content-type"] == "application/problem+json"
    assert await connection.rest() == b""
    assert mesh.app.requests == []


async def test_closing_lets_the_running_request_end(mesh_of, wire, until):
    held = Held()
    async with mesh_of(held) as mesh:
        connection = await wire(mesh)
        connection.send(GET)
        await until(lambda: held.entered == 1)
        asyncio.get_running_loop().call_later(0.01, held.go.set)
    assert (await connection.answer())[0] == 204
    assert await connection.rest() == b""


async def test_closing_cancels_what_does_not_end(mesh_of, wire, until):
    held = Held()
    async with mesh_of(held) as mesh:
        connection = await wire(mesh)
        connection.send(GET)
        await until(lambda: held.entered == 1)
    assert mesh.listener.connections == 0
