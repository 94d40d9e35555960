"""NATS request and reply through its broker, mutual TLS on both connections."""

import asyncio
import json
import socket
from pathlib import Path

import nats
import nats_server
import pki


async def serve(folder: Path, announce) -> None:
    """Start a broker and a responder; serve until ended."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    broker = await asyncio.create_subprocess_exec(
        nats_server.binary(),
        "-a",
        "127.0.0.1",
        "-p",
        str(port),
        "--tlsverify",
        "--tlscert",
        str(folder / "server.pem"),
        "--tlskey",
        str(folder / "server.key"),
        "--tlscacert",
        str(folder / "root.pem"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        connection = await _connect(folder, port)

        async def echo(message):
            await message.respond(json.dumps(json.loads(message.data)).encode())

        await connection.subscribe("echo", cb=echo)
        announce(port)
        await broker.wait()
    finally:
        if broker.returncode is None:
            broker.terminate()


async def _connect(folder: Path, port: int):
    for _ in range(100):
        try:
            return await nats.connect(
                f"tls://127.0.0.1:{port}",
                tls=pki.client_context(folder),
                tls_hostname=pki.SERVER_NAME,
                allow_reconnect=False,
            )
        except OSError:
            await asyncio.sleep(0.05)
    raise ConnectionError(port)


class Caller:
    """One connection for all calls."""

    def __init__(self, folder: Path, port: int, concurrency: int, body: bytes):
        self._folder, self._port, self._body = folder, port, body

    async def __aenter__(self):
        self._connection = await _connect(self._folder, self._port)
        return self

    async def __aexit__(self, *_):
        await self._connection.close()

    async def call(self, _number: int) -> None:
        json.loads((await self._connection.request("echo", self._body, timeout=30)).data)
