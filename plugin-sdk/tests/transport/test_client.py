"""The mesh client: identity before bytes, pools, deadlines, and errors that say what happened."""

import asyncio
import ssl
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from hivemesh_sdk.transport import (
    DeadlineExceededError,
    MeshClient,
    PeerRefusedError,
    Target,
    WorkerUnreachableError,
)
from hivemesh_sdk.transport.connection import Connection
from hivemesh_sdk.trust.contexts import server_context
from hivemesh_sdk.trust.keys import load_into
from hivemesh_sdk.trust.source import IdentitySource


async def answer(send, data=b"", status=200):
    headers = [(b"content-length", b"%d" % len(data))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data})


async def never(scope, receive, send):
    while (await receive())["type"] != "http.disconnect":
        pass


@asynccontextmanager
async def impostor(context: ssl.SSLContext | None, behaviour):
    """A server that is not ours; `behaviour` gets reader and writer."""
    handlers = set()

    async def serve(reader, writer):
        handlers.add(asyncio.current_task())
        try:
            await behaviour(reader, writer)
        finally:
            writer.transport.abort()
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for handler in handlers:
            handler.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)


def without_client_certificates(ca, svid):
    context = server_context(svid, ca.bundle())
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


async def silent(reader, writer):
    await reader.read()


async def test_misrouted_call_dies_unsent(mesh):
    other = Target("127.0.0.1", mesh.listener.port, str(mesh.ca.worker()), mesh.target.server_name)
    with pytest.raises(PeerRefusedError, match="platform/p1 answered instead") as caught:
        await mesh.client.request(other, "GET", "/", deadline_s=30)
    assert caught.value.sent is False
    assert mesh.app.requests == []
    assert mesh.client.connections == 0


async def test_wrong_host_name_dies_in_the_handshake(mesh):
    other = Target.instance("127.0.0.1", mesh.listener.port, mesh.ca.worker())
    with pytest.raises(PeerRefusedError, match="Hostname mismatch") as caught:
        await mesh.client.request(other, "GET", "/", deadline_s=30)
    assert caught.value.sent is False


@pytest.mark.parametrize(
    "rule",
    ["spiffe://test.hivemesh.internal/platform/*", "spiffe://test.hivemesh.internal/platform/p1"],
)
async def test_identity_may_be_exact_or_a_prefix(mesh, rule):
    target = Target("127.0.0.1", mesh.listener.port, rule, mesh.target.server_name)
    assert (await mesh.client.request(target, "GET", "/", deadline_s=30)).status == 200


@pytest.mark.parametrize(
    "rule", ["spiffe://test.hivemesh.internal/platform/", "spiffe://*", "*", ""]
)
async def test_anything_else_covers_nobody(mesh, rule):
    target = Target("127.0.0.1", mesh.listener.port, rule, mesh.target.server_name)
    with pytest.raises(PeerRefusedError):
        await mesh.client.request(target, "GET", "/", deadline_s=30)


@pytest.mark.parametrize(
    ("life_s", "starts_in_s", "said"),
    [
        (-1, -3600, r"certificate has expired: it ended \d+ s ago by the clock here, 20"),
        (
            7200,
            3600,
            r"certificate is not yet valid: it begins in 3[56]\d\d s by the clock here, 20",
        ),
    ],
)
async def test_server_with_a_certificate_of_another_time_is_refused_with_the_difference(
    mesh, life_s, starts_in_s, said
):
    untimely = mesh.ca.svid(
        mesh.ca.platform(),
        lifetime=timedelta(seconds=life_s),
        starts_in=timedelta(seconds=starts_in_s),
    )
    async with impostor(server_context(untimely, mesh.ca.bundle()), silent) as port:
        target = Target.platform("127.0.0.1", port, mesh.ca.trust_domain)
        with pytest.raises(PeerRefusedError, match=said) as caught:
            await mesh.client.request(target, "GET", "/", deadline_s=30)
    assert caught.value.sent is False


