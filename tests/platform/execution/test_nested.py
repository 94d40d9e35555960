"""Pipelines as steps of pipelines: started once, answered for, cancelled, retried, restarted."""

import json

import pytest
from execution_support import TESTER
from fake_workers import FakeWorkerFleet, caller
from graph_support import ECHO, FAIL, graph, open_core, states, told, workers
from hivemesh_platform.execution.behalf import Behalf
from hivemesh_platform.execution.held import Verdict
from hivemesh_platform.storage.errors import StorageFullError
from hivemesh_sdk.contracts.api import RunRequest
from hivemesh_sdk.contracts.problems import problem
from hivemesh_sdk.contracts.tickets import TICKET_TYPE
from hivemesh_sdk.errors import HivemeshError
from hivemesh_sdk.trust import jws

pytestmark = pytest.mark.usefixtures("each_database")


def named(name, document, **parameters):
    return {
        **document,
        "metadata": {"name": name, "version": 1},
        "parameters": parameters or document["parameters"],
    }


INNER = named(
    "inner",
    graph(
        read={"use": "test.read@1"},
        sum={"use": "test.sum@1", "reduce": "read"},
        say=told("${{ parameters.word }} ${{ sum.sum }}"),
        outputs={"total": "sum.sum", "said": "say.options.text", "records": "read"},
    ),
    word={},
)
OUTER = graph(
    word=ECHO,
    part={"use": "pipeline/inner@1", "with": {"word": "sum"}, "needs": ["word"]},
    last=told("${{ part.said }}: ${{ part.total }}"),
    outputs={"text": "last.options.text", "part": "part"},
)


async def store(platform, *documents, author=TESTER):
    for document in documents:
        await platform.execution.pipelines.store(document, author)


async def child_of(platform, run, step="part"):
    view = await platform.execution.runs.get(run)
    return next(node.child for node in view.nodes if node.name == step)


async def test_a_pipeline_is_a_step_of_another_one(tmp_path):
    async with open_core(tmp_path) as platform:
        await store(platform, INNER)
        run = await platform.run(OUTER)
        assert run.state == "completed"
        assert await platform.output(run.id, "text") == b'"sum 595: 595"'
        part = json.loads(await platform.output(run.id, "part"))
        assert part["records"] == {"dataset": "inner.records", "version": 1}
        child = await platform.execution.runs.get(await child_of(platform, run.id))
        assert (child.state, child.parent, child.parent_step) == ("completed", run.id, "part")
        events = await platform.execution.runs.events(child.id, 0, 100, 0)
        assert {"run_accepted", "run_completed"} <= {one.type for one in events}


async def test_a_failure_goes_up_and_a_retry_down(tmp_path):
    broken = workers()
    inner = named("inner", graph(a=ECHO, bad={**FAIL, "needs": ["a"]}))
    document = graph(part={"use": "pipeline/inner@1"}, last={**ECHO, "needs": ["part"]})
    async with open_core(tmp_path, broken) as platform:
        await store(platform, inner)
        run = await platform.run(document)
        assert (run.state, run.problem["detail"]) == ("failed", "broken")
        assert states(run) == {"part": "failed", "last": "blocked"}
        child = await child_of(platform, run.id)
        broken.behaviours["test.fail@1"] = caller(lambda _value, _options: 1)
        before = len(platform.fleet.puts)
        await platform.execution.again.retry(run.id, "", TESTER)
        view = await platform.end(run.id)
        assert view.state == "completed"
        assert await child_of(platform, run.id) == child
        assert [key.split(".")[1] for _, key, _ in platform.fleet.puts[before:]] == ["bad", "last"]


