"""The step protocol over mutual TLS, with the SDK's own worker at the other end."""

import json
from contextlib import asynccontextmanager

import pytest
from hivemesh_platform.execution.ports import Place, StepRefusedError, UnreachableError
from hivemesh_platform.execution.steps.mesh_transport import WAITING, MeshStepTransport
from hivemesh_sdk import Context, Worker
from hivemesh_sdk.contracts.instances import Endpoint
from hivemesh_sdk.contracts.manifest import Manifest
from hivemesh_sdk.contracts.pages import decode_page, encode_request
from hivemesh_sdk.contracts.problems import slug_of
from hivemesh_sdk.contracts.steps import InputPart, RecordsEvent, ResultEvent, StepRequest
from hivemesh_sdk.testing.artifacts import FolderPlatform
from hivemesh_sdk.testing.fake_policies import EverythingAllowed
from hivemesh_sdk.testing.pki import ThrowawayCA
from hivemesh_sdk.testing.tickets import ThrowawayTickets
from hivemesh_sdk.transport import MeshClient, serve
from hivemesh_sdk.trust.tickets import announced_keys, own_identity
from hivemesh_sdk.worker.access import Own
from hivemesh_sdk.worker.server import ServerSettings, WorkerServer

worker = Worker()
MANIFEST = Manifest.model_validate(
    {
        "apiVersion": "hivemesh/v1",
        "kind": "Worker",
        "metadata": {"name": "echo", "version": "1.0.0"},
        "runtime": {"entrypoint": "test_mesh_transport:worker"},
        "capabilities": [
            {"id": "test.upper@1", "kind": "map", "run_in": "inline"},
            {"id": "test.echo@1", "kind": "call", "run_in": "inline"},
        ],
    }
)


@worker.map("test.upper@1", run_in="inline")
async def upper(records: list[dict], context: Context) -> list[dict]:
    return [{"text": one["text"].upper()} for one in records]


@worker.call("test.echo@1", run_in="inline")
async def echo(input: dict, context: Context) -> dict:  # noqa: A002 - the name of the role
    return input


@pytest.fixture(scope="module")
def ca():
    return ThrowawayCA()


@asynccontextmanager
async def serving(ca, folder, instance="i1"):
    """A worker on loopback; yields its endpoint."""
    identity = ca.worker("echo", instance)
    platform = FolderPlatform(folder / "artifacts")
    source = ca.source(identity)
    own = Own.of(MANIFEST, own_identity(source), announced_keys(source), EverythingAllowed())
    settings = ServerSettings(own=own, scratch=folder / "scratch", instance=instance)
    server = WorkerServer(MANIFEST, platform, settings, worker=worker)
    await server.start()
    try:
        async with serve(server.app, source, "127.0.0.1", 0) as listener:
            yield Endpoint(
                instance=instance,
                worker="echo",
                version="1.0.0",
                identity=str(identity),
                host="127.0.0.1",
                port=listener.port,
                capabilities=["test.upper@1", "test.echo@1"],
            )
    finally:
        await server.stop()


@pytest.fixture
async def transport(ca):
    async with MeshClient(ca.source(ca.platform())) as client:
        yield MeshStepTransport(client)


def ticket(ca, key, capability="test.upper@1"):
    tickets = ThrowawayTickets(ca.signing, str(ca.platform()))
    return tickets.of(ca.worker("echo", "i1"), key, capability)


def request(kind, body, *, capability="test.upper@1", attempt=1, **fields):
    part = InputPart(bytes=len(body), count=1)
    made = StepRequest(
        capability=capability, kind=kind, attempt=attempt, epoch=1, inputs=[part], **fields
    )
    return encode_request(made, [body])


async def test_a_map_is_one_exchange(ca, tmp_path, transport):
    body = request("map", b'{"text": "a"}\n{"text": "b"}\n')
    async with serving(ca, tmp_path) as endpoint:
        page = await transport.put_step(
            endpoint, "run_1.map.1", body, ticket=ticket(ca, "run_1.map.1"), wait_s=10
        )
    frames = list(decode_page(page.body))
    assert page.execution
    assert isinstance(frames[0].event, RecordsEvent)
    assert frames[0].body == b'{"text":"A"}\n{"text":"B"}\n'
    assert isinstance(frames[-1].event, ResultEvent)


async def test_the_next_request_has_the_worker_forget_recorded_answers(ca, tmp_path, transport):
    body = request("call", b'{"a": 1}', capability="test.echo@1")

    async def call(endpoint, number):
        key = f"job_{number}.job.0"
        shown = ticket(ca, key, "test.echo@1")
        await transport.put_step(endpoint, key, body, ticket=shown, wait_s=10)
        return key

    async with serving(ca, tmp_path) as endpoint:
        keys = [await call(endpoint, number) for number in range(40)]
        for key in keys:
            transport.acknowledge(endpoint, key, 1)
        for number in (40, 41):
            await call(endpoint, number)
        for key in keys:
            with pytest.raises(StepRefusedError) as refused:
                await transport.step_status(endpoint, key)
            assert slug_of(refused.value.document) == "execution-unknown"
        assert (await transport.step_status(endpoint, "job_40.job.0")).last_event == 1


