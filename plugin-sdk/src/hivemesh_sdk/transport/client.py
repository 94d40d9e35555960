"""The mesh's own HTTP/1.1 client: pools per identity, mutual TLS, one deadline per call.

Pools are keyed by the identity called and never by the address alone. The server's identity is
verified before the first byte of a request leaves, so a misrouted call dies unsent. Nothing is
repeated here: an error says whether the request may have been seen, and the ledger decides.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

import httptools
import msgspec

from hivemesh_sdk.clock import Clock, SystemClock
from hivemesh_sdk.contracts.names import DEADLINE_HEADER
from hivemesh_sdk.transport.errors import (
    DeadlineExceededError,
    PeerRefusedError,
    TransportError,
    WorkerUnreachableError,
)
from hivemesh_sdk.trust.chains import verified_root
from hivemesh_sdk.trust.identity import PeerIdentityError, SpiffeId, covers, peer_identity
from hivemesh_sdk.trust.keys import Svid
from hivemesh_sdk.trust.refusals import Reason, handshake_detail
from hivemesh_sdk.trust.source import IdentitySource

MAX_BODY = 16 * 1024 * 1024  # two pages of 8 MiB
ONE_WRITE = 64 * 1024  # below this head and body are joined into one TLS record
IDLE_S = 30.0  # the server allows 75, so that the client is the one to close
AGE_S = 600.0  # the server allows 900
CONNECTIONS_PER_TARGET = 64
SWEEP_EVERY_S = 5.0
CLOSE_S = 1.0
_MARGIN = timedelta(seconds=1)  # no call starts on a certificate in its last second


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect and who must answer there."""

    host: str
    port: int
    identity: str  # exact SPIFFE ID, or a prefix that ends in /*
    server_name: str

    @classmethod
    def instance(cls, host: str, port: int, identity: SpiffeId) -> "Target":
        """One instance and nobody else."""
        return cls(host, port, str(identity), identity.dns_names[0])

    @classmethod
    def any_sibling(cls, host: str, port: int, identity: SpiffeId) -> "Target":
        """Any replica of the platform, or any instance of the worker, that `identity` is one of."""
        return cls(host, port, identity.prefix, identity.dns_names[-1])

    @classmethod
    def platform(cls, host: str, port: int, trust_domain: str) -> "Target":
        """Any replica of the platform."""
        return cls(host, port, f"spiffe://{trust_domain}/platform/*", f"platform.{trust_domain}")


