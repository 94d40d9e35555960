"""Calls an ASGI application as a given peer, without sockets."""

from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
from hivemesh_platform.access.model import Principal
from hivemesh_sdk.trust.identity import Peer, SpiffeId
from starlette.types import ASGIApp, Message

TRUST_DOMAIN = "test.hivemesh.internal"


def peer(identity: SpiffeId) -> Peer:
    expires = datetime(2036, 1, 1, tzinfo=UTC)
    return Peer(id=identity, not_after=expires, serial=7, uri=str(identity))


OPERATOR = peer(SpiffeId.user(TRUST_DOMAIN, "operator"))
REPLICA = peer(SpiffeId.platform(TRUST_DOMAIN, "p1"))
WORKER = peer(SpiffeId.worker(TRUST_DOMAIN, "echo", "i1"))


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self):
        return msgspec.json.decode(self.body)


async def call(  # noqa: PLR0913 - what a request consists of
    app: ASGIApp,
    method: str,
    path: str,
    *,
    as_: Peer | None = OPERATOR,
    body: bytes | object = b"",
    headers: dict[str, str] | None = None,
    principal: Principal | None = None,
) -> Answer:
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    sent = {"content-type": "application/json"} if data else {}
    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "https",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [
            (name.encode(), value.encode()) for name, value in {**sent, **(headers or {})}.items()
        ],
        "client": ("127.0.0.1", 40000),
        "server": ("127.0.0.1", 8443),
        "state": {"peer": as_} if as_ is not None else {},
    }
    if principal is not None:  # as `api.fronts` has found it
        scope["state"] = {"principal": principal}
    messages: list[Message] = []
    waiting = [{"type": "http.request", "body": data, "more_body": False}]

    async def receive() -> Message:
        return waiting.pop() if waiting else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        messages.append(message)

    await app(scope, receive, send)
    start = messages[0]
    return Answer(
        status=start["status"],
        headers={name.decode().lower(): value.decode() for name, value in start["headers"]},
        body=b"".join(message.get("body", b"") for message in messages[1:]),
    )
