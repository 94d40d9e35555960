"""Requests that are answered without a task, and those that are not."""

import asyncio
import json

import pytest
from hivemesh_sdk.transport import Limits

PUT = b"PUT /direct HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
REPEATED = (
    b"PUT /direct HTTP/1.1\r\ncontent-length: %d\r\nhivemesh-deadline-ms: 9\r\n"
    b"host: x\r\n%b\r\n\r\n"
)


def seen(headers):
    return b"".join(b"%b=%b " % header for header in sorted(headers.items()))


class Both:
    """Answers directly below `/direct`, and says by which way a request came."""

    def __init__(self, *, wait=False, raises=False, size=0):
        self.wait, self.raises, self.size = wait, raises, size
        self.replies = []
        self.called = asyncio.Event()

    def takes(self, scope):
        return scope["path"] == "/direct"

    def direct(self, scope, headers, body, reply):
        if self.raises:
            raise ValueError
        self.called.set()
        if self.wait:
            reply.later()
            self.replies.append(reply)
        else:
            self.give(reply, self.give_with(headers, body))

    def give_with(self, _headers, body):
        return body

    def give(self, reply, body=b""):
        reply.answer(200, [b"way: direct"], body + b"." * self.size)

    async def __call__(self, scope, receive, send):
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        headers = [(b"way", b"asgi"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def test_whole_request_is_answered_directly(mesh_of, wire):
    async with mesh_of(Both()) as mesh:
        connection = await wire(mesh)
        for _ in range(2):
            connection.send(PUT % 3 + b"abc")
            status, headers, body = await connection.answer()
            assert (status, headers["way"], body) == (200, "direct", b"abc")
            assert "date" in headers


async def test_request_that_comes_in_parts_goes_to_asgi(mesh_of, wire):
    async with mesh_of(Both()) as mesh:
        connection = await wire(mesh)
        connection.send(PUT % 3 + b"a")
        while not mesh.listener.requests:  # noqa: ASYNC110 - the transport sets no event of ours
            await asyncio.sleep(0)
        connection.send(b"bc")
        _, headers, body = await connection.answer()
    assert (headers["way"], body) == ("asgi", b"abc")


async def test_request_behind_another_waits_for_its_answer(mesh_of, wire):
    app = Both(wait=True)
    async with mesh_of(app) as mesh:
        connection = await wire(mesh)
        connection.send(PUT % 1 + b"a" + PUT % 1 + b"b")
        async with asyncio.timeout(30):
            await app.called.wait()
        assert mesh.listener.requests == 1
        app.give(app.replies[0], b"a")
        first, second = await connection.answer(), await connection.answer()
        assert (first[1]["way"], first[2]) == ("direct", b"a")
        assert (second[1]["way"], second[2]) == ("asgi", b"b")


async def test_closing_waits_for_a_direct_answer(mesh_of, wire):
    app = Both(wait=True)
    async with mesh_of(app) as mesh:
        connection = await wire(mesh)
        connection.send(PUT % 0)
        async with asyncio.timeout(30):
            await app.called.wait()
        closing = asyncio.create_task(mesh.listener.close())
        await asyncio.sleep(0)  # it has begun to close
        app.give(app.replies[0], b"late")
        status, headers, body = await connection.answer()
        await closing
    assert (status, headers["connection"], body) == (200, "close", b"late")


async def test_failure_is_answered_and_closes(mesh_of, wire):
    async with mesh_of(Both(raises=True)) as mesh:
        connection = await wire(mesh)
        connection.send(PUT % 0)
        status, _, body = await connection.answer()
        assert status == 500
        assert json.loads(body)["type"].endswith(":internal")
        assert await connection.rest() == b""


async def test_large_answer_arrives_whole(mesh_of, wire):
    async with mesh_of(Both(size=3_000_000)) as mesh:
        connection = await wire(mesh)
        connection.send(PUT % 0)
        _, headers, body = await connection.answer()
    assert (headers["way"], len(body)) == ("direct", 3_000_000)


async def test_answer_to_a_client_that_left_goes_nowhere(mesh_of, wire):
    app = Both(wait=True)
    async with mesh_of(app) as mesh:
        connection = await wire(mesh)
        connection.send(PUT % 0)
        async with asyncio.timeout(30):
            await app.called.wait()
        connection.writer.close()
        while mesh.listener.connections:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
        app.give(app.replies[0])
        assert mesh.listener.requests == 0


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\0"])
async def test_header_with_a_line_of_its_own_is_not_sent(mesh_of, wire, value):
    app = Both()
    app.give = lambda reply, body: reply.answer(200, [b"way: " + value], body)
    async with mesh_of(app) as mesh:
        connection = await wire(mesh)
        connection.send(PUT % 0)
        status, headers, _ = await connection.answer()
    assert (status, "set-cookie" in headers) == (500, False)


async def test_repeated_head_is_read_anew_for_each_request(mesh_of, wire):
    app = Both()
    app.give_with = lambda headers, body: seen(headers) + body
    async with mesh_of(app) as mesh:
        connection = await wire(mesh)
        for body in (b"a", b"bb", b"ccc"):
            connection.send(REPEATED % (len(body), b"x: 1") + body)
            _, _, answered = await connection.answer()
            assert (
                answered
                == b"content-length=%d hivemesh-deadline-ms=9 host=x x=1 " % len(body) + body
            )


async def test_known_head_in_parts_or_with_more_behind_it_is_parsed(mesh_of, wire):
    async with mesh_of(Both()) as mesh:
        connection = await wire(mesh)
        whole = REPEATED % (1, b"x: 1") + b"a"
        connection.send(whole)
        assert (await connection.answer())[2] == b"a"
        connection.send(whole + whole)
        assert [(await connection.answer())[2] for _ in range(2)] == [b"a", b"a"]
        connection.send(whole[:-1])
        while not mesh.listener.requests:  # noqa: ASYNC110 - the transport sets no event of ours
            await asyncio.sleep(0)
        connection.send(whole[-1:])
        assert (await connection.answer())[2] == b"a"


async def test_line_that_frames_the_body_is_never_known(mesh_of, wire):
    async with mesh_of(Both()) as mesh:
        connection = await wire(mesh)
        for _ in range(2):
            connection.send(REPEATED % (1, b"content-length: 2") + b"ab")
            status, _, _ = await connection.answer()
            assert status == 400
            connection = await wire(mesh)
        for _ in range(2):
            connection.send(REPEATED % (1, b"connection: close") + b"a")
            _, headers, _ = await connection.answer()
            assert headers["connection"] == "close"
            connection = await wire(mesh)


async def test_limits_hold_for_a_known_head(mesh_of, wire):
    async with mesh_of(Both(), limits=Limits(body=100)) as mesh:
        connection = await wire(mesh)
        for size, status in ((100, 200), (100, 200), (101, 413)):
            connection.send(REPEATED % (size, b"x: 1") + b"." * size)
            assert (await connection.answer())[0] == status


async def test_peer_is_judged_on_every_request_with_a_known_head(mesh_of, wire):
    async with mesh_of(Both()) as mesh:
        connection = await wire(mesh)
        request = REPEATED % (1, b"x: 1") + b"a"
        for _ in range(2):
            connection.send(request)
            assert (await connection.answer())[0] == 200
        mesh.clock.advance(2 * 86400)
        connection.send(request)
        status, _, body = await connection.answer()
        assert status == 401
        assert b"peer-certificate-expired" in body


async def test_only_varying_lines_may_stand_before_a_known_head(mesh_of, wire):
    app = Both()
    app.give_with = lambda headers, body: seen(headers) + body
    async with mesh_of(app) as mesh:
        connection = await wire(mesh)
        first = b"PUT /direct HTTP/1.1\r\ncontent-length: 1\r\n%bhost: x\r\n\r\na"
        for lines in (
            b"x-request-id: 1\r\n",
            b"x-request-id: 2\r\ntraceparent: 3\r\n",
            b"a: b\r\n",
        ):
            connection.send(first % lines)
            _, _, answered = await connection.answer()
            pairs = lines.replace(b": ", b"=").replace(b"\r\n", b" ")
            expected = b"content-length=1 " + pairs + b"host=x a"
            assert sorted(answered.split()) == sorted(expected.split())


async def test_request_behind_a_large_answer_keeps_its_body(mesh_of, wire):
    app = Both(wait=True, size=3_000_000)
    async with mesh_of(app) as mesh:
        connection = await wire(mesh)
        connection.send(PUT % 1 + b"a" + PUT % 2 + b"b")
        async with asyncio.timeout(30):
            await app.called.wait()
        app.give(app.replies[0], b"a")
        connection.send(b"c")
        first, second = await connection.answer(), await connection.answer()
    assert len(first[2]) == 3_000_001
    assert (second[1]["way"], second[2]) == ("asgi", b"bc")
