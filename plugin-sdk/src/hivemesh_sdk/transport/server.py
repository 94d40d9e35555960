"""Listeners: the mesh (client certificate required) and enrolment (server certificate only).

A listener serves one ASGI application without lifespan events: its owner opens and closes things.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from email.utils import formatdate

from hivemesh_sdk.clock import Clock, SystemClock
from hivemesh_sdk.transport.answers import Application
from hivemesh_sdk.transport.limits import Guard, Limits
from hivemesh_sdk.transport.protocol import Connections
from hivemesh_sdk.trust.denials import Denials
from hivemesh_sdk.trust.source import IdentitySource

SWEEP_EVERY_S = 1.0
EXPEL_S = 0.2
FLUSH_S = 0.3  # for the last bytes and the TLS farewell of each connection; many never say theirs


class Listener:
    """One open port with its connections."""

    def __init__(
        self,
        app: Application,
        context: ssl.SSLContext,
        guard: Guard,
        *,
        drain_s: float,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self._context = context
        self._guard = guard
        self._drain_s = drain_s
        self._on_close = on_close
        self._connections = Connections(app, guard)
        self._server: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()
        guard.connection_closed = self._note_closed
        self.host = ""
        self.port = 0

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections.all())

    @property
    def requests(self) -> int:
        """How many requests are being answered."""
        return self._connections.requests

    async def open(self, host: str, port: int, sock: socket.socket | None) -> None:
        """Start listening; port 0 takes a free one."""
        loop = asyncio.get_running_loop()
        address = {"sock": sock} if sock is not None else {"host": host, "port": port}
        self._server = await loop.create_server(
            self._connections.open,
            **address,
            ssl=self._context,
            backlog=2048,
            ssl_handshake_timeout=self._guard.limits.handshake_s,
        )
        self.host, self.port = self._server.sockets[0].getsockname()[:2]
        self._tick()

    def sweep(self) -> None:
        """Close connections that are too slow, too old or idle; runs every second by itself."""
        now = self._guard.clock.monotonic()
        for connection in self._connections.all():
            connection.sweep(now)

    def expel(self) -> None:
        """End what is being answered to peers that the deny list names.

        A moment later, so that who was just refused may hear it. Their idle connections are
        refused, with the reason, at the next request.
        """
        asyncio.get_running_loop().call_later(EXPEL_S, self._abort_denied)

    def _abort_denied(self) -> None:
        denials = self._guard.denials
        for connection in self._connections.all():
            peer = connection.standing.peer
            if connection.idle_since is None and peer is not None and denials.refuses(peer):
                connection.transport.abort()

    async def close(self) -> None:
        """Stop accepting, let running requests end for `drain_s`, then close everything."""
        if self._server is not None:
            self._server.close()
        for connection in self._connections.all():
            connection.shutdown()
        self._on_close()
        running = self._connections.running()
        if running:
            _, late = await asyncio.wait(running, timeout=self._drain_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._close_connections()
        if self._timer is not None:
            self._timer.cancel()

    async def _close_connections(self) -> None:
        self._note_closed()
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_S):
                await self._empty.wait()
        for connection in self._connections.all():
            connection.transport.abort()
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_S):
                await self._empty.wait()

    def _note_closed(self) -> None:
        if self._connections.all():
            self._empty.clear()
        else:
            self._empty.set()

    def _tick(self) -> None:
        self._connections.set_date(formatdate(self._guard.clock.now().timestamp(), usegmt=True))
        self.sweep()
        self._timer = asyncio.get_running_loop().call_later(SWEEP_EVERY_S, self._tick)


@asynccontextmanager
async def serve(  # noqa: PLR0913 - keyword-only settings of one listener
    app: Application,
    source: IdentitySource,
    host: str,
    port: int,
    *,
    limits: Limits | None = None,
    sock: socket.socket | None = None,
    clock: Clock | None = None,
    denials: Denials | None = None,
    drain_s: float = 10.0,
    on_close: Callable[[], None] = lambda: None,
) -> AsyncIterator[Listener]:
    """Serve `app` on the mesh: every client shows a certificate of this installation.

    The verified client is `scope["state"]["peer"]` (a `Peer`) in each request. `on_close` is called
    when no further request is accepted, for requests that only wait to be answered then.
    """
    denials = denials or Denials()
    guard = Guard(
        limits=limits or Limits(),
        clock=clock or SystemClock(),
        refusals=source.refusals,
        denials=denials,
        trust_domain=lambda: source.trust_domain,
        trusted=lambda chain: source.bundle().trusts(chain),
    )
    listener = Listener(app, source.front_context(), guard, drain_s=drain_s, on_close=on_close)
    ends = (source.subscribe(lambda _: denials.touch()), denials.subscribe(listener.expel))
    try:
        await listener.open(host, port, sock)
        yield listener
    finally:
        for end in ends:
            end()
        await listener.close()


@asynccontextmanager
async def enrolment_listener(  # noqa: PLR0913 - keyword-only settings of one listener
    app: Application,
    source: IdentitySource,
    host: str,
    port: int,
    *,
    limits: Limits | None = None,
    sock: socket.socket | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[Listener]:
    """Serve `app` to newcomers that have no certificate; it must offer enrolment and nothing else."""
    guard = Guard(
        limits=limits or Limits(connections=256, requests=64, body=64 * 1024),
        clock=clock or SystemClock(),
        refusals=source.refusals,
        denials=Denials(),
        trust_domain=lambda: source.trust_domain,
        trusted=lambda _chain: True,
        identity_required=False,
    )
    listener = Listener(app, source.enrolment_front_context(), guard, drain_s=2.0)
    try:
        await listener.open(host, port, sock)
        yield listener
    finally:
        await listener.close()
