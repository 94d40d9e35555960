"""What stands before the routes of each listener and finds the principal; pure ASGI.

The mesh knows its callers by their certificates. The people listener knows them by an API token in
the `Authorization` header alone: in an address or a cookie it would end up in logs and histories.
"""

from collections.abc import Callable, Collection
from urllib.parse import parse_qsl

from hivemesh_sdk.errors import FatalError, HivemeshError, NotAuthorizedError
from hivemesh_sdk.trust.identity import Peer
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hivemesh_platform.access.service import AccessService, TokenRefusedError
from hivemesh_platform.api.errors import document_of, respond
from hivemesh_platform.api.requests import request_id
from hivemesh_platform.audit.model import AuditEvent
from hivemesh_platform.trust.failures import FailureLimit

Note = Callable[[AuditEvent], None]

REALM = 'Bearer realm="hivemesh"'
MAX_TOKEN = 256  # bytes of the header; a token has 64
_FOREIGN_HEADERS = frozenset({b"x-api-key", b"api-key", b"x-auth-token", b"x-access-token"})
_IN_QUERY = frozenset({"token", "access_token", "api_key", "apikey", "api-key"})
_STRICT_TRANSPORT = (b"strict-transport-security", b"max-age=31536000")
_SECURITY = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)


class TokenMissingError(NotAuthorizedError):
    """The request has no API token where one belongs."""

    slug = "token-missing"


class HostNotAllowedError(FatalError):
    """The request is for a name under which the platform does not answer."""

    slug = "host-not-allowed"


class MeshFront:
    """Finds the principal of the certificate that the connection has shown."""

    def __init__(self, app: ASGIApp, access: AccessService, note: Note) -> None:
        self.app = app
        self._access = access
        self._note = note

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; without a certificate it goes on without a principal."""
        if scope["type"] == "http":
            state = scope.setdefault("state", {})
            peer = state.get("peer")
            state["note"] = self._note
            state.pop("principal", None)
            if isinstance(peer, Peer):
                try:
                    state["principal"] = await self._access.principal_of(peer)
                except HivemeshError as error:  # the database is away
                    place, request = scope["path"], request_id(scope)
                    refusal = respond(document_of(error, instance=place, request=request))
                    await refusal(scope, receive, send)
                    return
        await self.app(scope, receive, send)


class PeopleFront:
    """Lets in who calls one of our names with a valid API token, and hardens every answer."""

    def __init__(
        self,
        app: ASGIApp,
        access: AccessService,
        note: Note,
        failures: FailureLimit,
        names: Callable[[], Collection[str]],
    ) -> None:
        self.app = app
        self._access = access
        self._note = note
        self._failures = failures
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return

        security = _security(_host(scope))

        async def hardened(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message.get("headers", ())}
                added = [one for one in security if one[0] not in present]
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        try:
            self._check_host(scope)
            principal = await self._identified(scope)
        except HivemeshError as error:
            await self._refuse(error, scope, receive, hardened)
            return
        state = scope.setdefault("state", {})
        state["note"], state["peer"], state["principal"] = self._note, None, principal
        await self.app(scope, receive, hardened)

    def _check_host(self, scope: Scope) -> None:
        host = _host(scope)
        if host not in self._names():
            message = f"{host[:100]!r} is none of the names of this platform"
            raise HostNotAllowedError(message)

    async def _identified(self, scope: Scope) -> object:
        token = _bearer(scope)
        try:
            return await self._access.principal_of(token)
        except TokenRefusedError:
            address = scope["client"][0] if scope.get("client") else ""
            self._note(
                AuditEvent(
                    actor=f"address:{address}",
                    action="run:token",
                    decision="deny",
                    reason="unknown, expired or revoked",
                    address=address,
                )
            )
            self._failures.add(address)
            raise

    async def _refuse(
        self, error: HivemeshError, scope: Scope, receive: Receive, send: Send
    ) -> None:
        document = document_of(error, instance=scope["path"], request=request_id(scope))
        headers = {}
        if document.status == 401:
            told = ', error="invalid_token"' if isinstance(error, TokenRefusedError) else ""
            headers["www-authenticate"] = REALM + told
        await respond(document, headers)(scope, receive, send)


def _host(scope: Scope) -> str:
    """The name that the request is for; empty where it names none or several."""
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    return _without_port(hosts[0].decode("latin-1")) if len(hosts) == 1 else ""


def _security(host: str) -> tuple[tuple[bytes, bytes], ...]:
    """A browser applies the strict transport of `localhost` to other programs' ports as well."""
    return _SECURITY if host == "localhost" else (*_SECURITY, _STRICT_TRANSPORT)


def _bearer(scope: Scope) -> str:
    """The token of the one `Authorization: Bearer` header.

    Raises:
        TokenMissingError: there is none, or the token came another way.
    """
    names = [name for name, _ in scope["headers"]]
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    if not _FOREIGN_HEADERS.isdisjoint(names) or any(key.lower() in _IN_QUERY for key, _ in query):
        message = "a token is taken from the header `Authorization: Bearer` only; revoke this one"
        raise TokenMissingError(message)
    found = [value for name, value in scope["headers"] if name == b"authorization"]
    scheme, _, token = found[0].decode("latin-1").partition(" ") if found else ("", "", "")
    if len(found) != 1 or scheme.lower() != "bearer" or not token or len(token) > MAX_TOKEN:
        message = "send one header `Authorization: Bearer <token>`"
        raise TokenMissingError(message)
    return token.strip()


def _without_port(host: str) -> str:
    """The name in a Host header, lower case; an IPv6 address without its brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().rstrip(".")
