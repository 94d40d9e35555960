"""The one way to the outside over HTTP: every hop and every address is checked before it is used.

A name is resolved once, all of its addresses are checked, and the connection goes to a checked one
without asking again, so an answer that changes in between changes nothing. Proxies of the
environment are ignored; certificates are verified by the name in the URL.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from functools import cached_property
from ipaddress import ip_address
from typing import Any

import httpcore2

from hivemesh_sdk.errors import ConfigurationError
from hivemesh_sdk.safeio.addresses import Address
from hivemesh_sdk.safeio.egress import Egress, Target
from hivemesh_sdk.safeio.hops import Body, FetchFailedError, FetchLimits, Hops, Response

Resolver = Callable[[str, int], Iterable[Address]]

KEEP_S = 5.0  # a connection that was checked is used again for so long
MOST_ADDRESSES = 4
_until: ContextVar[float] = ContextVar("fetch_until")  # monotonic end of the request that runs


class Fetcher:
    """Fetches for one worker. Its connections are kept for a few seconds; `close` drops them."""

    def __init__(
        self,
        egress: Egress,
        *,
        limits: FetchLimits | None = None,
        resolver: Resolver | None = None,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self.egress = egress
        self._limits = limits or FetchLimits()
        self._resolve = resolver or resolve
        self._trust = trust
        self._pools: dict[str, httpcore2.ConnectionPool] = {}
        self._async_pools: dict[str, httpcore2.AsyncConnectionPool] = {}

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        limits: FetchLimits | None = None,
    ) -> Response:
        """Send a request and return the whole answer, whatever its status.

        Raises:
            EgressDeniedError: the URL, a redirect or an address is not allowed.
            InvalidError: URL or headers cannot be sent; `FetchTooLargeError`: too much came.
            FetchFailedError: no complete answer came in time.
        """
        _refuse_in_loop()
        limits = limits or self._limits
        hops = Hops(self.egress, method, url, headers or {}, content, limits)
        with _limited(limits), _told(hops):
            while True:
                with self._pool(hops.target.scheme).stream(
                    hops.method,
                    _address_of(hops.target),
                    headers=hops.headers(),
                    content=hops.content or None,
                    extensions=_extensions(limits),
                ) as answer:
                    found = _headers(answer.headers)
                    if hops.follow(answer.status, found):
                        continue
                    body = Body(hops.target, found, limits.bytes)
                    data = b"".join(map(body.take, answer.iter_stream()))
                    body.end()
                return Response(status=answer.status, url=hops.url, headers=found, body=data)

    async def request_async(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        limits: FetchLimits | None = None,
    ) -> Response:
        """Like `request`, for capabilities that run `inline`."""
        limits = limits or self._limits
        hops = Hops(self.egress, method, url, headers or {}, content, limits)
        async with _limited_async(limits):
            with _told(hops):
                return await self._until_answer(hops, limits)

    async def _until_answer(self, hops: Hops, limits: FetchLimits) -> Response:
        while True:
            async with self._async_pool(hops.target.scheme).stream(
                hops.method,
                _address_of(hops.target),
                headers=hops.headers(),
                content=hops.content or None,
                extensions=_extensions(limits),
            ) as answer:
                found = _headers(answer.headers)
                if hops.follow(answer.status, found):
                    continue
                body = Body(hops.target, found, limits.bytes)
                parts = [body.take(chunk) async for chunk in answer.aiter_stream()]
                body.end()
            return Response(status=answer.status, url=hops.url, headers=found, body=b"".join(parts))

    def close(self) -> None:
        """Drop the connections of `request`."""
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()

    async def aclose(self) -> None:
        """Drop the connections of `request_async`."""
        for pool in self._async_pools.values():
            await pool.aclose()
        self._async_pools.clear()

    def _pool(self, scheme: str) -> httpcore2.ConnectionPool:
        pool = self._pools.get(scheme)
        if pool is None:
            pool = self._pools[scheme] = httpcore2.ConnectionPool(
                ssl_context=self._context,
                keepalive_expiry=KEEP_S,
                network_backend=_Checked(scheme, self.egress, self._resolve),
            )
        return pool

    def _async_pool(self, scheme: str) -> httpcore2.AsyncConnectionPool:
        pool = self._async_pools.get(scheme)
        if pool is None:
            pool = self._async_pools[scheme] = httpcore2.AsyncConnectionPool(
                ssl_context=self._context,
                keepalive_expiry=KEEP_S,
                network_backend=_CheckedAsync(scheme, self.egress, self._resolve),
            )
        return pool

    @cached_property
    def _context(self) -> ssl.SSLContext:
        if self._trust is not None:
            return self._trust
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context


def resolve(host: str, port: int) -> list[Address]:
    """Ask the system for all addresses of a name.

    Raises:
        FetchFailedError: there are none.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        message = f"{host!r} has no address: {error}"
        raise FetchFailedError(message) from error
    return list(dict.fromkeys(ip_address(str(entry[4][0]).partition("%")[0]) for entry in found))