async def test_nobody_listens(mesh):
    async with impostor(
        server_context(mesh.ca.svid(mesh.ca.platform()), mesh.ca.bundle()), silent
    ) as port:
        pass
    target = Target.platform("127.0.0.1", port, mesh.ca.trust_domain)
    with pytest.raises(WorkerUnreachableError, match="cannot be reached") as caught:
        await mesh.client.request(target, "GET", "/", deadline_s=30)
    assert caught.value.sent is False


async def test_refused_client_certificate_is_told_in_words(mesh):
    expired = mesh.ca.svid(
        mesh.ca.worker(), lifetime=timedelta(seconds=-1), starts_in=timedelta(hours=-1)
    )
    async with MeshClient(IdentitySource(expired, mesh.ca.bundle())) as client:
        with pytest.raises(
            (PeerRefusedError, WorkerUnreachableError), match="certificate"
        ) as caught:
            await client.request(mesh.target, "GET", "/", deadline_s=30)
    assert caught.value.slug == "worker-unreachable"
    assert mesh.app.requests == []


async def test_dropped_new_connection_names_the_likely_cause(mesh):
    async def drop(reader, writer):
        await reader.readuntil(b"\r\n\r\n")

    context = without_client_certificates(mesh.ca, mesh.ca.svid(mesh.ca.platform()))
    async with impostor(context, drop) as port:
        target = Target.platform("127.0.0.1", port, mesh.ca.trust_domain)
        with pytest.raises(WorkerUnreachableError, match=r"TLS 1\.3 a refused client") as caught:
            await mesh.client.request(target, "GET", "/", deadline_s=30)
    assert caught.value.sent is True


async def test_answer_that_does_not_come_ends_with_the_deadline(mesh_of, until):
    async def once(scope, receive, send):
        await (answer(send) if scope["path"] == "/first" else never(scope, receive, send))

    async with mesh_of(once) as mesh:
        await mesh.get("/first")  # the deadline is of the answer, not of the handshake
        with pytest.raises(DeadlineExceededError, match="did not answer in time") as caught:
            await mesh.get(deadline_s=0.2)
        assert caught.value.sent is True
        await until(lambda: mesh.listener.connections == 0)
        assert mesh.client.connections == 0


async def test_handshake_that_does_not_come_ends_with_the_deadline(mesh):
    async with impostor(None, silent) as port:
        target = Target.platform("127.0.0.1", port, "x.y")
        with pytest.raises(DeadlineExceededError, match="no connection") as caught:
            await mesh.client.request(target, "GET", "/", deadline_s=0.05)
    assert caught.value.sent is False


async def test_deadline_travels_in_milliseconds(mesh_of):
    seen = []

    async def application(scope, receive, send):
        seen.append(dict(scope["headers"])[b"hivemesh-deadline-ms"])
        await answer(send)

    async with mesh_of(application) as mesh:
        await mesh.get(deadline_s=2.5)
    assert seen == [b"2500"]


async def test_connection_is_used_again(mesh):
    for _ in range(5):
        assert (await mesh.get()).status == 200
    assert mesh.listener.connections == mesh.client.connections == 1


@pytest.mark.parametrize("seconds", [31, 601], ids=["idle", "old"])
async def test_connection_is_not_used_when_idle_or_old(mesh, until, seconds):
    await mesh.get()
    mesh.clock.advance(seconds)
    await mesh.get()
    await until(lambda: mesh.listener.connections == 1)
    assert mesh.client.connections == 1


async def test_connection_is_not_used_past_either_certificate(mesh_of, until):
    async with mesh_of() as mesh:
        mesh.source.update(svid=mesh.ca.svid(mesh.ca.platform(), lifetime=timedelta(seconds=20)))
        await mesh.get()
        [connection] = next(iter(mesh.client._pools.values())).all
        mesh.clock.jump(timedelta(seconds=20))
        await mesh.get()
        assert connection.lost.done() or connection.transport.is_closing()