@pytest.mark.parametrize("ended", [True, False])
async def test_a_child_that_was_retried_alone_is_not_started_a_second_time(tmp_path, ended):
    broken = workers()
    async with open_core(tmp_path, broken) as platform:
        await store(platform, named("inner", graph(a=ECHO, bad={**FAIL, "needs": ["a"]})))
        run = await platform.run(graph(part={"use": "pipeline/inner@1"}))
        child = await child_of(platform, run.id)
        broken.behaviours["test.fail@1"] = caller(lambda _value, _options: 1)
        if not ended:
            broken.hang_once.add("test.fail@1")
        before = len(platform.fleet.puts)
        await platform.execution.again.retry(child, "", TESTER)
        if ended:
            await platform.end(child)
        else:
            await platform.until(lambda: len(platform.fleet.puts) > before)
        await platform.execution.again.retry(run.id, "", TESTER)
        assert await child_of(platform, run.id) == child
        for step in () if ended else platform.execution.held.all():
            step.end(Verdict.LOST, problem("worker-lost", "gone"))
        assert (await platform.end(run.id)).state == "completed"
        assert await child_of(platform, run.id) == child
        steps = [key.split(".")[1] for _, key, _ in platform.fleet.puts[before:]]
        assert set(steps) == {"bad"}


@pytest.mark.parametrize("first", ["word", "part"])
async def test_a_child_that_runs_is_cancelled_when_its_step_is_done_afresh(tmp_path, first):
    slow = workers()
    slow.hang_once.add("test.fail@1")
    slow.behaviours["test.fail@1"] = caller(lambda _value, _options: 1)
    document = graph(word=ECHO, part={"use": "pipeline/inner@1", "needs": ["word"]})
    async with open_core(tmp_path, slow) as platform:
        await store(platform, named("inner", graph(long=FAIL)))
        run = await platform.start(document)
        await platform.until(lambda: any(".long." in key for _, key, _ in platform.fleet.puts))
        old = await child_of(platform, run)
        await platform.execution.again.retry(run, first, TESTER)
        assert (await platform.execution.runs.get(old)).state == "cancelled"
        assert states(await platform.end(run)) == {"word": "completed", "part": "completed"}
        new = await child_of(platform, run)
        assert new != old
        assert (await platform.execution.runs.get(new)).state == "completed"
        await platform.until(lambda: not len(platform.execution.held))


async def test_a_cancel_goes_down(tmp_path):
    slow = workers()
    slow.hang_once = {"test.fail@1"}
    middle = named("middle", graph(part={"use": "pipeline/inner@1"}))
    document = graph(part={"use": "pipeline/middle@1"})
    async with open_core(tmp_path, slow) as platform:
        await store(platform, named("inner", graph(long=FAIL)), middle)
        run = await platform.start(document)
        await platform.until(lambda: platform.fleet.puts)
        middle_run = await child_of(platform, run)
        inner_run = await child_of(platform, middle_run)
        await platform.execution.runs.cancel(run)
        for one in (run, middle_run, inner_run):
            assert (await platform.execution.runs.get(one)).state == "cancelled"
        await platform.until(lambda: not len(platform.execution.held))


async def test_a_cancel_of_one_step_goes_down_to_the_workers(tmp_path):
    slow = workers()
    slow.hang_once = {"test.fail@1"}
    async with open_core(tmp_path, slow) as platform:
        await store(platform, named("inner", graph(long=FAIL)))
        run = await platform.start(graph(part={"use": "pipeline/inner@1"}))
        await platform.until(lambda: platform.fleet.puts)
        child = await child_of(platform, run)
        await platform.execution.cancels.cancel(run, "part", None)
        await platform.until(lambda: platform.fleet.deleted)
        assert {key for _, key in platform.fleet.deleted} == {f"{child}.long.0"}
        assert (await platform.end(child)).state == "cancelled"


async def test_what_a_child_gives_waits_for_space_and_its_parent_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr("hivemesh_platform.execution.runs.nodes.PASSING_S", 0.01)
    large = "x" * 100_000
    say = told("${{ parameters.word }}")
    inner = named("inner", graph(say=say, outputs={"same": "say.options.text"}), word={})
    async with open_core(tmp_path) as platform:
        await store(platform, inner)
        kept, full = platform.artifacts.put, [3]

        async def put(data, run):
            if data.startswith(b'{"same":') and full[0]:
                full[0] -= 1
                message = "no space is left"
                raise StorageFullError(message)
            return await kept(data, run)

        monkeypatch.setattr(platform.artifacts, "put", put)
        document = graph(
            part={"use": "pipeline/inner@1", "with": {"word": large}}, outputs={"all": "part"}
        )
        run = await platform.run(document)
        assert (run.state, full) == ("completed", [0])
        assert large.encode() in await platform.output(run.id, "all")