class _Guard:
    """Turns a host into the addresses that may be connected to."""

    def __init__(self, scheme: str, egress: Egress, resolver: Resolver) -> None:
        self._scheme = scheme
        self._egress = egress
        self._resolve = resolver

    def addresses(self, host: str, port: int) -> list[str]:
        """Every address is checked, also those that will not be used."""
        target = Target(self._scheme, host.strip("[]"), port, "/")
        own = target.address
        found = [own] if own is not None else list(self._resolve(target.host, port))
        for address in found:
            self._egress.check_address(target, address)
        return [str(address) for address in found[:MOST_ADDRESSES]]


class _Checked(httpcore2.NetworkBackend):
    """Connects to checked addresses only."""

    def __init__(self, scheme: str, egress: Egress, resolver: Resolver) -> None:
        self._guard = _Guard(scheme, egress, resolver)
        self._real = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        """Try the addresses in their order; the last failure is the one that is told."""
        addresses = self._guard.addresses(host, port)
        for position, address in enumerate(addresses, 1):
            try:
                stream = self._real.connect_tcp(
                    address, port, _left(timeout), local_address, socket_options
                )
                return _Stream(stream)
            except httpcore2.ConnectError:
                if position == len(addresses):
                    raise
        message = f"{host!r} has no address"
        raise FetchFailedError(message)


class _Stream(httpcore2.NetworkStream):
    """Ends with the request's time, however slowly its bytes come."""

    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, _left(timeout)))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _CheckedAsync(httpcore2.AsyncNetworkBackend):
    """The same for `request_async`; `asyncio.timeout` is its clock."""

    def __init__(self, scheme: str, egress: Egress, resolver: Resolver) -> None:
        self._guard = _Guard(scheme, egress, resolver)
        self._real = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the backend's own interface
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Try the addresses in their order; the last failure is the one that is told."""
        addresses = await asyncio.to_thread(self._guard.addresses, host, port)
        for position, address in enumerate(addresses, 1):
            try:
                return await self._real.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except httpcore2.ConnectError:
                if position == len(addresses):
                    raise
        message = f"{host!r} has no address"
        raise FetchFailedError(message)


@contextmanager
def _limited(limits: FetchLimits) -> Iterator[None]:
    token = _until.set(time.monotonic() + limits.seconds)
    try:
        yield
    finally:
        _until.reset(token)


@asynccontextmanager
async def _limited_async(limits: FetchLimits) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(limits.seconds):
            yield
    except TimeoutError as error:
        message = f"no complete answer within {limits.seconds:g} s"
        raise FetchFailedError(message) from error


@contextmanager
def _told(hops: Hops) -> Iterator[None]:
    """What the library raises, as one of our errors; it names the origin and nothing else."""
    try:
        yield
    except httpcore2.TimeoutException as error:
        message = f"{hops.target} did not answer in time"
        raise FetchFailedError(message) from error
    except (
        httpcore2.NetworkError,
        httpcore2.ProtocolError,
        httpcore2.UnsupportedProtocol,
        OSError,
    ) as error:
        message = f"{hops.target} cannot be reached: {error}"
        raise FetchFailedError(message) from error


def _left(timeout: float | None) -> float:
    left = _until.get() - time.monotonic()
    if left <= 0:
        raise httpcore2.ReadTimeout
    return left if timeout is None else min(left, timeout)


def _extensions(limits: FetchLimits) -> dict[str, Any]:
    wait = {"connect": limits.connect_s, "read": limits.seconds, "write": limits.seconds}
    return {"timeout": {**wait, "pool": limits.seconds}}


def _address_of(target: Target) -> httpcore2.URL:
    return httpcore2.URL(
        scheme=target.scheme.encode("ascii"),
        host=target.host.encode("ascii"),
        port=target.port,
        target=target.path.encode("ascii"),
    )


def _headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in raw:
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found


def _refuse_in_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    message = "this would block the event loop; an inline capability awaits `request_async`"
    raise ConfigurationError(message)