class Response(msgspec.Struct, frozen=True, gc=False):
    """A whole answer; header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class MeshClient:
    """Calls other processes of this installation; one per process, used on one loop."""

    def __init__(
        self,
        source: IdentitySource,
        *,
        clock: Clock | None = None,
        connections_per_target: int = CONNECTIONS_PER_TARGET,
    ) -> None:
        self._source = source
        self._clock = clock or SystemClock()
        self._limit = connections_per_target
        self._pools: dict[Target, _Pool] = {}
        self._unsubscribe = source.subscribe(self._drop_untrusted)
        self._sweeper: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        self._sweep()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def request(  # noqa: PLR0913 - the parts of a request
        self,
        target: Target,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Sequence[bytes] = b"",
        deadline_s: float,
        max_body: int = MAX_BODY,
    ) -> Response:
        """Send one request and return the whole answer, whatever its status.

        Raises:
            WorkerUnreachableError: nobody answers there, or the connection broke.
            PeerRefusedError: one side refused the other's certificate.
            DeadlineExceededError: the answer did not come within `deadline_s`.
        """
        pool = self._pools.get(target)
        if pool is None:
            pool = self._pools[target] = _Pool(target, self._source, self._clock, self._limit)
        chunks = (body,) if isinstance(body, bytes) else body
        head = _head(target, method, path, headers, sum(map(len, chunks)), deadline_s)
        loop = asyncio.get_running_loop()
        until = loop.time() + deadline_s
        connection = pool.take()
        if connection is None:
            connection = await pool.connect(until)
        timer = loop.call_at(until, connection.expire)
        try:
            response = await connection.exchange(head, chunks, max_body)
        except asyncio.CancelledError:
            connection.abort()  # its answer would be read by the next call
            raise
        else:
            return response
        finally:
            timer.cancel()
            pool.give_back(connection)

    async def close(self) -> None:
        """Close every connection; running calls end with an error."""
        self._unsubscribe()
        if self._sweeper is not None:
            self._sweeper.cancel()
        closed = [lost for pool in self._pools.values() for lost in pool.close()]
        if closed:
            await asyncio.wait(closed, timeout=CLOSE_S)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return sum(len(pool.all) for pool in self._pools.values())

    def in_flight(self, target: Target) -> int:
        """How many calls to `target` have no answer yet."""
        pool = self._pools.get(target)
        return pool.busy if pool is not None else 0

    def _sweep(self) -> None:
        for target, pool in tuple(self._pools.items()):
            pool.retire_idle()
            if pool.unused:
                del self._pools[target]
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_EVERY_S, self._sweep)

    def _drop_untrusted(self, source: IdentitySource) -> None:
        roots = source.bundle().roots
        for pool in self._pools.values():
            pool.retire_untrusted(roots)


class _Connection(asyncio.Protocol):
    """One TLS connection; carries one exchange at a time."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[Response] | None = None
        self._chunks: list[bytes] = []
        self._headers: dict[str, str] = {}
        self._status = 0
        self._left = 0
        self.transport: asyncio.Transport
        self.lost: asyncio.Future[None] = self._loop.create_future()
        self.reusable = True
        self.fresh = True
        self.retire_at = 0.0
        self.idle_since = 0.0
        self.expires: datetime
        self.root = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a TLS transport is a Transport

    def exchange(
        self, head: bytes, chunks: Sequence[bytes], max_body: int
    ) -> asyncio.Future[Response]:
        """Send one request; the answer comes later."""
        waiter: asyncio.Future[Response] = self._loop.create_future()
        if self.lost.done():  # between the handshake and now
            waiter.set_exception(self._lost_error(None))
            return waiter
        self._waiter = waiter
        self._left = max_body
        if len(chunks) == 1 and len(chunks[0]) <= ONE_WRITE:
            self.transport.write(head + chunks[0])
        else:
            self.transport.writelines([head, *chunks])
        return waiter

    def data_received(self, data: bytes) -> None:
        if self._waiter is None:
            self.abort()  # an answer that nobody asked for
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(self._unreachable(f"answered no valid HTTP: {error}"))
            self.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.lower().decode("latin-1"), value.decode("latin-1")
        present = self._headers.get(key)
        self._headers[key] = text if present is None else f"{present}, {text}"

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self._left -= len(body)
        if self._left < 0:
            self._fail(self._unreachable("answered with a larger body than was asked for"))
            self.abort()
            return
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        headers, self._headers = self._headers, {}
        chunks, self._chunks = self._chunks, []
        if self._status < 200:
            return
        waiter, self._waiter = self._waiter, None
        self.fresh = False
        if not self._parser.should_keep_alive():
            self.reusable = False
        if waiter is not None and not waiter.done():
            body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            waiter.set_result(Response(self._status, headers, body))

    def connection_lost(self, exc: Exception | None) -> None:
        self.reusable = False
        if not self.lost.done():
            self.lost.set_result(None)
        if self._waiter is not None:
            self._fail(self._lost_error(exc))

    def expire(self) -> None:
        """End the present exchange: its deadline passed."""
        where = f"{self._target.identity} at {self._target.host}:{self._target.port}"
        self._fail(DeadlineExceededError(f"{where} did not answer in time", sent=True))
        self.abort()

    def abort(self) -> None:
        """Close at once; whatever is still to come is of no use."""
        self.reusable = False
        self.transport.abort()

    def close(self) -> None:
        """Close in good order."""
        self.reusable = False
        self.transport.close()

    def _fail(self, error: TransportError) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)

    def _unreachable(self, what: str) -> WorkerUnreachableError:
        where = f"{self._target.identity} at {self._target.host}:{self._target.port}"
        return WorkerUnreachableError(f"{where} {what}", sent=True)

    def _lost_error(self, exc: Exception | None) -> TransportError:
        where = f"{self._target.identity} at {self._target.host}:{self._target.port}"
        if isinstance(exc, ssl.SSLError):
            # An alert about certificates ends the handshake: no request byte was read over there.
            detail = f"{where} refused our certificate: {handshake_detail(exc)}"
            return PeerRefusedError(detail, sent=False)
        if self.fresh:
            return self._unreachable(
                "dropped the new connection without an answer; with TLS 1.3 a refused client "
                "certificate looks like this too: see the refusals that it logs"
            )
        return self._unreachable("dropped the connection before it answered")


