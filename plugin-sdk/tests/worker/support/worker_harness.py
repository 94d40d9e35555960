"""A worker without a listener: requests go to its ASGI application, executors are real."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hivemesh_sdk.contracts.manifest import Manifest
from hivemesh_sdk.contracts.names import TICKET_HEADER
from hivemesh_sdk.contracts.pages import Frame, decode_page, encode_request
from hivemesh_sdk.contracts.problems import Problem
from hivemesh_sdk.contracts.steps import InputPart, StepRequest
from hivemesh_sdk.testing.artifacts import FolderPlatform
from hivemesh_sdk.testing.fake_policies import EverythingAllowed
from hivemesh_sdk.testing.tickets import ThrowawayTickets
from hivemesh_sdk.trust.identity import Peer, SpiffeId
from hivemesh_sdk.trust.jws import SigningKey
from hivemesh_sdk.worker.access import Own
from hivemesh_sdk.worker.executor import load_worker
from hivemesh_sdk.worker.server import ServerSettings, WorkerServer
from hivemesh_sdk.worker.steps import Timing

SAMPLES = Path(__file__).parent
WAIT_S = 30.0


def peer(identity: SpiffeId) -> Peer:
    return Peer(identity, datetime.now(UTC) + timedelta(hours=1), 1, str(identity))


PLATFORM = peer(SpiffeId.platform("mesh.test", "p1"))
OPERATOR = peer(SpiffeId.user("mesh.test", "operator"))
NEIGHBOUR = peer(SpiffeId.worker("mesh.test", "other", "i1"))
HOLDER = SpiffeId.worker("mesh.test", "sample", "i1")
TICKETS = ThrowawayTickets(SigningKey(Ed25519PrivateKey.generate()), PLATFORM.uri)
KEYS = {TICKETS.signing.public.id: TICKETS.signing.public}


def ticket(key, capability="sample.unknown@1", attempt=1, *, tickets=TICKETS):
    """The header with a right ticket."""
    return {TICKET_HEADER: tickets.of(HOLDER, key, capability, attempt)}


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def frames(self) -> list[Frame]:
        assert self.status == 200, self.body
        return list(decode_page(self.body))

    @property
    def kinds(self) -> list[str]:
        return [type(frame.event).__name__.removesuffix("Event").lower() for frame in self.frames]

    @property
    def problem(self) -> Problem:
        return msgspec.json.decode(self.body, type=Problem)

    @property
    def slug(self) -> str:
        return self.problem.type.rsplit(":", 1)[1]

    @property
    def failure(self) -> Problem:
        """The problem that ended the execution."""
        return self.frames[-1].event.problem

    @property
    def result(self) -> object:
        assert self.kinds[-1] == "result", self.frames
        return json.loads(self.frames[-1].body)

    @property
    def execution(self) -> str:
        return self.headers["hivemesh-execution"]


async def ask(app, method, target, *, body=b"", headers=None, who=PLATFORM) -> Answer:
    """Call an ASGI application once."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    path, _, query = target.partition("?")
    lines = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": lines,
        "state": {"peer": who} if who else {},
    }
    async with asyncio.timeout(WAIT_S):
        await app(scope, receive, send)
    return Answer(
        sent[0]["status"],
        {name.decode(): value.decode() for name, value in sent[0]["headers"]},
        b"".join(message.get("body", b"") for message in sent[1:]),
    )


class Reply:
    """Takes the direct answer to a request."""

    others_wait = False

    def __init__(self):
        self.answered = asyncio.get_running_loop().create_future()

    def later(self):
        pass

    def answer(self, status, lines, body):
        named = dict(line.decode().split(": ", 1) for line in lines)
        self.answered.set_result(Answer(status, named, body))

    def fail_directly(self, error):
        self.answered.set_exception(error)


async def ask_directly(app, method, target, *, body=b"", headers=None, who=PLATFORM) -> Answer:
    """Call an application that gives direct answers once."""
    scope = {
        "method": method,
        "path": target,
        "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
        "state": {"peer": who} if who else {},
    }
    assert app.takes(scope)
    reply = Reply()
    asked = app.direct(scope, dict(scope["headers"]), body, reply)
    if asked is not None:
        asked()
    async with asyncio.timeout(WAIT_S):
        return await reply.answered