async def test_a_cancelled_child_fails_its_step(tmp_path):
    slow = workers()
    slow.hang_once = {"test.fail@1"}
    async with open_core(tmp_path, slow) as platform:
        await store(platform, named("inner", graph(long=FAIL)))
        run = await platform.start(graph(part={"use": "pipeline/inner@1"}))
        await platform.until(lambda: platform.fleet.puts)
        await platform.execution.runs.cancel(await child_of(platform, run))
        assert (await platform.end(run)).state == "failed"


async def test_a_child_is_started_once_and_gone_on_with_after_a_restart(tmp_path):
    slow = workers()
    slow.hang_once = {"test.sum@1"}
    async with open_core(tmp_path, slow) as platform:
        await store(platform, INNER)
        run = await platform.start(OUTER)
        await platform.until(lambda: any(".sum." in key for _, key, _ in platform.fleet.puts))
        child = await child_of(platform, run)
    async with open_core(tmp_path, workers()) as platform:
        view = await platform.end(run)
        assert view.state == "completed"
        assert await child_of(platform, run) == child
        assert await platform.output(run, "text") == b'"sum 595: 595"'


async def test_each_level_narrows_the_rights(tmp_path):
    viewer = Behalf(sub="author", roles=("viewer",), grants=("run:*",))
    async with open_core(tmp_path) as platform:
        await store(platform, INNER, author=viewer)
        run = await platform.run(OUTER)
        assert run.state == "completed"
        roles = {}
        for (_, key, _), token in zip(platform.fleet.puts, platform.fleet.tickets, strict=True):
            roles[key.split(".")[1]] = json.loads(jws.unverified(token, TICKET_TYPE))["roles"]
        assert roles["say"] == roles["read"] == ["viewer"]
        assert roles["last"] == ["viewer", "analyst", "author", "operator", "admin"] or (
            "admin" in roles["last"]
        )


async def test_a_step_hands_on_no_artifact_that_its_run_has_no_right_to(tmp_path):
    async with open_core(tmp_path, FakeWorkerFleet(workers(**{"test.echo@1": caller(lambda _v, _o: FOREIGN)}))) as platform:  # fmt: skip
        await store(platform, named("inner", graph(say=told("x")), file={"type": "artifact"}))
        document = graph(
            a=ECHO, part={"use": "pipeline/inner@1", "with": {"file": "${{ a.file }}"}}
        )
        run = await platform.run(document)
        assert (run.state, states(run)["part"]) == ("failed", "failed")
        assert "neither given to" in run.problem["detail"]


FOREIGN = {"file": {"sha256": "ab" * 32, "size": 3}}


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ({"a": {"use": "pipeline/none@1"}}, "there is no pipeline/none@1"),
        ({"a": {"use": "pipeline/inner@2"}}, "there is no pipeline/inner@2"),
        ({"a": {"use": "pipeline/graph@1"}}, "pipelines run each other"),
        ({"a": {"use": "pipeline/inner@1", "with": {"word": 1, "other": 2}}}, "'other'"),
        ({"a": {"use": "pipeline/inner@1"}}, "'word'"),
    ],
)
async def test_what_cannot_be_nested_is_refused_before_anything_runs(tmp_path, steps, words):
    async with open_core(tmp_path) as platform:
        await store(platform, INNER)
        with pytest.raises(HivemeshError) as refused:
            await platform.start(graph(**steps))
        assert words in refused.value.errors[0].message


async def test_pipelines_lie_at_most_eight_deep(tmp_path):
    async with open_core(tmp_path) as platform:
        await store(platform, named("level0", graph(a=ECHO)))
        for level in range(1, 8):
            use = {"use": f"pipeline/level{level - 1}@1"}
            await store(platform, named(f"level{level}", graph(a=use)))
        run = await platform.run(graph(a={"use": "pipeline/level6@1"}))
        assert run.state == "completed"
        request = RunRequest(document=graph(a={"use": "pipeline/level7@1"}))
        with pytest.raises(HivemeshError, match="8 deep"):
            await platform.execution.runs.start(request, TESTER)