async def test_short_lived_identity_gives_short_lived_connections(mesh):
    """A connection is kept for a quarter of what is left of the certificate, by one clock."""
    svid = mesh.ca.svid(mesh.ca.worker(), lifetime=timedelta(minutes=2))
    left = (svid.not_after - mesh.clock.now()).total_seconds()
    async with MeshClient(IdentitySource(svid, mesh.ca.bundle()), clock=mesh.clock) as client:
        await client.request(mesh.target, "GET", "/", deadline_s=30)
        [connection] = next(iter(client._pools.values())).all
        assert connection.retire_at - mesh.clock.monotonic() == pytest.approx(left / 4)


async def test_many_calls_share_few_connections(mesh_of):
    async with mesh_of(connections_per_target=3) as mesh:
        responses = await asyncio.gather(*(mesh.get() for _ in range(40)))
        assert {response.status for response in responses} == {200}
        assert mesh.listener.connections <= 3


async def test_waiting_calls_go_on_when_connections_break(mesh_of):
    calls = 0

    async def flaky(scope, receive, send):
        nonlocal calls
        calls += 1
        if calls % 2:
            message = "broken on purpose"
            raise ConnectionError(message)
        await answer(send)

    async with mesh_of(flaky, connections_per_target=1) as mesh:
        responses = await asyncio.gather(*(mesh.get() for _ in range(10)))
    assert sorted(response.status for response in responses) == [200] * 5 + [500] * 5


async def test_calls_that_wait_for_a_connection_have_a_deadline(mesh_of):
    async with mesh_of(never, connections_per_target=1) as mesh:
        calls = [mesh.get(deadline_s=seconds) for seconds in (0.2, 0.05)]
        errors = await asyncio.gather(*calls, return_exceptions=True)
    assert [error.sent for error in errors] == [True, False]


async def test_cancelled_call_does_not_leave_its_answer_to_the_next(mesh_of, until):
    gate = asyncio.Event()
    paths = []

    async def application(scope, receive, send):
        paths.append(scope["path"])
        if scope["path"] == "/slow":
            await gate.wait()
        await answer(send, scope["path"].encode())

    async with mesh_of(application) as mesh:
        slow = asyncio.create_task(mesh.get("/slow"))
        await until(lambda: paths == ["/slow"])
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
        gate.set()
        assert (await mesh.get("/fast")).body == b"/fast"


async def test_connection_that_the_server_closed_is_not_used(mesh, until):
    await mesh.get()
    for connection in mesh.listener._connections.all():
        connection.transport.close()
    await until(lambda: mesh.client.connections == 0)
    assert (await mesh.get()).status == 200