async def test_an_acknowledgement_is_taken_back_until_a_request_has_taken_it(
    ca, tmp_path, transport
):
    body = request("call", b'{"a": 1}', capability="test.echo@1")
    async with serving(ca, tmp_path) as endpoint:
        transport.acknowledge(endpoint, "job_1.job.0", 1)
        transport.acknowledge(endpoint, "job_2.job.0", 1)
        assert transport.take_back(endpoint, "job_2.job.0", 1)
        shown = ticket(ca, "job_3.job.0", "test.echo@1")
        await transport.put_step(endpoint, "job_3.job.0", body, ticket=shown, wait_s=10)
        assert not transport.take_back(endpoint, "job_1.job.0", 1)


async def test_acknowledgements_that_nobody_takes_are_few(ca, transport):
    endpoint = Endpoint(
        instance="i1",
        worker="echo",
        version="1.0.0",
        identity=str(ca.worker("echo", "i1")),
        host="127.0.0.1",
        port=1,
        capabilities=[],
    )
    for number in range(10_000):
        transport.acknowledge(endpoint, f"job_{number}.job.0", 1)
    assert transport.unsent_acknowledgements == WAITING
    assert transport.take_back(endpoint, "job_0.job.0", 1)  # for no request has taken it


async def test_a_call_answers_its_value(ca, tmp_path, transport):
    body = request("call", b'{"a": 1}', capability="test.echo@1")
    async with serving(ca, tmp_path) as endpoint:
        page = await transport.put_step(
            endpoint,
            "job_1.job.0",
            body,
            ticket=ticket(ca, "job_1.job.0", "test.echo@1"),
            wait_s=10,
        )
    [frame] = decode_page(page.body)
    assert json.loads(frame.body) == {"a": 1}


async def test_events_are_read_again_until_they_are_acknowledged(ca, tmp_path, transport):
    body = request("map", b'{"text": "a"}\n')
    async with serving(ca, tmp_path) as endpoint:
        page = await transport.put_step(
            endpoint, "run_1.map.1", body, ticket=ticket(ca, "run_1.map.1"), wait_s=10
        )
        again = await transport.get_events(
            endpoint,
            "run_1.map.1",
            Place(page.execution, 1, 0),
            ticket=ticket(ca, "run_1.map.1"),
            wait_s=1,
        )
        assert again.body == page.body


async def test_an_unknown_execution_is_a_problem(ca, tmp_path, transport):
    async with serving(ca, tmp_path) as endpoint:
        with pytest.raises(StepRefusedError) as refused:
            await transport.get_events(
                endpoint,
                "run_1.map.1",
                Place("e", 1, 0),
                ticket=ticket(ca, "run_1.map.1"),
                wait_s=1,
            )
    assert slug_of(refused.value.problem()) == "execution-unknown"


async def test_a_forgotten_step_is_unknown(ca, tmp_path, transport):
    body = request("map", b'{"text": "a"}\n')
    async with serving(ca, tmp_path) as endpoint:
        page = await transport.put_step(
            endpoint, "run_1.map.1", body, ticket=ticket(ca, "run_1.map.1"), wait_s=10
        )
        await transport.delete_step(endpoint, "run_1.map.1", 1)
        with pytest.raises(StepRefusedError):
            await transport.get_events(
                endpoint,
                "run_1.map.1",
                Place(page.execution, 1, 0),
                ticket=ticket(ca, "run_1.map.1"),
                wait_s=1,
            )


async def test_status_names_the_worker(ca, tmp_path, transport):
    async with serving(ca, tmp_path) as endpoint:
        found = await transport.status(endpoint, timeout_s=5)
    assert (found.worker, found.instance) == ("echo", "i1")


async def test_a_worker_that_is_gone_is_unreachable(ca, tmp_path, transport):
    async with serving(ca, tmp_path) as endpoint:
        pass
    with pytest.raises(UnreachableError):
        await transport.status(endpoint, timeout_s=2)


async def test_a_call_that_reaches_another_instance_dies_unsent(ca, tmp_path, transport):
    async with serving(ca, tmp_path, "i2") as endpoint:
        wrong = Endpoint(
            **{name: getattr(endpoint, name) for name in endpoint.__struct_fields__}
            | {"identity": str(ca.worker("echo", "i1"))}
        )
        with pytest.raises(UnreachableError):
            await transport.status(wrong, timeout_s=2)
