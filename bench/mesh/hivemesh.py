"""Ours: an inline capability of one worker, called by a step of another through the mesh client.

Ticket, policy, deadlines, admission, step table and metrics are on: it is what a worker process
runs. The calls of a step bear the one ticket that the platform has signed for the step.
"""

import asyncio
import secrets
import tempfile
from pathlib import Path
from typing import Any

import pki
from hivemesh_sdk import Record, Worker
from hivemesh_sdk.contracts.manifest import Manifest
from hivemesh_sdk.contracts.names import EXECUTION_HEADER, TICKET_HEADER
from hivemesh_sdk.contracts.pages import decode_page, encode_request
from hivemesh_sdk.contracts.policy import PolicyDocument, SignedPolicy
from hivemesh_sdk.contracts.steps import InputPart, ResultEvent, StepRequest
from hivemesh_sdk.heap import quiet_collector
from hivemesh_sdk.testing.artifacts import FolderPlatform
from hivemesh_sdk.transport.client import MeshClient
from hivemesh_sdk.transport.connection import Response, Target
from hivemesh_sdk.transport.server import serve as listen
from hivemesh_sdk.trust.policy import CompiledPolicy, raw_rules, signed_rules
from hivemesh_sdk.trust.tickets import announced_keys, own_identity
from hivemesh_sdk.worker.access import Own
from hivemesh_sdk.worker.server import ServerSettings, WorkerServer

worker = Worker()
HOLD_S, HOLD_SLOTS = 0.25, 4


class Message(Record):
    id: int
    text: str
    tags: list[str]


@worker.call("bench.echo@1", run_in="inline")
def echo(message: Message) -> Message:
    """Answer with the message."""
    return message


@worker.call("bench.echo_async@1")
async def echo_async(message: Message) -> Message:
    """The same for what may wait, which runs on the second loop."""
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
            {"id": "bench.echo_async@1", "kind": "call", "run_in": "inline", "slots": 64},
            {"id": "bench.hold@1", "kind": "call", "run_in": "inline", "slots": HOLD_SLOTS},
        ],
    }
)


class Policies:
    """The policy of this comparison: its caller may call its capabilities, and nobody else may."""

    stale = False

    def __init__(self):
        allow = {"id": "bench", "from": {"worker": "caller"}, "to": {"worker": "echo"}}
        document = PolicyDocument.model_validate({"rules": [allow]})
        rules, deny = signed_rules(document, pki.TRUST_DOMAIN)
        policy = SignedPolicy(
            version=1,
            issued_at=1,
            trust_domain=pki.TRUST_DOMAIN,
            rules=raw_rules(rules),
            deny=deny,
        )
        self._compiled = CompiledPolicy(policy)

    def current(self):
        return self._compiled


async def serve(folder: Path, announce) -> None:
    """Serve until ended."""
    with tempfile.TemporaryDirectory(prefix="echo-") as scratch:
        source = pki.source(folder, "server")
        own = Own.of(MANIFEST, own_identity(source), announced_keys(source), Policies())
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
        self._steps = f"/v1/steps/{pki.CALLER_STEP}.{secrets.token_hex(4)}-"
        self._body = b"".join(encode_request(request, [body]))
        ticket = (folder / "ticket").read_text()
        self._headers = {"prefer": "wait=20", TICKET_HEADER: ticket}

    async def __aenter__(self):
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *_):
        await self._client.close()

    async def call(self, number: int) -> None:
        path = f"{self._steps}{number}"
        answer = await self.ask(number)
        while not answer.body:  # it took longer than calls on a shared connection may
            query = f"execution={answer.headers[EXECUTION_HEADER]}&epoch=1&after=0"
            answer = await self._request("GET", f"{path}/events?{query}")
        if answer.status != 200:
            raise RuntimeError(answer.body)
        event = next(decode_page(answer.body)).event
        if not isinstance(event, ResultEvent):
            raise TypeError(answer.body[:300])

    async def ask(self, number: int) -> Response:
        """The answer as it comes, a refusal included."""
        path = f"{self._steps}{number}"
        return await self._request("PUT", path, body=self._body, shared=True)

    async def _request(self, method: str, path: str, **more: Any) -> Response:
        return await self._client.request(
            self._target, method, path, headers=self._headers, deadline_s=30.0, **more
        )
