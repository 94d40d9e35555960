"""A worker calls another one with the ticket of its step, while no platform is there."""

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from calling_worker import BOOKED, converter, ledger
from hivemesh_sdk.contracts.instances import Discovery, Endpoint
from hivemesh_sdk.contracts.manifest import Manifest
from hivemesh_sdk.contracts.names import TICKET_HEADER
from hivemesh_sdk.contracts.pages import decode_page, encode_request
from hivemesh_sdk.contracts.problems import problem, slug_of
from hivemesh_sdk.contracts.steps import InputPart, ProblemEvent, StepRequest
from hivemesh_sdk.errors import RemoteError, RetryableError
from hivemesh_sdk.testing.artifacts import FolderPlatform
from hivemesh_sdk.testing.fake_policies import EverythingAllowed
from hivemesh_sdk.testing.pki import ThrowawayCA
from hivemesh_sdk.testing.tickets import ThrowawayTickets
from hivemesh_sdk.transport import MeshClient, serve
from hivemesh_sdk.transport.balance import Caller, Discoverer
from hivemesh_sdk.transport.connection import Response, Target
from hivemesh_sdk.trust.tickets import announced_keys, own_identity
from hivemesh_sdk.worker.access import Own
from hivemesh_sdk.worker.calls import LONGEST_S, Calls, OwnTickets, _Call, pause
from hivemesh_sdk.worker.questions import Question
from hivemesh_sdk.worker.server import ServerSettings, WorkerServer

SUPPORT = Path(__file__).parent / "support"
BOOK = "ledger.book@1"


def manifest(name, worker, attribute, calls=()):
    capabilities = [
        {"id": one.id, "kind": one.kind, "run_in": one.run_in, "slots": 2}
        for one in worker.capabilities.values()
    ]
    return Manifest.model_validate(
        {
            "apiVersion": "hivemesh/v1",
            "kind": "Worker",
            "metadata": {"name": name, "version": "1.0.0"},
            "runtime": {"entrypoint": f"calling_worker:{attribute}"},
            "capabilities": capabilities,
            "permissions": {"call": list(calls)},
        }
    )


class Pair:
    """Both workers on loopback, and the platform's side of a step."""

    def __init__(self, stack, folder):
        self.ca = ThrowawayCA()
        self.stack, self.folder = stack, folder
        self.tickets = ThrowawayTickets(self.ca.signing, str(self.ca.platform()))
        self.endpoints = []

    async def start(self, name, worker, attribute, calls=()):
        document = manifest(name, worker, attribute, calls)
        source = self.ca.source(self.ca.worker(name, "i1"))
        client = await self.stack.enter_async_context(MeshClient(source))
        discoverer = Discoverer(self.discovery)
        await discoverer.refresh()
        folder = self.folder / name
        (folder / "artifacts").mkdir(parents=True)
        platform = self.platform = FolderPlatform(folder / "artifacts")
        settings = ServerSettings(
            own=Own.of(document, own_identity(source), announced_keys(source), EverythingAllowed()),
            scratch=folder / "scratch",
            instance="i1",
            search_path=(str(SUPPORT),),
            caller=Caller(client, discoverer),
        )
        server = WorkerServer(document, platform, settings, worker=worker)
        await server.start()
        self.stack.push_async_callback(server.stop)
        listener = await self.stack.enter_async_context(serve(server.app, source, "127.0.0.1", 0))
        self.endpoints.append(
            Endpoint(
                instance="i1", worker=name, version="1.0.0", identity=str(source.svid().id),
                host="127.0.0.1", port=listener.port,
                capabilities=[one.id for one in document.capabilities],
            )
        )  # fmt: skip
        return Target.instance("127.0.0.1", listener.port, source.svid().id)

    async def discovery(self, after, wait_s):
        return Discovery(version=len(self.endpoints), endpoints=self.endpoints)

    async def step(self, target, capability, amount=5, *, attempt=1, **claims):
        """Run a step of the converter as the platform does; the last event and its body."""
        holder = self.ca.worker("converter", "i1")
        right = self.tickets.claims(holder, "run_1.convert.0", capability, attempt)
        right = msgspec.structs.replace(
            right, **{"aud": ["converter", "ledger"], "calls": [BOOK], **claims}
        )
        body = json.dumps(amount).encode()
        request = StepRequest(
            capability=capability, kind="call", attempt=attempt, epoch=1,
            inputs=[InputPart(bytes=len(body), count=1)], deadline_ms=30_000,
        )  # fmt: skip
        async with MeshClient(self.ca.source(self.ca.platform())) as client:
            answer = await client.request(
                target, "PUT", "/v1/steps/run_1.convert.0",
                headers={TICKET_HEADER: self.tickets.sign(right), "prefer": "wait=20"},
                body=encode_request(request, [body]), deadline_s=30.0,
            )  # fmt: skip
        assert answer.status == 200, answer.body
        *_, frame = decode_page(answer.body)
        return frame


@pytest.fixture
async def pair(tmp_path):
    BOOKED.clear()
    async with AsyncExitStack() as stack:
        found = Pair(stack, tmp_path)
        await found.start("ledger", ledger, "ledger")
        found.converter = await found.start("converter", converter, "converter", [BOOK])
        yield found