def request_body(
    capability: str, kind: str = "call", inputs: Sequence[bytes] = (), **fields
) -> bytes:
    """The body of a `PUT`."""
    fields.setdefault("attempt", 1)
    fields.setdefault("epoch", 1)
    fields.setdefault("inputs", [InputPart(bytes=len(one)) for one in inputs])
    request = StepRequest(capability=capability, kind=kind, **fields)
    return b"".join(encode_request(request, inputs))


@dataclass
class Sample:
    """The sample worker, serving."""

    server: WorkerServer
    platform: FolderPlatform
    scratch: Path
    folder: Path
    keys: int = field(default=0)
    asked: dict[str, tuple[str, int]] = field(default_factory=dict)  # capability and attempt by key

    async def put(
        self, capability, kind="call", inputs=(), *, key=None, headers=None, who=PLATFORM, **fields
    ) -> Answer:
        self.keys += 1
        key = key or f"run.step.{self.keys}"
        self.asked[key] = capability, fields.get("attempt", 1)
        return await ask(
            self.server.app,
            "PUT",
            f"/v1/steps/{key}",
            body=request_body(capability, kind, inputs, **fields),
            headers={**ticket(key, *self.asked[key]), **(headers or {})},
            who=who,
        )

    async def put_parts(self, capability, kind, parts: Sequence[InputPart]) -> Answer:
        """A step whose inputs come by reference."""
        self.keys += 1
        request = StepRequest(capability=capability, kind=kind, attempt=1, epoch=1, inputs=parts)
        key, body = f"run.step.{self.keys}", b"".join(encode_request(request))
        self.asked[key] = capability, 1
        headers = ticket(key, capability)
        return await ask(self.server.app, "PUT", f"/v1/steps/{key}", body=body, headers=headers)

    async def events(self, key, execution, after=0, *, epoch=1, headers=None) -> Answer:
        query = f"execution={execution}&epoch={epoch}&after={after}"
        headers = {**ticket(key, *self.asked.get(key, ())), **(headers or {})}
        return await ask(self.server.app, "GET", f"/v1/steps/{key}/events?{query}", headers=headers)

    async def get(self, target, *, who=PLATFORM) -> Answer:
        return await ask(self.server.app, "GET", target, who=who)

    async def delete(self, key, attempt=1) -> Answer:
        return await ask(self.server.app, "DELETE", f"/v1/steps/{key}?attempt={attempt}")

    async def read_all(self, key, first: Answer) -> list[Frame]:
        """Follow an execution to its end, acknowledging every page."""
        frames, answer = [], first
        while True:
            frames += answer.frames
            if answer.frames and type(frames[-1].event).__name__ in {"ResultEvent", "ProblemEvent"}:
                return frames
            last = frames[-1].event.no if frames else 0
            answer = await self.events(key, first.execution, last)

    async def idle(self, capability: str) -> None:
        """Wait until no slot of the capability is taken."""
        await until(lambda: self.server.active()[capability] == 0)


async def until(condition) -> None:
    """Wait for something that another process does; a deadline ends the wait."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - another process sets no event of ours
            await asyncio.sleep(0.005)


@asynccontextmanager
async def serving(
    folder: Path, *, platform=None, timing=None, resources=None, slots=None, **settings
) -> AsyncIterator[Sample]:
    worker = load_worker("sample_worker:worker", [str(SAMPLES)])
    manifest = Manifest.model_validate(
        {
            "apiVersion": "hivemesh/v1",
            "kind": "Worker",
            "metadata": {"name": "sample", "version": "1.0.0"},
            "runtime": {"entrypoint": "sample_worker:worker"},
            "capabilities": [
                {
                    "id": one.id,
                    "kind": one.kind,
                    "run_in": one.run_in,
                    "slots": (slots or {}).get(one.id, 1),
                }
                for one in worker.capabilities.values()
            ],
            # the front is the process of the tests, which holds what all of them have loaded
            "resources": resources or {"memory_mb": 8192},
        }
    )
    artifacts = folder / "artifacts"
    artifacts.mkdir(exist_ok=True)
    platform = platform or FolderPlatform(artifacts)
    scratch = folder / "scratch"
    server = WorkerServer(
        manifest,
        platform,
        ServerSettings(
            own=Own.of(manifest, lambda: str(HOLDER), lambda: KEYS, EverythingAllowed()),
            scratch=scratch,
            instance="i1",
            search_path=(str(SAMPLES),),
            timing=timing or Timing(grace=0.2),
            **settings,
        ),
    )
    await server.start()
    try:
        yield Sample(server, platform, scratch, folder)
    finally:
        await server.stop()