class _Pool:
    """The connections to one target, the last used on top."""

    def __init__(self, target: Target, source: IdentitySource, clock: Clock, limit: int) -> None:
        self._target = target
        self._source = source
        self._clock = clock
        self._limit = limit
        self._idle: list[_Connection] = []
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._connecting = 0
        self.all: set[_Connection] = set()

    @property
    def busy(self) -> int:
        """Calls that hold or wait for a connection."""
        return len(self.all) - len(self._idle) + self._connecting + len(self._waiters)

    @property
    def unused(self) -> bool:
        """Say whether the pool can be forgotten."""
        return not (self.all or self._connecting or self._waiters)

    def take(self) -> _Connection | None:
        """Take an idle connection that is still good."""
        if not self._idle:
            return None
        monotonic, now = self._clock.monotonic(), self._clock.now()
        while self._idle:
            connection = self._idle.pop()
            if _usable(connection, monotonic, now):
                return connection
            self._retire(connection)
        return None

    async def connect(self, until: float) -> _Connection:
        """Open a connection, or wait for one where the limit is reached.

        Raises:
            TransportError: it was not possible until the deadline.
        """
        try:
            async with asyncio.timeout_at(until):
                while len(self.all) + self._connecting >= self._limit:
                    await self._wait()
                    connection = self.take()
                    if connection is not None:
                        return connection
                return await self._open()
        except TimeoutError as error:
            detail = f"no connection to {self._where()} in time"
            raise DeadlineExceededError(detail, sent=False) from error
        except ssl.SSLCertVerificationError as error:
            detail = f"the certificate of {self._where()} is not accepted: {error.verify_message}"
            raise PeerRefusedError(detail, sent=False) from error
        except ssl.SSLError as error:
            detail = f"no TLS connection to {self._where()}: {handshake_detail(error)}"
            raise PeerRefusedError(detail, sent=False) from error
        except OSError as error:
            detail = f"{self._where()} cannot be reached: {error.strerror or error}"
            raise WorkerUnreachableError(detail, sent=False) from error

    def give_back(self, connection: _Connection) -> None:
        """Return a connection after its exchange."""
        if connection.reusable:
            connection.idle_since = self._clock.monotonic()
            self._idle.append(connection)
        else:
            self._retire(connection)
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                break

    def retire_idle(self) -> None:
        """Close what nobody used for a while."""
        monotonic, now = self._clock.monotonic(), self._clock.now()
        for connection in tuple(self._idle):
            if not _usable(connection, monotonic, now):
                self._idle.remove(connection)
                self._retire(connection)

    def retire_untrusted(self, roots: Sequence[bytes]) -> None:
        """Use no connection again whose root is no longer in the bundle."""
        for connection in tuple(self.all):
            if connection.root not in roots:
                connection.reusable = False
        self.retire_idle()

    def close(self) -> list[asyncio.Future[None]]:
        """Close every connection; returns what to wait for."""
        for waiter in self._waiters:
            waiter.cancel()
        connections = tuple(self.all)
        for connection in connections:
            connection.close()
        return [connection.lost for connection in connections]

    async def _wait(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if not waiter.done() or waiter.cancelled():
                self._waiters = deque(item for item in self._waiters if item is not waiter)

    async def _open(self) -> _Connection:
        svid = self._source.svid()
        connection = _Connection(self._target)
        self._connecting += 1
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: connection,
                self._target.host,
                self._target.port,
                ssl=self._source.client_context(),
                server_hostname=self._target.server_name,
            )
        finally:
            self._connecting -= 1
        self.all.add(connection)
        connection.lost.add_done_callback(lambda _: self._forget(connection))
        self._verify(connection, svid)
        return connection

    def _verify(self, connection: _Connection, svid: Svid) -> None:
        tls: ssl.SSLObject = connection.transport.get_extra_info("ssl_object")
        try:
            not_after = self._expected_peer(tls)
        except PeerIdentityError as error:
            connection.abort()
            self._source.refusals.add(Reason.IDENTITY, error.reason, peer=self._target.identity)
            detail = f"{self._where()} is not who it should be: {error.reason}"
            raise PeerRefusedError(detail, sent=False) from error
        lifetime = (svid.not_after - svid.not_before).total_seconds()
        connection.root = verified_root(tls)
        connection.expires = min(not_after, svid.not_after) - _MARGIN
        connection.retire_at = self._clock.monotonic() + min(AGE_S, lifetime / 4)

    def _expected_peer(self, tls: ssl.SSLObject) -> datetime:
        peer = peer_identity(tls.getpeercert(binary_form=True) or b"", self._source.trust_domain)
        if not covers(self._target.identity, peer.uri):
            message = f"{peer.uri} answered instead"
            raise PeerIdentityError(message)
        return peer.not_after

    def _retire(self, connection: _Connection) -> None:
        self.all.discard(connection)
        connection.close()

    def _forget(self, connection: _Connection) -> None:
        self.all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def _where(self) -> str:
        return f"{self._target.identity} at {self._target.host}:{self._target.port}"


def _usable(connection: _Connection, monotonic: float, now: datetime) -> bool:
    return (
        connection.reusable
        and monotonic < connection.retire_at
        and monotonic - connection.idle_since < IDLE_S
        and now < connection.expires
        and not connection.transport.is_closing()
    )


def _head(
    target: Target,
    method: str,
    path: str,
    headers: Mapping[str, str] | None,
    length: int,
    deadline_s: float,
) -> bytes:
    lines = [
        f"{method} {path} HTTP/1.1\r\n",
        f"host: {target.server_name}\r\n",
        f"content-length: {length}\r\n",
        f"{DEADLINE_HEADER}: {int(deadline_s * 1000)}\r\n",
    ]
    rows = 5
    if headers:
        lines += [f"{name}: {value}\r\n" for name, value in headers.items()]
        rows += len(headers)
    lines.append("\r\n")
    head = "".join(lines).encode("latin-1")
    if head.count(b"\n") != rows or head.count(b"\r") != rows or " " in path or b"\0" in head:
        message = "method, path or a header holds a space, line break or NUL"
        raise ValueError(message)
    return head
