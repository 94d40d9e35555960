"""Heads and answers that are read without the parser mean what the parser makes of them."""

import asyncio
import re

import pytest
from hivemesh_sdk.clock import SystemClock
from hivemesh_sdk.transport import Limits, Target, TransportError
from hivemesh_sdk.transport import connection as connections
from hivemesh_sdk.transport.connection import Connection
from hivemesh_sdk.transport.limits import Guard
from hivemesh_sdk.transport.protocol import Connections
from hivemesh_sdk.trust.denials import Denials
from hivemesh_sdk.trust.refusals import Refusals
from hypothesis import example, given, settings
from hypothesis import strategies as st

FIRST = b"PUT /v1/steps/r.n.1 HTTP/1.1\r\ncontent-length: 3\r\n"
LINES = b"hivemesh-deadline-ms: 9\r\nhost: x\r\nprefer: wait=20\r\n\r\n"
REQUEST = FIRST + LINES + b"abc"
ANSWER = (
    b"HTTP/1.1 200 OK\r\ndate: Sun, 22 Nov 2026 09:07:58 GMT\r\nx-request-id: w-1\r\n"
    b"content-type: application/vnd.hivemesh.events\r\nhivemesh-execution: e1\r\n"
    b"content-length: 3\r\n\r\nabc"
)
PIECES = [
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b":",
    b",",
    b"0",
    b"1",
    b"9",
    b"-",
    b"+",
    b"A",
    b"\0",
    b"\x80",
    b"%41",
    b"?a=b",
    b"#",
    b"\r\n\r\n",
    b"\r\n ",
    b"content-length: 3\r\n",
    b"content-length: 4\r\n",
    b"Content-Length: 3\r\n",
    b"transfer-encoding: chunked\r\n",
    b"connection: close\r\n",
    b"connection: upgrade\r\nupgrade: h2c\r\n",
    b"expect: 100-continue\r\n",
    b"hivemesh-deadline-ms: 1\r\n",
    b"x-request-id: 7\r\n",
    b"hivemesh-acknowledge: r.n.1:1,r.n.2:1\r\n",
    b"x-request-id: a b\r\n",
    b"traceparent: 00-1-2-3\r\n",
    b"host: y\r\n",
    b"HTTP/1.0",
    b"100 Continue",
]


def edited(text: bytes) -> st.SearchStrategy[bytes]:
    """The text with a few pieces put in, taken out or replaced."""
    edit = st.tuples(st.integers(0, len(text)), st.integers(0, 3), st.sampled_from([b"", *PIECES]))

    def apply(edits):
        data = text
        for place, removed, piece in edits:
            data = data[:place] + piece + data[place + removed :]
        return data

    return st.lists(edit, max_size=2).map(apply)


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self):
        super().__init__()
        self.written, self.closed = b"", False

    def write(self, data):
        if not self.closed:
            self.written += data

    def is_closing(self):
        return self.closed

    def close(self):
        self.closed = True

    abort = close

    def pause_reading(self): ...

    def resume_reading(self): ...

    def get_write_buffer_size(self):
        return 0


class Seen:
    """Answers either way alike, and keeps what it was asked."""

    def __init__(self):
        self.asked = []

    def takes(self, scope):
        return scope["method"] == "PUT" and scope["path"].startswith("/v1/steps/")

    def direct(self, scope, headers, body, reply):
        reply.answer(200, [b"x: y"], self.answer({**scope, "headers": headers.items()}, body))

    async def __call__(self, scope, receive, send):
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message["body"], message["more_body"]
        body = self.answer(scope, body)
        headers = [(b"x", b"y"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def answer(self, scope, body):
        parts = ("method", "path", "raw_path", "query_string", "http_version", "headers")
        self.asked.append((*(scope[part] for part in parts), body))
        return b"<%b>" % body


def guard():
    clock = SystemClock()
    return Guard(
        limits=Limits(),
        clock=clock,
        refusals=Refusals(clock),
        denials=Denials(),
        trust_domain=lambda: "a.b",
        trusted=lambda _chain: True,
        identity_required=False,
    )


class NothingKnown:
    """Leaves everything to the parser."""

    def read(self, _data, _at):
        return None

    def learn(self, scope): ...


async def made_of(data: bytes, *, known: bool):
    """What the server makes of `data` once it has read a request with the usual head twice."""
    app, transport = Seen(), Transport()
    protocol = Connections(app, guard()).open()
    if not known:
        protocol.heads = NothingKnown()
    protocol.connection_made(transport)
    for piece in (REQUEST, REQUEST, data):
        protocol.data_received(piece)
        for _ in range(12):  # requests that a task answers take some turns
            await asyncio.sleep(0)
    answers = [
        (status, b"connection: close" in head, body)
        for status, head, body in re.findall(
            rb"HTTP/1.1 (\d+) [^\r]*\r\n(.*?)\r\n\r\n((?:<.*?>)?)", transport.written, re.DOTALL
        )
    ]
    found = app.asked, answers, transport.closed
    protocol.connection_lost(None)
    return found


@settings(deadline=None, max_examples=100)
@given(st.lists(st.one_of(st.just(REQUEST), edited(REQUEST)), min_size=1, max_size=3))
@example([FIRST + b"x-request-id: 1\r\nx-request-id: 2\r\n" + LINES + b"abc"])
@example([REQUEST, FIRST + b"transfer-encoding: chunked\r\n" + LINES + b"0\r\n\r\n"])
@example([REQUEST.replace(b"host: x", b"host: x\n"), REQUEST])
@example([REQUEST[:-1]])
def test_known_head_means_what_the_parser_makes_of_it(requests):
    data = b"".join(requests)
    full = asyncio.run(made_of(data, known=False))
    assert asyncio.run(made_of(data, known=True)) == full


async def told_of(data: bytes, asked: int):
    """What the client makes of `data` as the answers to so many requests."""
    connection, transport = Connection(Target.platform("127.0.0.1", 1, "a.b")), Transport()
    connection.connection_made(transport)
    until = asyncio.get_running_loop().time() + 60
    waiting = [connection.exchange(b"", (b"",), 10, until) for _ in range(asked)]
    connection.data_received(data)
    found = []
    for one in waiting:
        if not one.done():
            found.append(None)
        elif isinstance(one.exception(), TransportError):
            found.append("failed")
        else:
            answer = one.result()
            found.append((answer.status, answer.headers, answer.body))
    reusable = connection.reusable
    connection.connection_lost(None)
    for one in waiting:
        one.exception()
    return found, reusable


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.one_of(st.just(ANSWER), edited(ANSWER)), min_size=1, max_size=3), st.integers(1, 3)
)
@example([ANSWER, ANSWER], 1)
@example([ANSWER.replace(b"3\r\n", b"11\r\n") + b"." * 8], 1)
@example([ANSWER.replace(b"w-1", b"w-1\r\nconnection: close")], 2)
def test_known_answer_means_what_the_parser_makes_of_it(answers, asked):
    data = b"".join(answers)
    fast = asyncio.run(told_of(data, asked))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connections, "KNOWN_ANSWER", re.compile(b"(?!)"))
        assert asyncio.run(told_of(data, asked)) == fast
