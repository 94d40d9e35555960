"""The people listener and what stands before its routes: made here, opened by `server`."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from hivemesh_sdk.clock import Clock
from hivemesh_sdk.errors import RetryableError
from hivemesh_sdk.transport import Limits, Listener
from hivemesh_sdk.transport.limits import Guard
from hivemesh_sdk.trust.denials import Denials
from hivemesh_sdk.trust.source import IdentitySource
from starlette.types import ASGIApp

from hivemesh_platform.access.people import PeopleService
from hivemesh_platform.access.service import AccessService
from hivemesh_platform.api.fronts import MeshFront, PeopleFront
from hivemesh_platform.api.requests import RequestIds
from hivemesh_platform.api.whereabouts import Whereabouts
from hivemesh_platform.audit.ports import AuditTrail
from hivemesh_platform.replicas.model import Urls
from hivemesh_platform.settings import ApiSettings
from hivemesh_platform.trust.failures import FailureLimit
from hivemesh_platform.trust.web import WebIssuer

ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - compared only
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
RENEWAL_CHECK_S = 3600.0
DRAIN_S = 2.0


class TokenRateLimitedError(RetryableError):
    """Too many refused tokens from one address."""

    slug = "token-rate-limited"


@dataclass(slots=True, kw_only=True)
class People:
    """Who people are, what they may do, and the listener that they come to."""

    access: AccessService
    service: PeopleService
    web: WebIssuer
    names: tuple[str, ...]
    audit: AuditTrail
    clock: Clock
    replicas: Callable[[], Sequence[Urls]]  # where those that live are reached

    def fronts(self, app: ASGIApp) -> tuple[ASGIApp, ASGIApp]:
        """The application of the mesh and that of people: the same routes, other ways in."""
        failures = FailureLimit(self.clock, what="refused tokens", error=TokenRateLimitedError)
        by_mesh = Whereabouts(app, lambda: [one.mesh for one in self.replicas()])
        by_people = Whereabouts(app, lambda: [one.people for one in self.replicas()])
        mesh = MeshFront(by_mesh, self.access, self.audit.note)
        people = PeopleFront(by_people, self.access, self.audit.note, failures, lambda: self.names)
        return RequestIds(mesh), RequestIds(people)

    async def keep_certificate(self) -> None:
        """Renew the listener's certificate when it is due, until cancelled."""
        while True:
            await asyncio.sleep(RENEWAL_CHECK_S)
            self.web.renew()

    @asynccontextmanager
    async def listen(
        self,
        app: ASGIApp,
        source: IdentitySource,
        sock: socket.socket,
        *,
        limits: Limits,
        on_close: Callable[[], None],
    ) -> AsyncIterator[Listener]:
        """Serve people: TLS 1.3 with a certificate of the web issuer, no client certificate.

        `on_close` is called when no further request is accepted, for those that only wait.
        """
        self.web.open()
        guard = Guard(
            limits=limits,
            clock=self.clock,
            refusals=source.refusals,
            denials=Denials(),
            trust_domain=lambda: source.trust_domain,
            trusted=lambda _root: True,
            identity_required=False,
        )
        listener = Listener(
            app,  # type: ignore[arg-type]  # Starlette types the protocol loosely
            self.web.context,
            guard,
            drain_s=DRAIN_S,
            on_close=on_close,
        )
        try:
            await listener.open("", 0, sock)
            yield listener
        finally:
            await listener.close()


def names_of(api: ApiSettings) -> tuple[str, ...]:
    """The names and addresses under which people may call the platform."""
    host = socket.gethostname() if api.people_host in ANY_ADDRESS else api.people_host
    found: Sequence[str] = (*LOCAL_NAMES, host.lower(), *(one.lower() for one in api.people_names))
    return tuple(dict.fromkeys(found))
