"""grpc.aio with mutual TLS, bytes in and out, JSON decoded on both sides."""

import json
from pathlib import Path

import grpc
import pki


async def serve(folder: Path, announce) -> None:
    """Serve until ended."""

    async def echo(request, _context):
        return json.dumps(json.loads(request)).encode()

    handler = grpc.method_handlers_generic_handler(
        "bench.Echo", {"Call": grpc.unary_unary_rpc_method_handler(echo)}
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handler,))
    pair = ((folder / "server.key").read_bytes(), (folder / "server.pem").read_bytes())
    roots = (folder / "root.pem").read_bytes()
    credentials = grpc.ssl_server_credentials([pair], roots, require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    announce(port)
    await server.wait_for_termination()


class Caller:
    """One channel for all calls."""

    def __init__(self, folder: Path, port: int, concurrency: int, body: bytes):
        credentials = grpc.ssl_channel_credentials(
            (folder / "root.pem").read_bytes(),
            (folder / "client.key").read_bytes(),
            (folder / "client.pem").read_bytes(),
        )
        options = [("grpc.ssl_target_name_override", pki.SERVER_NAME)]
        self._channel = grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options)
        self._echo = self._channel.unary_unary("/bench.Echo/Call")
        self._body = body

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self._channel.close()

    async def call(self, _number: int) -> None:
        json.loads(await self._echo(self._body))
