"""The floor: a bare ASGI echo on uvicorn and a hand-made httptools client, head and body in one write."""

import asyncio
from pathlib import Path

import httptools
import pki
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle


class _Joined:
    """Holds what is written first until the second write, so that one TLS record leaves."""

    def __init__(self, transport):
        self._transport = transport
        self._held = None

    def write(self, data):
        if self._held is None:
            self._held = data
        else:
            self._transport.write(self._held + data)
            self._held = None

    def __getattr__(self, name):
        return getattr(self._transport, name)


class _Cycle(RequestResponseCycle):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.transport = _Joined(self.transport)


async def _echo(scope, receive, send):
    message = await receive()
    body = message["body"]
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})


async def serve(folder: Path, announce) -> None:
    """Serve until ended."""
    import uvicorn.protocols.http.httptools_impl as implementation

    implementation.RequestResponseCycle = _Cycle
    config = uvicorn.Config(
        _echo,
        host="127.0.0.1",
        port=0,
        http=HttpToolsProtocol,
        ws="none",
        loop="none",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        log_level="error",
        lifespan="off",
        ssl_context_factory=lambda *_: pki.server_context(folder),
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    announce(server.servers[0].sockets[0].getsockname()[1])
    await task


class _Client(asyncio.Protocol):
    def __init__(self):
        self.parser = httptools.HttpResponseParser(self)
        self.waiter = None
        self.parts = []

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.parser.feed_data(data)

    def on_body(self, part):
        self.parts.append(part)

    def on_message_complete(self):
        parts, self.parts = self.parts, []
        self.waiter.set_result(b"".join(parts))

    def exchange(self, data):
        self.waiter = asyncio.get_running_loop().create_future()
        self.transport.write(data)
        return self.waiter


class Caller:
    """One connection per caller, as many callers as calls at once."""

    def __init__(self, folder: Path, port: int, concurrency: int, body: bytes):
        self._folder, self._port, self._concurrency = folder, port, concurrency
        self._data = (
            b"PUT /v1/steps/echo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            + f"content-length: {len(body)}\r\n\r\n".encode()
            + body
        )

    async def __aenter__(self):
        context = pki.client_context(self._folder)
        loop = asyncio.get_running_loop()
        self._free = []
        for _ in range(self._concurrency):
            _, client = await loop.create_connection(
                _Client, "127.0.0.1", self._port, ssl=context, server_hostname=pki.SERVER_NAME
            )
            self._free.append(client)
        return self

    async def __aexit__(self, *_):
        for client in self._free:
            client.transport.close()

    async def call(self, _number: int) -> None:
        client = self._free.pop()
        await client.exchange(self._data)
        self._free.append(client)