@pytest.mark.parametrize(
    "extra", [b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b"HTTP/1.1 2"], ids=["whole", "part"]
)
async def test_unasked_answer_closes_the_connection(mesh, until, extra):
    async def talkative(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n" + extra)
        await reader.read()

    context = without_client_certificates(mesh.ca, mesh.ca.svid(mesh.ca.platform()))
    async with impostor(context, talkative) as port:
        target = Target.platform("127.0.0.1", port, mesh.ca.trust_domain)
        await mesh.client.request(target, "GET", "/", deadline_s=30)
        await until(lambda: mesh.client.connections == 0)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (b"nonsense\r\n\r\n", "no valid HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab", "without an answer"),
    ],
    ids=["nonsense", "truncated"],
)
async def test_answer_that_is_no_http_is_an_error(mesh, reply, words):
    async def broken(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        await writer.drain()
        writer.close()
        await reader.read()

    context = without_client_certificates(mesh.ca, mesh.ca.svid(mesh.ca.platform()))
    async with impostor(context, broken) as port:
        target = Target.platform("127.0.0.1", port, mesh.ca.trust_domain)
        with pytest.raises(WorkerUnreachableError, match=words) as caught:
            await mesh.client.request(target, "GET", "/", deadline_s=30)
    assert caught.value.sent is True


async def test_interim_answer_is_skipped(mesh):
    async def early(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
        )
        await reader.read()

    context = without_client_certificates(mesh.ca, mesh.ca.svid(mesh.ca.platform()))
    async with impostor(context, early) as port:
        target = Target.platform("127.0.0.1", port, mesh.ca.trust_domain)
        response = await mesh.client.request(target, "GET", "/", deadline_s=30)
    assert (response.status, response.body, "link" in response.headers) == (200, b"ok", False)


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"x-more: %s\r\n" % (b"v" * 4000)),
        (b"HTTP/1.1 200 OK\r\nx-long: ", b"v" * 4000),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"x-more: more\r\n" * 300),
    ],
    ids=["lines", "value", "trailers"],
)
async def test_a_head_without_an_end_takes_no_memory(mesh, start, more):
    sent = []

    async def endless(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(start)
        while len(sent) < 1000:
            writer.write(more)
            sent.append(len(more))
            await writer.drain()
        await reader.read()

    context = without_client_certificates(mesh.ca, mesh.ca.svid(mesh.ca.platform()))
    async with impostor(context, endless) as port:
        target = Target.platform("127.0.0.1", port, mesh.ca.trust_domain)
        with pytest.raises(WorkerUnreachableError, match="without an end"):
            await mesh.client.request(target, "GET", "/", deadline_s=60)


async def test_a_body_in_the_smallest_chunks_is_taken(mesh):
    async def crumbs(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(30):
            writer.write(b"1\r\nx\r\n" * 1000)
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await reader.read()

    context = without_client_certificates(mesh.ca, mesh.ca.svid(mesh.ca.platform()))
    async with impostor(context, crumbs) as port:
        target = Target.platform("127.0.0.1", port, mesh.ca.trust_domain)
        response = await mesh.client.request(target, "GET", "/", deadline_s=60)
    assert response.body == b"x" * 30_000


async def test_larger_answer_than_asked_for_is_an_error(mesh_of):
    async def application(scope, receive, send):
        await answer(send, b"x" * 2000)

    async with mesh_of(application) as mesh:
        with pytest.raises(WorkerUnreachableError, match="larger body"):
            await mesh.get(max_body=1000)
        assert (await mesh.get(max_body=2000)).body == b"x" * 2000


async def test_large_bodies_travel_both_ways(mesh_of):
    async def echo(scope, receive, send):
        data = bytearray()
        more = True
        while more:
            message = await receive()
            data += message["body"]
            more = message["more_body"]
        await answer(send, bytes(data))

    parts = [bytes([number]) * 700_000 for number in range(10)]
    async with mesh_of(echo) as mesh:
        response = await mesh.client.request(mesh.target, "PUT", "/", body=parts, deadline_s=20)
    assert response.body == b"".join(parts)


async def test_repeated_header_is_joined(mesh_of):
    async def application(scope, receive, send):
        headers = [(b"Via", b"a"), (b"via", b"b"), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body"})

    async with mesh_of(application) as mesh:
        assert (await mesh.get()).headers["via"] == "a, b"


@pytest.mark.parametrize(
    "options",
    [
        {"path": "/a b"},
        {"path": "/\r\nx: y"},
        {"headers": {"x": "a\r\nb: c"}},
        {"headers": {"x\n": "a"}},
        {"headers": {"x": "\0"}},
    ],
    ids=repr,
)
async def test_line_breaks_never_reach_the_wire(mesh, options):
    with pytest.raises(ValueError, match=r"line break|control character"):
        await mesh.get(**options)


async def test_closing_ends_calls_that_run_and_calls_that_wait(mesh_of, until):
    async with mesh_of(never, connections_per_target=1) as mesh:
        calls = [asyncio.create_task(mesh.get()) for _ in range(2)]
        await until(lambda: mesh.client.in_flight(mesh.target) == 2 and mesh.listener.requests == 1)
        await mesh.client.close()
        errors = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(error) for error in errors] == [WorkerUnreachableError] * 2


async def test_any_sibling_may_answer(mesh):
    target = Target.any_sibling("127.0.0.1", mesh.listener.port, mesh.ca.platform("p9"))
    assert (await mesh.client.request(target, "GET", "/", deadline_s=30)).status == 200


async def test_connection_lost_before_the_request_is_an_error(mesh, monkeypatch):
    await mesh.get()
    [pool] = mesh.client._pools.values()
    [connection] = pool.all
    connection.lost.set_result(None)
    with pytest.raises(WorkerUnreachableError, match="dropped"):
        await mesh.get()


async def test_connection_is_not_used_again_when_the_answer_came_before_the_body_was_sent(mesh_of):
    async def early(scope, receive, send):
        await answer(send, b"enough")

    async with mesh_of(early) as mesh:
        body = [b"x" * 8_000_000]
        response = await mesh.client.request(mesh.target, "PUT", "/", body=body, deadline_s=30)
        assert response.body == b"enough"
        assert (await mesh.get()).body == b"enough"


async def test_many_small_chunks_travel_together(mesh):
    response = await mesh.client.request(
        mesh.target, "PUT", "/", body=[b"a" * 1000] * 100 + [b"b" * 300_000, b"c"], deadline_s=10
    )
    assert response.body.endswith(b" 400001")


async def test_idle_pools_are_forgotten(mesh, until):
    await mesh.get()
    mesh.clock.advance(31)
    mesh.client._sweep()
    await until(lambda: mesh.client.connections == 0)
    mesh.client._sweep()
    assert mesh.client._pools == {}
    assert mesh.client.in_flight(mesh.target) == 0


async def test_caller_that_gives_up_waiting_leaves_no_trace(mesh_of, until):
    async with mesh_of(never, connections_per_target=1) as mesh:
        calls = [asyncio.create_task(mesh.get()) for _ in range(3)]
        await until(lambda: mesh.client.in_flight(mesh.target) == 3)
        for call in calls[1:]:
            call.cancel()
        await asyncio.gather(*calls[1:], return_exceptions=True)
        assert mesh.client.in_flight(mesh.target) == 1
        calls[0].cancel()
        await asyncio.gather(*calls, return_exceptions=True)


class CertificateAlert(ssl.SSLError):
    reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"


class Sink(asyncio.Transport):
    def write(self, data):
        pass

    def abort(self):
        pass


@pytest.mark.parametrize(
    ("fresh", "kind", "sent"),
    [(True, PeerRefusedError, False), (False, WorkerUnreachableError, True)],
)
async def test_certificate_alert_tells_only_on_a_new_connection_that_nothing_was_seen(
    fresh, kind, sent
):
    connection = Connection(Target.platform("127.0.0.1", 1, "a.b"))
    connection.connection_made(Sink())
    connection.fresh = fresh
    waiting = connection.exchange(b"head", (b"",), 10, asyncio.get_running_loop().time() + 10)
    connection.connection_lost(CertificateAlert())
    with pytest.raises(kind) as caught:
        await waiting
    assert caught.value.sent is sent


async def test_server_that_speaks_older_tls_is_refused(mesh):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    load_into(context, mesh.ca.svid(mesh.ca.platform()))
    async with impostor(context, silent) as port:
        target = Target.platform("127.0.0.1", port, mesh.ca.trust_domain)
        words = "no TLS connection|during the handshake"
        with pytest.raises((PeerRefusedError, WorkerUnreachableError), match=words) as caught:
            await mesh.client.request(target, "GET", "/", deadline_s=30)
    assert caught.value.sent is False
