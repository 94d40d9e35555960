"""How answers leave: framing, one write, and applications that fail."""

import asyncio
import logging

import pytest
from hivemesh_sdk.transport.protocol import MeshCycle
from hivemesh_sdk.trust.refusals import Reason
from structlog.testing import capture_logs
from uvicorn.protocols.http.flow_control import FlowControl

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


def answering(*messages):
    async def application(scope, receive, send):
        for message in messages:
            await send(message)

    return application


def start(status=200, headers=()):
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data=b"", *, more=False):
    return {"type": "http.response.body", "body": data, "more_body": more}


class Spy(asyncio.Transport):
    """Remembers each write."""

    def __init__(self):
        super().__init__()
        self.writes = []

    def write(self, data):
        self.writes.append(bytes(data))

    def writelines(self, data):
        self.writes.append(b"".join(data))

    def is_closing(self):
        return False

    def close(self):
        pass


async def run(application, method="GET"):
    spy = Spy()
    cycle = MeshCycle(
        scope={"type": "http", "method": method, "path": "/", "headers": []},
        transport=spy,
        flow=FlowControl(spy),
        logger=logging.getLogger("test"),
        access_logger=logging.getLogger("test"),
        access_log=False,
        default_headers=[],
        message_event=asyncio.Event(),
        expect_100_continue=False,
        keep_alive=True,
        on_response=lambda: None,
    )
    cycle.more_body = False
    await cycle.run_asgi(application)
    return spy.writes


