"""The few ASGI pieces that the step routes need: body in, answer out."""

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

import msgspec

from hivemesh_sdk.contracts.names import PROBLEM_MEDIA_TYPE
from hivemesh_sdk.contracts.problems import Problem
from hivemesh_sdk.errors import FatalError
from hivemesh_sdk.transport.direct import header_pairs

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Lines = list[bytes]  # headers as `name: value`

MAX_REQUEST_BYTES = 16 * 1024 * 1024  # two pages; more comes by reference
_ONE_WRITE_BYTES = 64 * 1024
_encode = msgspec.json.Encoder().encode


async def read_body(receive: Receive) -> bytes:
    """The whole body of a request.

    Raises:
        FatalError: `too-large`, or `malformed` where the client went away.
    """
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        return body
    parts, size = [body], len(body)
    while message.get("more_body"):
        message = await receive()
        if message["type"] == "http.disconnect":
            text = "the client went away"
            raise FatalError(text, slug="malformed")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_REQUEST_BYTES:
            text = f"more than {MAX_REQUEST_BYTES} bytes; send large inputs by reference"
            raise FatalError(text, slug="too-large")
    return b"".join(parts)


async def answer(send: Send, status: int, lines: Lines, chunks: Sequence[bytes]) -> None:
    """Send an answer: a small one in one piece, a large one without copying it."""
    size = sum(map(len, chunks))
    headers = header_pairs([*lines, b"content-length: %d" % size])
    await send({"type": "http.response.start", "status": status, "headers": headers})
    if size <= _ONE_WRITE_BYTES:
        await send({"type": "http.response.body", "body": b"".join(chunks)})
        return
    for chunk in chunks:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def answer_problem(send: Send, problem: Problem, lines: Lines) -> None:
    """Send a problem document."""
    status, body = problem_body(problem, lines)
    await answer(send, status, lines, (body,))


def problem_body(problem: Problem, lines: Lines) -> tuple[int, bytes]:
    """Status and body of a problem; adds its headers, `Retry-After` where it is worth a try."""
    lines.append(b"content-type: " + PROBLEM_MEDIA_TYPE.encode())
    if problem.retry_after_s is not None:
        lines.append(b"retry-after: %d" % max(1, round(problem.retry_after_s)))
    return problem.status, _encode(problem)
