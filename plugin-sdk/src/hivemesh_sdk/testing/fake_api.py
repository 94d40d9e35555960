"""What the fake platform answers over HTTP; only `fake_platform.py` uses it."""

import hashlib
import re
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar
from urllib.parse import parse_qs

import msgspec

from hivemesh_sdk.contracts.artifacts import Grant, GrantRequest
from hivemesh_sdk.contracts.instances import (
    Discovery,
    Heartbeat,
    HeartbeatReply,
    Registration,
    RegistrationReply,
)
from hivemesh_sdk.contracts.names import PROBLEM_MEDIA_TYPE, TICKET_HEADER
from hivemesh_sdk.contracts.policy import POLICY_MEDIA_TYPE
from hivemesh_sdk.contracts.secrets import SecretLease, SecretRequest
from hivemesh_sdk.contracts.submits import SubmitReply, SubmitRequest
from hivemesh_sdk.contracts.tickets import ExchangeReply, ExchangeRequest
from hivemesh_sdk.errors import HivemeshError, InvalidError, NotFoundError
from hivemesh_sdk.trust.identity import Peer
from hivemesh_sdk.trust.wire import EnrolRequest, IdentityAnswer, RenewRequest

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]
T = TypeVar("T")

CONTENT = "/v1/artifacts/content/"
_INSTANCE = re.compile(r"/v1/instances/([^/]+)(/heartbeat)?")
_RANGE = re.compile(r"bytes=([0-9]+)-([0-9]*)")


class Platform(Protocol):
    """The decisions behind the HTTP of the fake."""

    def enrol(self, request: EnrolRequest) -> IdentityAnswer: ...

    def renew(self, request: RenewRequest, peer: Peer) -> IdentityAnswer: ...

    def bundle_json(self) -> bytes: ...

    def register(
        self, instance: str, registration: Registration, peer: Peer
    ) -> RegistrationReply: ...

    def beat(self, instance: str, heartbeat: Heartbeat) -> HeartbeatReply: ...

    def leave(self, instance: str) -> None: ...

    def discovery(self) -> Discovery: ...

    async def policy(self, after: int, wait_s: float) -> str | None: ...

    def grant(self, request: GrantRequest, peer: Peer, ticket: str) -> Grant: ...

    def submit(self, request: SubmitRequest) -> SubmitReply: ...

    def exchange(self, request: ExchangeRequest, peer: Peer) -> ExchangeReply: ...

    def lend(self, request: SecretRequest) -> SecretLease: ...

    def read(self, sha256: str) -> bytes: ...

    def store(self, sha256: str, data: bytes) -> None: ...


class Request:
    """One request with its body."""

    def __init__(self, scope: dict[str, Any], body: bytes) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query = parse_qs(scope["query_string"].decode())
        self.headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.peer: Peer | None = scope["state"].get("peer")
        self.body = body

    def document(self, kind: type[T]) -> T:
        """The body as one of our messages."""
        try:
            return msgspec.json.decode(self.body, type=kind)
        except msgspec.DecodeError as error:
            raise InvalidError(str(error), slug="malformed") from error


class Answer(msgspec.Struct, frozen=True):
    """Status, body and headers."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = {}


class EnrolmentApi:
    """The enrolment listener: one path."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        await _serve(self._answer, scope, receive, send)

    async def _answer(self, request: Request) -> Answer:
        if (request.method, request.path) != ("POST", "/v1/enrol"):
            raise NotFoundError(request.path)
        return _json(self._platform.enrol(request.document(EnrolRequest)))


class MeshApi:
    """The mesh listener: everything a worker asks of its platform."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        await _serve(self._answer_in_time, scope, receive, send)

    async def _answer_in_time(self, request: Request) -> Answer:
        if (request.method, request.path) != ("GET", "/v1/policy"):
            return self._answer(request)
        after, wait_s = (float(request.query.get(name, ["0"])[0]) for name in ("after", "wait"))
        token = await self._platform.policy(int(after), wait_s)
        if token is None:
            return Answer(204)
        return Answer(200, token.encode(), {"content-type": POLICY_MEDIA_TYPE})

    def _answer(self, request: Request) -> Answer:
        if request.path.startswith("/v1/instances/"):
            return self._instance(request)
        if request.path.startswith(CONTENT):
            return self._content(request)
        platform, peer = self._platform, _peer(request)
        match request.method, request.path:
            case "POST", "/v1/renew":
                return _json(platform.renew(request.document(RenewRequest), peer))
            case "GET", "/v1/bundle":
                return Answer(200, platform.bundle_json())
            case "GET", "/v1/discovery":
                return _json(platform.discovery())
            case _:
                return self._of_step(request, peer)

    def _of_step(self, request: Request, peer: Peer) -> Answer:
        match request.method, request.path:
            case "POST", "/v1/artifacts/grants":
                ticket = request.headers.get(TICKET_HEADER, "")
                return _json(self._platform.grant(request.document(GrantRequest), peer, ticket))
            case "POST", "/v1/tickets/exchange":
                return _json(self._platform.exchange(request.document(ExchangeRequest), peer))
            case "POST", "/v1/submits":
                return _json(self._platform.submit(request.document(SubmitRequest)))
            case "POST", "/v1/secrets/resolve":
                return _json(self._platform.lend(request.document(SecretRequest)))
            case _:
                raise NotFoundError(request.path)

    def _instance(self, request: Request) -> Answer:
        match = _INSTANCE.fullmatch(request.path)
        if match is None:
            raise NotFoundError(request.path)
        match request.method, match[2]:
            case "PUT", None:
                registration = request.document(Registration)
                return _json(self._platform.register(match[1], registration, _peer(request)))
            case "POST", "/heartbeat":
                return _json(self._platform.beat(match[1], request.document(Heartbeat)))
            case "DELETE", None:
                self._platform.leave(match[1])
                return Answer(204)
            case _:
                raise NotFoundError(request.path)

    def _content(self, request: Request) -> Answer:
        sha256 = request.path.removeprefix(CONTENT)
        if request.method == "PUT":
            self._platform.store(sha256, request.body)
            return Answer(204)
        data = self._platform.read(sha256)
        wanted = _RANGE.fullmatch(request.headers.get("range", ""))
        if wanted is None:
            return Answer(200, data)
        start, last = int(wanted[1]), int(wanted[2] or len(data))
        if start >= len(data):
            message = f"the artifact has {len(data)} bytes"
            raise InvalidError(message, slug="range-not-satisfiable")
        part = data[start : last + 1]
        place = f"bytes {start}-{start + len(part) - 1}/{len(data)}"
        return Answer(206, part, {"content-range": place})


async def _serve(
    answer: Callable[[Request], Awaitable[Answer]],
    scope: dict[str, Any],
    receive: Receive,
    send: Send,
) -> None:
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message.get("body", b"")
        more = message.get("more_body", False)
    try:
        result = await answer(Request(scope, bytes(body)))
    except HivemeshError as error:
        result = _problem(error)
    headers = {"content-type": "application/json", **result.headers}
    headers["content-length"] = str(len(result.body))
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": result.status, "headers": encoded})
    await send({"type": "http.response.body", "body": result.body, "more_body": False})


def _peer(request: Request) -> Peer:
    assert request.peer is not None, "the mesh listener lets nobody in without an identity"
    return request.peer


def _json(document: msgspec.Struct) -> Answer:
    return Answer(200, msgspec.json.encode(document))


def _problem(error: HivemeshError) -> Answer:
    document = error.problem()
    return Answer(
        document.status, msgspec.json.encode(document), {"content-type": PROBLEM_MEDIA_TYPE}
    )


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
