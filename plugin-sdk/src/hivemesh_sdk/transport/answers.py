"""Problem documents as answers: by an ASGI application, and as bytes where there is none."""

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
    document = problem(slug, detail)
    body = _ENCODER.encode(document)
    return b"%scontent-type: %s\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (
        STATUS_LINE[document.status],
        PROBLEM_MEDIA_TYPE.encode(),
        len(body),
        body,
    )
