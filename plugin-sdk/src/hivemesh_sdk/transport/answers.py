"""What answers are made of: problem documents, the head and its check, chunks of a body."""

import http

import msgspec
from uvicorn._types import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, Scope

from hivemesh_sdk.contracts.names import PROBLEM_MEDIA_TYPE, REQUEST_ID_HEADER
from hivemesh_sdk.contracts.problems import problem

Application = ASGI3Application

STATUS_LINE = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode()
    for status in http.HTTPStatus
}
_ENCODER = msgspec.json.Encoder()
_REQUEST_ID = REQUEST_ID_HEADER.encode()


def problem_application(
    slug: str, detail: str, *, retry_after_s: float | None = None
) -> ASGI3Application:
    """An ASGI application that answers one problem and closes the connection."""

    async def application(
        scope: Scope, _receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        document = problem(slug, detail, request_id=_request_id(scope), retry_after_s=retry_after_s)
        body = _ENCODER.encode(document)
        headers = [
            (b"content-type", PROBLEM_MEDIA_TYPE.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        if retry_after_s is not None:
            headers.append((b"retry-after", b"%d" % max(1, round(retry_after_s))))
        await send({"type": "http.response.start", "status": document.status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    return application


def _request_id(scope: Scope) -> str:
    headers = scope["headers"] if scope["type"] == "http" else ()
    for name, value in headers:
        if name == _REQUEST_ID:
            return value[:128].decode("latin-1")
    return ""


def problem_bytes(slug: str, detail: str) -> bytes:
    """A whole answer, for where no application runs."""
    document = problem(slug, detail)
    body = _ENCODER.encode(document)
    return b"%scontent-type: %s\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (
        STATUS_LINE[document.status],
        PROBLEM_MEDIA_TYPE.encode(),
        len(body),
        body,
    )


def chunk(body: bytes, *, last: bool) -> bytes:
    """Frame one piece of a chunked body."""
    end = b"0\r\n\r\n" if last else b""
    return b"%x\r\n%b\r\n%b" % (len(body), body, end) if body else end


def has_body(method: str, status: int) -> bool:
    """Say whether an answer to `method` with `status` carries a body."""
    return method != "HEAD" and status not in {204, 304}


def checked_head(head: bytes, rows: int) -> bytes:
    """Return a head of `rows` lines unchanged.

    Raises:
        RuntimeError: a header value brought a line of its own.
    """
    if head.count(b"\n") != rows or head.count(b"\r") != rows or b"\0" in head:
        text = "a response header holds a line break or NUL"
        raise RuntimeError(text)
    return head
