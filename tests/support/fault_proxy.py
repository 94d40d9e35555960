"""A TCP proxy on loopback that breaks connections in the ways that networks do.

What a direction does is read for each block, so a fault holds for open connections at once.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

T = TypeVar("T")

BLOCK = 64 * 1024
_RESET = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class Direction:
    """How bytes go one way."""

    delay_s: float = 0.0  # latency of each block
    stalled: bool = False  # nothing passes until it heals; nothing is lost
    dropped: bool = False  # bytes vanish while the connection stays open
    slow_bytes: int = 0  # at most so many bytes at a time, with `delay_s` between


@dataclass(slots=True)
class FaultProxy:
    """Listens on `port` and passes on to a target; faults are set from any task of its loop."""

    target: Callable[[], Coroutine[Any, Any, tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
    there: Direction = field(default_factory=Direction)  # from the caller to the target
    back: Direction = field(default_factory=Direction)
    refuses: bool = False  # new connections are closed at once
    accepted: int = 0  # connections so far
    port: int = 0
    _healed: asyncio.Event = field(default_factory=asyncio.Event)
    _pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = field(default_factory=set)
    _tasks: "set[asyncio.Task[None]]" = field(default_factory=set)

    def cut(self) -> None:
        """Partition: nothing passes either way; connections stay open (half-open at both ends)."""
        self.there.dropped = self.back.dropped = True

    def stall(self) -> None:
        """Hold everything back until it heals."""
        self.there.stalled = self.back.stalled = True

    def heal(self) -> None:
        """All is well again; connections that lost bytes are reset, as TCP would."""
        lost = self.there.dropped or self.back.dropped
        self.there, self.back, self.refuses = Direction(), Direction(), False
        self._healed.set()
        self._healed = asyncio.Event()
        if lost:
            self.reset()

    def reset(self) -> None:
        """RST on every open connection."""
        for pair in tuple(self._pairs):
            for writer in pair:
                _abort(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self.refuses:
            _abort(writer)
            return
        try:
            far_reader, far_writer = await self.target()
        except OSError:
            _abort(writer)
            return
        pair = (writer, far_writer)
        self._pairs.add(pair)
        try:
            await asyncio.gather(
                self._pass(reader, far_writer, there=True),
                self._pass(far_reader, writer, there=False),
            )
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._pairs.discard(pair)
            for one in pair:
                one.close()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, there: bool
    ) -> None:
        while block := await reader.read(BLOCK):
            way = self._way(there)
            while way.stalled:
                await self._healed.wait()
                way = self._way(there)
            if way.dropped:
                continue
            for part in _parts(block, way.slow_bytes):
                if way.delay_s:
                    await asyncio.sleep(way.delay_s)
                writer.write(part)
                await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()

    def _way(self, there: bool) -> Direction:  # noqa: FBT001 - private, one of two
        return self.there if there else self.back

    async def close(self) -> None:
        """End every connection."""
        self.reset()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def proxy_to(host: str, port: int = 0) -> AsyncIterator[FaultProxy]:
    """A proxy to a port; without one, to that of its own number at another address."""
    proxy = FaultProxy(lambda: asyncio.open_connection(host, port or proxy.port))
    async with _listening(proxy) as found:
        yield found


@asynccontextmanager
async def proxy_to_socket(path: str) -> AsyncIterator[FaultProxy]:
    """A proxy from TCP to a Unix socket, as that of PostgreSQL."""
    async with _listening(FaultProxy(lambda: asyncio.open_unix_connection(path))) as found:
        yield found


@asynccontextmanager
async def _listening(proxy: FaultProxy) -> AsyncIterator[FaultProxy]:
    server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
        await server.wait_closed()


def _parts(block: bytes, size: int) -> list[bytes]:
    if not size:
        return [block]
    return [block[start : start + size] for start in range(0, len(block), size)]


def _abort(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN."""
    found = writer.get_extra_info("socket")
    if found is not None and found.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


class ProxyThread:
    """Proxies in a loop of their own, for tests that block."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._stack = contextlib.AsyncExitStack()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.do(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something in the loop of the proxies."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def to_port(self, host: str, port: int = 0) -> FaultProxy:
        """A proxy to a port; without one, to that of its own number at another address."""
        return self.do(self._stack.enter_async_context(proxy_to(host, port)))

    def to_socket(self, path: str) -> FaultProxy:
        """A proxy to a Unix socket."""
        return self.do(self._stack.enter_async_context(proxy_to_socket(path)))

    def now(self, change: Callable[[], None]) -> None:
        """Change a proxy in its loop, and wait for it."""

        async def work() -> None:
            change()

        self.do(work())