async def test_a_process_calls_with_the_ticket_of_its_step(pair):
    frame = await pair.step(pair.converter, "doc.convert@1")
    booked = json.loads(frame.body)["booked"]
    assert (booked["amount"], booked["unit"], BOOKED) == (5, "EUR", [5])
    assert booked["key"].startswith("run_1.convert.0.call-")


async def test_an_async_capability_calls_too(pair):
    frame = await pair.step(pair.converter, "doc.convert_async@1")
    assert json.loads(frame.body)["booked"]["amount"] == 5


@pytest.mark.parametrize("capability", ["doc.convert@1", "doc.convert_async@1"])
async def test_the_callee_has_no_longer_than_the_step_that_calls(pair, capability):
    answer = json.loads((await pair.step(pair.converter, capability)).body)
    of_callee, of_step = answer["booked"]["left_s"], answer["left_s"]
    assert of_step < 30
    assert 0 < of_callee <= of_step + 0.001  # it is handed on in whole milliseconds


async def test_the_same_question_is_asked_once_unless_it_has_a_name(pair):
    frame = await pair.step(pair.converter, "doc.twice@1")
    first, second, named = json.loads(frame.body)
    assert first == second
    assert named["key"] == "run_1.convert.0.once-more"
    assert BOOKED == [5, 5]


async def test_a_further_attempt_gets_the_answer_of_the_first(pair):
    await pair.step(pair.converter, "doc.convert_async@1")
    frame = await pair.step(pair.converter, "doc.convert_async@1", attempt=2)
    assert json.loads(frame.body)["booked"]["amount"] == 5
    assert BOOKED == [5]


@pytest.mark.parametrize(
    ("slug", "kind"), [("executor-crashed", RetryableError), ("step-fatal", RemoteError)]
)
def test_a_crash_of_the_callee_is_none_of_the_callers(slug, kind):
    request = StepRequest(capability=BOOK, kind="call", attempt=1, epoch=1)
    call = _Call(None, None, request, "job.job.0.call")  # type: ignore[arg-type]  # nobody is asked
    error = call._failed(problem(slug, "signal 11"))
    assert type(error) is kind
    assert error.problem().retryable == (slug == "executor-crashed")
    assert slug_of(error.problem()) != "executor-crashed"


async def test_what_the_manifest_does_not_list_is_not_called(pair):
    frame = await pair.step(pair.converter, "doc.strays@1")
    assert isinstance(frame.event, ProblemEvent)
    assert slug_of(frame.event.problem) == "not-authorized"


async def test_a_ticket_without_the_call_is_refused_by_the_callee(pair):
    frame = await pair.step(pair.converter, "doc.convert_async@1", aud=["converter"])
    assert slug_of(frame.event.problem) == "not-authorized"
    assert BOOKED == []


async def test_a_process_starts_jobs_one_for_each_name(pair):
    frame = await pair.step(pair.converter, "doc.starts@1")
    first, second, named = json.loads(frame.body)
    assert first == second
    assert named == "job_run_1.convert.0.once-more"
    asked = pair.platform.submitted["run_1.convert.0.once-more"]
    assert (asked.capability, bytes(asked.input), asked.options) == (BOOK, b"5", {})
    assert len(pair.platform.submitted) == 2
    assert BOOKED == []


async def test_an_async_capability_starts_jobs_too(pair):
    frame = await pair.step(pair.converter, "doc.starts_async@1")
    assert json.loads(frame.body).startswith("job_run_1.convert.0.submit-")


CALLEE = Target("127.0.0.1", 1, "spiffe://test.hivemesh.internal/worker/ledger/i1", "i1")


class HangingCallee:
    """Takes requests and answers none but the last word."""

    def __init__(self):
        self.asked, self.told = asyncio.Event(), asyncio.Event()
        self.requests = []

    async def reach(self, _capability, method, path, *, at=None, asking, **_):
        self.requests.append((method, path, at))
        if method == "DELETE":
            self.told.set()
        else:
            asking(CALLEE)
            self.asked.set()
            await asyncio.Event().wait()
        return at, Response(204, [], b"")


async def test_a_call_that_is_given_up_in_its_first_long_poll_is_ended_at_the_callee():
    callee = HangingCallee()
    right = SimpleNamespace(from_worker=False, ticket="ticket")
    step = SimpleNamespace(key="run_1.convert.0", attempt=2, capability="c", right=right)
    calls = Calls(callee, OwnTickets(None, lambda: 0.0), [BOOK])
    asking = asyncio.ensure_future(calls.call(step, Question(BOOK, b"1", b"{}", name="x"), 30))
    await callee.asked.wait()
    asking.cancel()
    await callee.told.wait()
    path = "/v1/steps/run_1.convert.0.x"
    assert callee.requests == [("PUT", path, None), ("DELETE", f"{path}?attempt=2", CALLEE)]


@pytest.mark.parametrize(
    ("named", "least", "most"),
    [
        (None, 0.1, 0.4),
        (-1.0, 0.1, 0.4),
        (2.0, 2.0, 4.0),
        (1e17, LONGEST_S, 2 * LONGEST_S),
    ],
)
def test_callers_of_a_full_worker_do_not_come_back_together(named, least, most):
    refusal = problem("overloaded", retry_after_s=named)
    waits = {pause(refusal) for _ in range(100)}
    assert len(waits) > 1
    assert least <= min(waits) <= max(waits) <= most
