"""The mesh's own HTTP/1.1 client: pools per identity, mutual TLS, one deadline per call.

Pools are keyed by the identity called and never by the address alone. The server's identity is
verified before the first byte of a request leaves, so a misrouted call dies unsent. Nothing is
repeated here but what another's answer has ended: an error says whether the request may have been
seen, and the ledger decides.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

from hivemesh_sdk.clock import Clock, SystemClock
from hivemesh_sdk.transport.connection import (
    CLOSE_S,
    MAX_BODY,
    SMALL,
    Chunk,
    Connection,
    Response,
    Target,
    dial,
    explained,
    request_head,
)
from hivemesh_sdk.transport.errors import (
    PeerRefusedError,
    TransportError,
    WorkerUnreachableError,
)
from hivemesh_sdk.trust.bundle import Bundle
from hivemesh_sdk.trust.denials import Denials
from hivemesh_sdk.trust.identity import Peer
from hivemesh_sdk.trust.refusals import Reason
from hivemesh_sdk.trust.source import IdentitySource

IDLE_S = 30.0  # the server allows 75, so that the client is the one to close
AGE_S = 600.0  # the server allows 900
CONNECTIONS_PER_TARGET = 64
SWEEP_EVERY_S = 5.0
SLOW_S = 0.5  # an exchange on a shared connection is not expected to take longer
ALONE_S = 1.0  # where one did, or was answered early, calls go alone for so long
_MARGIN = timedelta(seconds=1)  # no call starts on a certificate in its last second


class MeshClient:
    """Calls other processes of this installation; one per process, used on one loop."""

    def __init__(
        self,
        source: IdentitySource,
        *,
        clock: Clock | None = None,
        connections_per_target: int = CONNECTIONS_PER_TARGET,
        denials: Denials | None = None,
    ) -> None:
        self._source = source
        self._clock = clock or SystemClock()
        self._denials = denials or Denials()
        self._ends = [self._denials.subscribe(self._drop_denied)]
        self._limit = connections_per_target
        self._pools: dict[Target, _Pool] = {}
        self._ends.append(source.subscribe(self._refresh))
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
        body: bytes | Sequence[Chunk] = b"",
        deadline_s: float,
        max_body: int = MAX_BODY,
        shared: bool = False,
    ) -> Response:
        """Send one request and return the whole answer, whatever its status.

        With `shared` a small request may travel with others that are made in the same turn of the
        loop: one connection, one write, answers in the order of the requests. It is for requests
        that may be answered before their work is done and are read on then, and that may be sent
        again: where the answer to one breaks the connection, the others go once more, each alone.

        Raises:
            WorkerUnreachableError: nobody answers there, or the connection broke.
            PeerRefusedError: one side refused the other's certificate.
            DeadlineExceededError: the answer did not come within `deadline_s`.
        """
        pool = self._pools.get(target)
        if pool is None:
            pool = self._pools[target] = _Pool(
                target, self._source, self._clock, self._limit, self._denials
            )
        chunks, size = (
            ((body,), len(body)) if isinstance(body, bytes) else (body, sum(map(len, body)))
        )
        head = request_head(target, method, path, headers, size, deadline_s)
        until = asyncio.get_running_loop().time() + deadline_s
        shared = shared and len(head) + size <= SMALL
        connection = pool.take(shared=shared)
        if connection is None:
            connection = await pool.connect(until)
        waiter = connection.exchange(head, chunks, max_body, until)
        try:
            response = await waiter
        except asyncio.CancelledError:
            connection.forget(waiter)
            raise
        except WorkerUnreachableError as error:
            if not (shared and error.among_others):
                raise
        else:
            if shared and not response.body:
                pool.call_alone()
            return response
        finally:
            pool.give_back(connection)
        return await pool.once_more(head, chunks, max_body, until)

    async def close(self) -> None:
        """Close every connection; running calls end with an error."""
        for end in self._ends:
            end()
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

    def _refresh(self, source: IdentitySource) -> None:
        bundle, serial = source.bundle(), source.svid().serial
        for pool in self._pools.values():
            pool.retire_outdated(bundle, serial)

    def _drop_denied(self) -> None:
        for pool in self._pools.values():
            pool.drop_denied()


class _Pool:
    """The connections to one target, the last used on top."""

    def __init__(
        self, target: Target, source: IdentitySource, clock: Clock, limit: int, denials: Denials
    ) -> None:
        self._target = target
        self._denials = denials
        self._source = source
        self._clock = clock
        self._limit = limit
        self._idle: list[Connection] = []
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._connecting = 0
        self._calls = 0  # that hold a connection
        self._gathering: Connection | None = None
        self._alone_until = 0.0  # whoever waits for long lets nobody wait behind it
        self.all: set[Connection] = set()

    @property
    def busy(self) -> int:
        """Calls that hold or wait for a connection."""
        return self._calls + self._connecting + len(self._waiters)

    @property
    def unused(self) -> bool:
        """Say whether the pool can be forgotten."""
        return not (self.all or self._connecting or self._waiters)

    def take(self, *, shared: bool = False) -> Connection | None:
        """Take an idle connection that is still good, or join one that gathers small requests."""
        if shared and self._gathering is not None and self._gathering.gathers:
            return self._hand_out(self._gathering)
        if not self._idle:
            return None
        monotonic, now = self._clock.monotonic(), self._clock.now()
        while self._idle:
            connection = self._idle.pop()
            if _usable(connection, monotonic, now):
                connection.taken_at, connection.shared = monotonic, False
                if shared and self._calls and monotonic >= self._alone_until:
                    connection.gather(self._calls + 1)
                    self._gathering = connection
                return self._hand_out(connection)
            self._retire(connection)
        return None

    async def connect(self, until: float) -> Connection:
        """Open a connection, or wait for one where the limit is reached.

        Raises:
            TransportError: it was not possible until the deadline.
        """
        try:
            with explained(self._target):
                async with asyncio.timeout_at(until):
                    while len(self.all) + self._connecting >= self._limit:
                        await self._wait()
                        connection = self.take()
                        if connection is not None:
                            return connection
                    connection = await self._open()
        except BaseException:
            self._wake()  # our turn passes to the next one
            raise
        return self._hand_out(connection)

    def _hand_out(self, connection: Connection) -> Connection:
        connection.users += 1
        self._calls += 1
        return connection

    def give_back(self, connection: Connection) -> None:
        """Return a connection after an exchange; others may still be under way on it."""
        self._calls -= 1
        connection.users -= 1
        if connection.users:
            return
        if connection.unanswered:
            connection.abort()  # whoever takes it next would wait for what nobody wants
        if connection.reusable:
            now = connection.idle_since = self._clock.monotonic()
            if connection.shared and now - connection.taken_at > SLOW_S:
                self._alone_until = now + ALONE_S
            self._idle.append(connection)
        else:
            self._retire(connection)
        if self._waiters:
            self._wake()

    async def once_more(
        self, head: bytes, chunks: Sequence[Chunk], max_body: int, until: float
    ) -> Response:
        """Send what another's answer has ended once more, on a connection that nobody shares.

        Raises:
            TransportError: as `MeshClient.request`; the request may have been seen before.
        """
        self.call_alone()
        try:
            connection = self.take() or await self.connect(until)
            waiter = connection.exchange(head, chunks, max_body, until)
            try:
                return await waiter
            except asyncio.CancelledError:
                connection.forget(waiter)
                raise
            finally:
                self.give_back(connection)
        except TransportError as error:
            error.sent = True
            raise

    def call_alone(self) -> None:
        """Share no connection for a while."""
        self._alone_until = self._clock.monotonic() + ALONE_S

    def retire_idle(self) -> None:
        """Close what nobody used for a while."""
        monotonic, now = self._clock.monotonic(), self._clock.now()
        for connection in tuple(self._idle):
            if not _usable(connection, monotonic, now):
                self._idle.remove(connection)
                self._retire(connection)

    def retire_outdated(self, bundle: Bundle, serial: int) -> None:
        """Use no connection again that speaks for an older identity or trusts a removed root.

        A connection of the old identity would be refused once the root behind it is removed.
        """
        for connection in tuple(self.all):
            if not bundle.trusts(connection.chain) or connection.own_serial != serial:
                connection.reusable = False
        self.retire_idle()

    def drop_denied(self) -> None:
        """Close the connections to whom the deny list names; their calls end with an error."""
        for connection in tuple(self.all):
            if connection.peer is not None and self._denials.refuses(connection.peer):
                connection.abort()

    def close(self) -> list[asyncio.Future[None]]:
        """Close every connection; returns what to wait for."""
        for waiter in self._waiters:
            if not waiter.done():
                detail = f"the client was closed while a call to {self._target} waited"
                waiter.set_exception(WorkerUnreachableError(detail, sent=False))
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
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    async def _open(self) -> Connection:
        svid = self._source.svid()
        self._connecting += 1
        try:
            connection, peer = await dial(
                self._source.client_context(), self._source.bundle(), self._target
            )
        except PeerRefusedError as error:
            self._source.refusals.add(Reason.IDENTITY, error.detail, peer=self._target.identity)
            raise
        finally:
            self._connecting -= 1
        self._check(connection, peer)
        now = self._clock.now()
        own_life = (svid.not_after - now).total_seconds()
        connection.own_serial = svid.serial
        connection.expires = min(peer.not_after, svid.not_after) - _MARGIN
        connection.retire_at = self._clock.monotonic() + min(AGE_S, own_life / 4)
        self.all.add(connection)
        connection.lost.add_done_callback(lambda _: self._forget(connection))
        return connection

    def _check(self, connection: Connection, peer: Peer) -> None:
        """Send nothing to whom the deny list names."""
        if self._denials.refuses(peer):
            connection.abort()
            detail = f"{peer.uri} is on the deny list"
            self._source.refusals.add(Reason.REVOKED, detail, peer=peer.uri)
            raise PeerRefusedError(detail, sent=False)
        connection.peer = peer

    def _retire(self, connection: Connection) -> None:
        self.all.discard(connection)
        connection.close()

    def _forget(self, connection: Connection) -> None:
        self.all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)


def _usable(connection: Connection, monotonic: float, now: datetime) -> bool:
    return (
        connection.reusable
        and monotonic < connection.retire_at
        and monotonic - connection.idle_since < IDLE_S
        and now < connection.expires
        and not connection.transport.is_closing()
    )
