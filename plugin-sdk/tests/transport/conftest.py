"""Listeners, clients and raw connections of the transport tests; everything runs on both loops."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest
import uvloop
from hivemesh_sdk.testing.clock import ManualClock
from hivemesh_sdk.testing.pki import ThrowawayCA
from hivemesh_sdk.transport import Limits, Listener, MeshClient, Target, serve
from hivemesh_sdk.trust.contexts import client_context
from hivemesh_sdk.trust.denials import Denials
from hivemesh_sdk.trust.source import IdentitySource
from structlog.testing import capture_logs

WAIT_S = 30.0


def pytest_asyncio_loop_factories(config, item):
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
def _quiet():
    """Failures that a test provokes are not printed: formatting a traceback takes a second."""
    with capture_logs():
        yield


@pytest.fixture(scope="session")
def ca():
    return ThrowawayCA()


@dataclass
class Recorder:
    """An application that remembers what reached it and answers who asked and how much came."""

    requests: list[tuple[str, str, int]] = field(default_factory=list)

    async def __call__(self, scope, receive, send):
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size += len(message["body"])
            more = message["more_body"]
        peer = scope["state"]["peer"]
        self.requests.append((scope["method"], scope["path"], size))
        body = f"{peer.uri if peer else 'nobody'} {size}".encode()
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@pytest.fixture
def recorder():
    return Recorder()


@dataclass
class Mesh:
    """One listener of the platform's identity and a client of a worker's."""

    ca: ThrowawayCA
    source: IdentitySource
    listener: Listener
    client: MeshClient
    clock: ManualClock
    denials: Denials
    app: Recorder

    @property
    def target(self) -> Target:
        return Target.platform("127.0.0.1", self.listener.port, self.ca.trust_domain)

    async def get(self, path: str = "/", **options):
        return await self.client.request(
            self.target, "GET", path, **{"deadline_s": WAIT_S, **options}
        )


@pytest.fixture
def mesh_of(ca) -> Callable[..., Awaitable[Mesh]]:
    @asynccontextmanager
    async def open_mesh(
        app=None, *, limits: Limits | None = None, authority=ca, **client_options
    ) -> AsyncIterator[Mesh]:
        app = app or Recorder()
        clock, denials = ManualClock(), Denials()
        source = authority.source(authority.platform())
        caller = authority.source(authority.worker())
        async with (
            serve(
                app,
                source,
                "127.0.0.1",
                0,
                limits=limits,
                clock=clock,
                denials=denials,
                drain_s=0.2,
            ) as listener,
            MeshClient(caller, clock=clock, **client_options) as client,
        ):
            yield Mesh(authority, source, listener, client, clock, denials, app)

    return open_mesh


@pytest.fixture
async def mesh(mesh_of) -> AsyncIterator[Mesh]:
    async with mesh_of() as opened:
        yield opened


@pytest.fixture
def own_ca():
    """An authority that a test may change."""
    return ThrowawayCA("own.hivemesh.internal")


@pytest.fixture
def loose_ca():
    """An authority without name constraints: our own checks have to stand alone."""
    return ThrowawayCA("loose.hivemesh.internal", constrained=False)


@pytest.fixture
def raw():
    return send_raw


@dataclass
class Wire:
    """A TLS connection on which a test writes HTTP by hand."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        async with asyncio.timeout(WAIT_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return int(head[0].split()[1]), headers, body

    async def rest(self) -> bytes:
        async with asyncio.timeout(WAIT_S):
            return await self.reader.read()


@pytest.fixture
async def wire() -> AsyncIterator[Callable[..., Awaitable[Wire]]]:
    opened: list[Wire] = []

    async def connect(mesh: Mesh, svid=None) -> Wire:
        svid = svid or mesh.ca.svid(mesh.ca.worker("raw", "r1"))
        reader, writer = await asyncio.open_connection(
            "127.0.0.1",
            mesh.listener.port,
            ssl=client_context(svid, mesh.ca.bundle()),
            server_hostname=mesh.target.server_name,
        )
        opened.append(Wire(reader, writer))
        return opened[-1]

    yield connect
    for each in opened:
        each.writer.transport.abort()
        with suppress(OSError):
            await each.writer.wait_closed()


@pytest.fixture
def until():
    """Let the loop run until a condition holds."""

    async def wait(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():  # noqa: ASYNC110 - conditions of the code under test set no event
                await asyncio.sleep(0)

    return wait


async def send_raw(
    mesh: Mesh, data: bytes, context: ssl.SSLContext | None, server_name: str | None = None
) -> bytes:
    """Send bytes on a connection of its own; returns what came back, empty where it was refused."""
    name = server_name or f"platform.{mesh.ca.trust_domain}"
    async with asyncio.timeout(WAIT_S):
        try:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1",
                mesh.listener.port,
                ssl=context,
                server_hostname=name if context is not None else None,
            )
        except OSError:
            return b""
        try:
            writer.write(data)
            return await reader.read()
        except OSError:
            return b""
        finally:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()