async def test_head_and_body_leave_in_one_write():
    writes = await run(answering(start(headers=[(b"Content-Length", b"2")]), body(b"ok")))
    assert writes == [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"]


async def test_body_without_length_is_chunked():
    writes = await run(answering(start(), body(b"one", more=True), body(b"two")))
    assert writes == [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n",
        b"3\r\ntwo\r\n0\r\n\r\n",
    ]


async def test_no_content_has_no_framing():
    assert await run(answering(start(204), body())) == [b"HTTP/1.1 204 No Content\r\n\r\n"]


async def test_answer_to_head_has_no_body():
    length = [(b"content-length", b"3")]
    writes = await run(answering(start(headers=length), body(b"abc")), method="HEAD")
    assert writes == [b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n"]


@pytest.mark.parametrize(
    "value", [b"a\r\nset: b", b"a\n", b"a\r", b"a\0b", b"\r\n", b"x\r\n"], ids=repr
)
async def test_header_with_a_line_break_never_leaves(value):
    [answer] = await run(answering(start(headers=[(b"x", value)]), body()))
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"\r\nx: " not in answer


@pytest.mark.parametrize("data", [b"too long", b"s"], ids=["longer", "shorter"])
async def test_body_that_differs_from_its_length_breaks_the_connection(mesh_of, wire, data):
    application = answering(start(headers=[(b"content-length", b"3")]), body(data))
    async with mesh_of(application) as mesh:
        connection = await wire(mesh)
        connection.send(GET)
        assert not (await connection.rest()).endswith(b"\r\n\r\n" + data + data)


@pytest.mark.parametrize(
    "application",
    [
        answering(),
        answering(start()),
        answering(body(b"early")),
        answering(start(), start()),
        answering({"type": "http.response.trailers"}),
    ],
    ids=["silent", "head-only", "no-start", "two-starts", "unknown"],
)
async def test_application_that_breaks_the_rules_is_answered_for(mesh_of, wire, application):
    async with mesh_of(application) as mesh:
        connection = await wire(mesh)
        connection.send(GET)
        status, headers, text = await connection.answer()
        assert (status, headers["connection"]) == (500, "close")
        assert b"urn:hivemesh:problem:internal" in text


async def test_failing_application_tells_its_caller_nothing(mesh_of, wire):
    async def application(scope, receive, send):
        message = "secret detail"
        raise LookupError(message)

    async with mesh_of(application) as mesh:
        connection = await wire(mesh)
        with capture_logs() as lines:
            connection.send(b"GET /a HTTP/1.1\r\nhost: x\r\nx-request-id: r-7\r\n\r\n")
            status, _, text = await connection.answer()
    assert [(line["event"], line["path"]) for line in lines] == [("request_failed", "/a")]
    assert status == 500
    assert b"secret" not in text
    assert b'"request_id":"r-7"' in text


async def test_application_that_fails_after_its_caller_left_is_not_logged(mesh_of, wire, until):
    entered, gone = asyncio.Event(), asyncio.Event()

    async def application(scope, receive, send):
        await receive()
        entered.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        await send(start(204))
        gone.set()
        message = "nobody hears this"
        raise LookupError(message)

    async with mesh_of(application) as mesh:
        connection = await wire(mesh)
        connection.send(GET)
        await entered.wait()
        with capture_logs() as lines:
            connection.writer.transport.abort()
            await gone.wait()
            await until(lambda: mesh.listener.requests == 0)
    assert lines == []


async def test_framing_headers_of_the_application_are_ours(mesh_of, wire):
    headers = [
        (b"transfer-encoding", b"gzip"),
        (b"connection", b"close"),
        (b"content-length", b"2"),
    ]
    async with mesh_of(answering(start(headers=headers), body(b"ok"))) as mesh:
        connection = await wire(mesh)
        connection.send(GET)
        status, answered, text = await connection.answer()
        assert (status, text, "transfer-encoding" in answered) == (200, b"ok", False)
        assert answered["connection"] == "close"
        assert await connection.rest() == b""


async def test_early_answer_and_late_body_share_the_connection(mesh_of, wire, until):
    async with mesh_of(answering(start(204), body())) as mesh:
        connection = await wire(mesh)
        for _ in range(2):
            connection.send(b"PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n")
            assert (await connection.answer())[0] == 204
            connection.send(b"late")
        [served] = mesh.listener._connections.all()
        await until(lambda: served.idle_since is not None)


async def test_slow_reader_slows_the_application(mesh_of, wire, until):
    sent = []

    async def application(scope, receive, send):
        await send(start())
        for number in range(200):
            await send(body(b"x" * 100_000, more=True))
            sent.append(number)
        await send(body())

    async with mesh_of(application) as mesh:
        connection = await wire(mesh)
        connection.writer.transport.pause_reading()
        connection.send(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        await until(lambda: bool(sent) and mesh.listener._connections.all()[0].flow.write_paused)
        assert len(sent) < 200
        connection.writer.transport.resume_reading()
        assert (await connection.rest()).endswith(b"0\r\n\r\n")
        assert len(sent) == 200


async def test_peer_that_takes_nothing_of_its_answer_is_dropped(mesh_of, wire, until):
    async def endless(scope, receive, send):
        await send(start())
        while not mesh.source.refusals.counts:
            await send(body(b"x" * 100_000, more=True))

    async with mesh_of(endless) as mesh:
        connection = await wire(mesh)
        connection.writer.transport.pause_reading()
        connection.send(GET)
        await until(lambda: mesh.listener.connections == 1)
        [served] = mesh.listener._connections.all()
        await until(lambda: served.stalled_since is not None)

        def dropped() -> bool:
            mesh.clock.advance(21)
            mesh.listener.sweep()
            return mesh.listener.connections == 0

        await until(dropped)
        assert mesh.source.refusals.counts == {Reason.SLOW: 1}


async def test_pipelined_requests_are_answered_in_order(mesh, wire):
    connection = await wire(mesh)
    connection.send(b"GET /1 HTTP/1.1\r\nhost: x\r\n\r\nGET /2 HTTP/1.1\r\nhost: x\r\n\r\n")
    assert [(await connection.answer())[0] for _ in range(2)] == [200, 200]
    assert [path for _, path, _ in mesh.app.requests] == ["/1", "/2"]


async def test_expectation_is_answered_before_the_body(mesh, wire):
    connection = await wire(mesh)
    connection.send(
        b"PUT / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n"
    )
    assert (await connection.answer())[0] == 100
    connection.send(b"ok")
    assert (await connection.answer())[2].endswith(b" 2")


async def test_unread_body_does_not_disturb_the_next_request(mesh_of, wire):
    application = answering(start(headers=[(b"content-length", b"2")]), body(b"ok"))
    async with mesh_of(application) as mesh:
        connection = await wire(mesh)
        for _ in range(2):
            connection.send(b"PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc")
            assert (await connection.answer())[2] == b"ok"


async def test_path_is_decoded_and_query_is_kept(mesh_of, wire):
    seen = []

    async def application(scope, receive, send):
        seen.append((scope["path"], scope["raw_path"], scope["query_string"]))
        await send(start(204))
        await send(body())

    async with mesh_of(application) as mesh:
        connection = await wire(mesh)
        connection.send(b"GET /a%20b?c=%20d HTTP/1.1\r\nhost: x\r\n\r\n")
        await connection.answer()
    assert seen == [("/a b", b"/a%20b", b"c=%20d")]
