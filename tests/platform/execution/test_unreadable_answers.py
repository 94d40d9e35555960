"""An answer that nobody can read is the problem of its job, not of who looks at others too."""

import json

import pytest
from execution_support import TESTER, core, worker
from fake_workers import Frame, ResultEvent, caller
from graph_support import ECHO, graph, open_core, told, workers
from hivemesh_platform.access.model import Principal
from hivemesh_platform.execution.jobs import batches
from hivemesh_platform.execution.jobs.batches import read_inputs
from hivemesh_platform.execution.runs import nodes
from hivemesh_platform.execution.runs.nodes import INLINE_BYTES
from hivemesh_platform.execution.steps.pages import INLINE_ANSWER
from hivemesh_sdk.contracts.api import BatchRequest, JobRequest, RunRequest

READER = Principal(id=TESTER.sub, tenant=TESTER.tenant, grants=("admin:*",))
NONSENSE = b"x" * (INLINE_ANSWER + 1)  # it becomes an artifact, which is not looked into
SAYS = {"use": "test.fail@1"}
KEPT = {
    "no JSON": '{"value":hello}',
    "too deep": '{"value":' + "[" * 5000 + "]" * 5000 + "}",
    "not there": json.dumps({"artifact": {"sha256": "0" * 64, "bytes": 1}}),
}


def saying(data):
    def run(_request, _inputs):
        yield Frame(ResultEvent(no=1, bytes=len(data)), data)

    return run


@pytest.fixture
async def platform(tmp_path):
    async with open_core(tmp_path, workers(**{"test.fail@1": saying(NONSENSE)})) as opened:
        yield opened


async def job(platform, capability="test.fail@1", value=1):
    request = JobRequest(capability=capability, input=value, wait_s=20)
    return await platform.execution.jobs.start(request, TESTER)


def code(view):
    return view.problem["type"].rpartition(":")[2]


async def test_a_job_is_shown_with_what_is_wrong_with_its_answer(platform):
    view = await job(platform)
    assert (view.state.value, code(view), view.outputs) == ("completed", "output-invalid", {})
    assert await platform.output(view.id, "result") == NONSENSE


async def test_a_job_with_a_long_answer_is_the_document_that_its_view_is(tmp_path):
    long = b'{"text": "' + b"x" * INLINE_ANSWER + b'"}'
    async with open_core(tmp_path, workers(**{"test.fail@1": saying(long)})) as platform:
        runs = platform.execution.runs
        ended, short = await job(platform), await job(platform, "test.echo@1")
        found = await runs.document(ended.id)
        assert json.loads(found) == (await runs.get(ended.id)).model_dump(mode="json")
        assert long in found
        assert await runs.document(short.id) == await runs.get(short.id)


async def test_the_document_of_a_job_says_what_is_wrong_with_a_long_answer(platform):
    view = await job(platform)
    assert await platform.execution.runs.document(view.id) == view


@pytest.mark.parametrize("output", KEPT.values(), ids=KEPT)
async def test_a_list_shows_the_others_beside_a_job_whose_answer_is_damaged(platform, output):
    bad, good = await job(platform, "test.echo@1"), await job(platform, "test.echo@1", 2)
    await platform.database.write(
        lambda tx: tx.execute("UPDATE work SET output = ? WHERE run = ?", (output, bad.id))
    )
    found = {one.id: one for one in await platform.execution.runs.page("", 50, READER)}
    assert found[good.id].outputs == good.outputs
    assert found[bad.id].outputs == {}
    assert code(await platform.execution.runs.get(bad.id)) in {"output-invalid", "artifact-missing"}


async def test_the_results_of_a_batch_go_on_behind_it(platform):
    inputs = await read_inputs([b"1", b"2"])
    view = await platform.execution.batches.start(
        BatchRequest(capability="test.fail@1"), inputs, TESTER, ""
    )
    for number in (1, 2):
        await platform.end(f"{view.first[:-1]}{number}")
    chunks = [chunk async for chunk in platform.execution.batches.results(view.id, 0)]
    lines = [json.loads(line) for line in b"".join(chunks).splitlines()]
    assert [line["problem"]["type"].rpartition(":")[2] for line in lines] == ["output-invalid"] * 2


async def test_the_results_of_a_batch_are_sent_as_they_are_read(tmp_path, monkeypatch):
    long = "x" * INLINE_BYTES  # so that each is kept as an artifact
    monkeypatch.setattr(batches, "CHUNK_BYTES", len(long))
    one = worker(behaviours={"test.echo@1": caller(lambda value, _options: [long, value])})
    async with core(tmp_path, one) as platform:
        view = await platform.execution.batches.start(
            BatchRequest(capability="test.echo@1"),
            await read_inputs([b"1", b"2", b"3"]),
            TESTER,
            "",
        )
        for number in (1, 2, 3):
            await platform.end(f"{view.first[:-1]}{number}")
        chunks = [chunk async for chunk in platform.execution.batches.results(view.id, 0)]
        assert [json.loads(one)["result"] for one in chunks] == [[long, n] for n in (1, 2, 3)]


async def test_the_step_fails_that_needs_it(platform):
    document = graph(a=SAYS, b=told("${{ a.x }}", needs=["a"]), c=ECHO)
    started = await platform.execution.runs.start(RunRequest(document=document), TESTER)
    run = await platform.end(started.id)
    found = {node.name: node for node in run.nodes}
    assert found["b"].problem["type"].endswith("output-invalid")
    assert [found[name].state.value for name in "abc"] == ["completed", "failed", "completed"]


async def test_the_step_fails_whose_pipeline_gives_it(platform):
    inner = graph(outputs={"x": "a.x"}, a=SAYS)
    inner["metadata"] = {"name": "inner", "version": 1}
    await platform.execution.pipelines.store(inner, TESTER)
    run = await platform.run(graph(part={"use": "pipeline/inner@1"}))
    assert run.nodes[0].problem["type"].endswith("output-invalid")


async def test_an_answer_is_handed_out_that_is_too_large_to_be_taken_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(nodes, "MAX_VALUE_BYTES", INLINE_ANSWER)
    large = workers(**{"test.fail@1": caller(lambda *_: "x" * INLINE_ANSWER)})
    async with open_core(tmp_path, large) as platform:
        view = await job(platform)
        assert (code(view), view.outputs) == ("output-invalid", {})
        assert len(await platform.output(view.id, "result")) == INLINE_ANSWER + 2
