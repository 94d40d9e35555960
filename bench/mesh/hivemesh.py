"""Ours: an inline capability served by the SDK, called as a step through the mesh client.

Policy, deadlines, admission, step table and metrics are on: it is what a worker process runs.
"""

import asyncio
import tempfile
from pathlib import Path

import pki
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hivemesh_sdk import Record, Worker
from hivemesh_sdk.contracts.manifest import Manifest
from hivemesh_sdk.contracts.names import TICKET_HEADER
from hivemesh_sdk.contracts.pages import decode_page, encode_request
from hivemesh_sdk.contracts.steps import InputPart, ResultEvent, StepRequest
from hivemesh_sdk.testing.artifacts import FolderPlatform
from hivemesh_sdk.testing.tickets import ThrowawayTickets
from hivemesh_sdk.transport.client import MeshClient
from hivemesh_sdk.transport.connection import Response, Target
from hivemesh_sdk.transport.server import serve as listen
from hivemesh_sdk.trust.identity import SpiffeId
from hivemesh_sdk.trust.jws import SigningKey
from hivemesh_sdk.trust.tickets import announced_keys, own_identity
from hivemesh_sdk.worker.access import Own
from hivemesh_sdk.worker.server import ServerSettings, WorkerServer, quiet_collector

worker = Worker()
HOLD_S, HOLD_SLOTS = 0.25, 4


class Message(Record):
    id: int
    text: str
    tags: list[str]


@worker.call("bench.echo@1", run_in="inline")
async def echo(message: Message) -> Message:
    """Answer with the message."""
    return message


@worker.call("bench.hold@1", run_in="inline")
async def hold(message: Message) -> Message:
    """Hold a slot for a moment, as a call to somebody else would."""
    await asyncio.sleep(HOLD_S)
    return message


MANIFEST = Manifest.model_validate(
    {
        "apiVersion": "hivemesh/v1",
        "kind": "Worker",
        "metadata": {"name": "echo", "version": "0.1.0"},
        "runtime": {"entrypoint": "hivemesh:worker"},
        "capabilities": [
            {"id": "bench.echo@1", "kind": "call", "run_in": "inline", "slots": 64},
            {"id": "bench.hold@1", "kind": "call", "run_in": "inline", "slots": HOLD_SLOTS},
        ],
    }
)


async def serve(folder: Path, announce) -> None:
    """Serve until ended."""
    with tempfile.TemporaryDirectory(prefix="echo-") as scratch:
        source = pki.source(folder, "server")
        own = Own.of(MANIFEST, own_identity(source), announced_keys(source))
        settings = ServerSettings(own=own, scratch=Path(scratch) / "scratch", instance="i1")
        artifacts = FolderPlatform(Path(scratch) / "artifacts")
        server = WorkerServer(MANIFEST, artifacts, settings, worker=worker)
        await server.start()
        quiet_collector()  # as a worker's process does
        async with listen(server.app, source, "127.0.0.1", 0) as listener:
            announce(listener.port)
            await asyncio.Event().wait()


class Caller:
    """One mesh client for all calls; every call is a step of its own."""

    capability = "bench.echo@1"

    def __init__(self, folder: Path, port: int, concurrency: int, body: bytes):
        source = pki.source(folder, "client")
        self._client = MeshClient(source)
        self._target = Target("127.0.0.1", port, pki.SERVER_ID, pki.SERVER_NAME)
        request = StepRequest(
            capability=self.capability,
            kind="call",
            attempt=1,
            epoch=1,
            inputs=[InputPart(bytes=len(body), count=1)],
            deadline_ms=30_000,
        )
        self._body = b"".join(encode_request(request, [body]))
        self._headers = {"prefer": "wait=20"}
        self._holder = SpiffeId.parse(pki.SERVER_ID)
        self._request = request
        self._tickets = ThrowawayTickets(  # one per call, as the platform mints them
            SigningKey(Ed25519PrivateKey.generate()), str(source.svid().id)
        )

    async def __aenter__(self):
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *_):
        await self._client.close()

    async def call(self, number: int) -> None:
        answer = await self.ask(number)
        event = next(decode_page(answer.body)).event
        if not isinstance(event, ResultEvent):
            raise TypeError(answer.body[:300])

    async def ask(self, number: int) -> Response:
        """The answer as it comes, a refusal included."""
        key = f"bench.echo.{number}"
        claims = self._tickets.claims(self._holder, key, self._request.capability)
        return await self._client.request(
            self._target,
            "PUT",
            f"/v1/steps/{key}",
            headers={**self._headers, TICKET_HEADER: self._tickets.sign(claims)},
            body=self._body,
            deadline_s=30.0,
        )
