"""Graphs over fake workers: order, conditions, failures beside healthy branches, restarts."""

import pytest
from execution_support import CAPABILITIES, PIPELINE, core, numbers, worker
from fake_workers import (
    FakeCatalogue,
    FakeWorkerFleet,
    caller,
    capability,
    failing,
    mapper,
    source,
)
from hivemesh_sdk.contracts.pages import Frame
from hivemesh_sdk.contracts.problems import problem
from hivemesh_sdk.contracts.steps import ProblemEvent

CATALOGUE = FakeCatalogue(
    *CAPABILITIES, capability("test.fail@1", "call"), capability("test.tag@1", "map")
)
FATAL = problem("step-fatal", "broken")
ECHO, FAIL = {"use": "test.echo@1"}, {"use": "test.fail@1"}
GRAPH = {
    "apiVersion": "hivemesh/v1",
    "kind": "Pipeline",
    "metadata": {"name": "graph", "version": 1},
    "parameters": {"mode": {"default": "fast"}, "n": {"type": "integer", "default": 3}},
}


def graph(outputs=None, **steps):
    return {**GRAPH, "steps": steps, "outputs": outputs or {}}


def told(text, **step):
    return {**ECHO, "with": {"text": text}, **step}


def workers(**behaviours):
    found = {
        "test.fail@1": failing(FATAL),
        "test.tag@1": mapper(lambda record: {**record, "tag": True}),
    }
    return worker(behaviours={**found, **behaviours})


def open_core(folder, *given, **settings):
    return core(folder, *(given or (workers(),)), catalogue=CATALOGUE, **settings)


def states(run):
    return {node.name: node.state.value for node in run.nodes}


def reasons(run):
    return {node.name: node.reason for node in run.nodes if node.reason}


def order(platform, run):
    return [key.split(".")[1] for _, key, _ in platform.fleet.puts if key.startswith(run.id)]


DIAMOND = graph(
    a=ECHO,
    b=told("${{ a.value }}b"),
    c=told("${{ a.value }}c"),
    d=told("${{ b.options.text }}${{ c.options.text }}"),
    outputs={"both": "d.options.text"},
)


async def test_a_diamond_runs_its_branches_between_its_ends(tmp_path):
    async with open_core(tmp_path) as platform:
        run = await platform.run(DIAMOND)
        assert run.state == "completed"
        assert await platform.output(run.id, "both") == b'"bc"'
        steps = order(platform, run)
        assert (steps[0], set(steps[1:3]), steps[3]) == ("a", {"b", "c"}, "d")


async def test_different_sub_jobs_run_at_the_same_time(tmp_path):
    hanging = workers()
    hanging.hang_once = {"test.tag@1"}
    document = graph(
        read={"use": "test.read@1"},
        tag={"use": "test.tag@1", "map": "read"},
        tell=ECHO,
        sum={"use": "test.sum@1", "reduce": "read"},
    )
    async with open_core(tmp_path, hanging) as platform:
        run = await platform.start(document)

        async def others_end():
            version = 0
            while True:
                version, view = await platform.execution.runs.changes(run, version, 5.0)
                if {"tell", "sum"} <= {n.name for n in view.nodes if n.state == "completed"}:
                    return view

        assert states(await others_end())["tag"] == "running"


async def test_needs_gives_order_without_data(tmp_path):
    async with open_core(tmp_path) as platform:
        run = await platform.run(
            graph(last={**ECHO, "needs": ["first", "second"]}, first=ECHO, second=ECHO)
        )
        assert run.state == "completed"
        assert order(platform, run)[-1] == "last"


async def test_a_map_that_needs_another_step_begins_behind_it(tmp_path):
    document = graph(
        read={"use": "test.read@1"},
        sum={"use": "test.sum@1", "reduce": "read"},
        late={"use": "test.double@1", "map": "read", "needs": ["sum"]},
        outputs={"records": "late"},
    )
    async with open_core(tmp_path) as platform:
        run = await platform.run(document)
        assert run.state == "completed"
        assert len(await platform.records(run.id)) == 35
        steps = order(platform, run)
        assert steps.index("late") > max(n for n, one in enumerate(steps) if one == "sum")


@pytest.mark.parametrize(("mode", "fast", "slow"), [("fast", "completed", "skipped"), ("x", "skipped", "completed")])  # fmt: skip
async def test_a_condition_chooses_a_branch_and_the_run_completes(tmp_path, mode, fast, slow):
    document = graph(
        fast={**ECHO, "when": "${{ parameters.mode == 'fast' }}"},
        slow={**ECHO, "when": "${{ not (parameters.mode == 'fast') }}"},
        behind={**ECHO, "needs": ["slow"]},
        join={**ECHO, "needs_any": ["fast", "slow"]},
    )
    async with open_core(tmp_path) as platform:
        run = await platform.run(document, mode=mode)
        assert run.state == "completed"
        assert states(run) == {"fast": fast, "slow": slow, "behind": slow, "join": "completed"}
        assert "condition is false: " in " ".join(reasons(run).values())


async def test_a_condition_compares_what_a_step_has_answered(tmp_path):
    document = graph(
        read={"use": "test.read@1"},
        sum={"use": "test.sum@1", "reduce": "read"},
        many={**ECHO, "when": "${{ sum.count > 10 and sum.sum == 595 }}"},
        few={**ECHO, "when": "${{ sum.count <= 10 }}"},
    )
    async with open_core(tmp_path) as platform:
        run = await platform.run(document)
        assert (states(run)["many"], states(run)["few"]) == ("completed", "skipped")
        events = await platform.execution.runs.events(run.id, 0, 100, 0)
        decided = {one.node: one.data["condition"] for one in events if "decided" in one.type}
        assert decided["few"] == "sum.count <= 10 is false"


async def test_a_condition_of_a_map_leaves_its_records_out(tmp_path):
    document = graph(
        read={"use": "test.read@1"},
        tag={"use": "test.tag@1", "map": "read", "when": "${{ parameters.n > 3 }}"},
        sum={"use": "test.sum@1", "reduce": "tag"},
        count={"use": "test.sum@1", "reduce": "read"},
    )
    async with open_core(tmp_path) as platform:
        run = await platform.run(document)
        assert run.state == "completed"
        assert states(run) == {
            "read": "completed", "tag": "skipped", "sum": "skipped", "count": "completed",
        }  # fmt: skip


async def test_a_condition_that_cannot_be_decided_fails_its_step_with_words(tmp_path):
    document = graph(a=ECHO, b={**ECHO, "when": "${{ a.nothing > 3 }}"}, c=ECHO)
    async with open_core(tmp_path) as platform:
        run = await platform.run(document)
        assert run.state == "failed"
        assert states(run) == {"a": "completed", "b": "failed", "c": "completed"}
        assert "ask exists(a.nothing) before" in run.problem["detail"]


async def test_a_healthy_branch_goes_on_beside_a_failed_one(tmp_path):
    document = graph(
        bad=FAIL,
        behind={**ECHO, "needs": ["bad"]},
        far={**ECHO, "needs": ["behind"]},
        **PIPELINE["steps"] | {"read": {"use": "test.read@1"}},
        outputs={"records": "double", "total": "sum.sum"},
    )
    async with open_core(tmp_path) as platform:
        run = await platform.run(document)
        assert (run.state, run.problem["detail"]) == ("failed", "broken")
        assert states(run) == {
            "bad": "failed", "behind": "blocked", "far": "blocked",
            "read": "completed", "double": "completed", "sum": "completed",
        }  # fmt: skip
        assert reasons(run) == {"behind": "bad failed", "far": "behind was blocked"}
        assert len(await platform.records(run.id)) == 35
        assert run.outputs["records"]["state"] == "partial"


@pytest.mark.parametrize("rule", ["skip", "dead_letter"])
async def test_a_failure_that_is_tolerated_skips_what_needs_its_value(tmp_path, rule):
    document = graph(
        bad={**FAIL, "on_error": rule},
        value=told("${{ bad.x }}"),
        order={**ECHO, "needs": ["bad"]},
    )
    async with open_core(tmp_path) as platform:
        run = await platform.run(document)
        assert run.state == "partial"
        assert states(run) == {"bad": "failed", "value": "skipped", "order": "completed"}


async def test_a_step_may_run_because_another_has_failed(tmp_path):
    document = graph(
        bad=FAIL,
        mend={**ECHO, "when": "${{ failed(bad) }}"},
        rest={**ECHO, "when": "${{ succeeded(bad) }}"},
    )
    async with open_core(tmp_path) as platform:
        run = await platform.run(document)
        assert run.state == "failed"
        assert states(run) == {"bad": "failed", "mend": "completed", "rest": "skipped"}


async def test_a_source_that_nobody_reads_any_more_is_stopped(tmp_path):
    fleet = FakeWorkerFleet(worker(records=5000, behaviours={"test.tag@1": failing(problem("options-invalid", "no"))}), page_events=1)  # fmt: skip
    document = graph(read={"use": "test.read@1"}, tag={"use": "test.tag@1", "map": "read"})
    async with open_core(tmp_path, fleet) as platform:
        run = await platform.run(document)
        assert run.state == "failed"
        assert states(run) == {"read": "skipped", "tag": "failed"}
        assert reasons(run)["read"] == "nothing needs it any more"


async def test_with_dead_letters_a_source_gives_what_it_had(tmp_path):
    def breaking(request, inputs):
        for frame in source(numbers(100), batch=10)(request, inputs):
            if b'"n": 45' in frame.body:
                yield Frame(ProblemEvent(no=frame.event.no, problem=FATAL))
                return
            yield frame

    fleet = FakeWorkerFleet(workers(**{"test.read@1": breaking}), page_events=1)
    document = graph(
        read={"use": "test.read@1", "on_error": "dead_letter"},
        sum={"use": "test.sum@1", "reduce": "read"},
        outputs={"total": "sum.count"},
    )
    async with open_core(tmp_path, fleet) as platform:
        run = await platform.run(document)
        assert (run.state, states(run)["sum"]) == ("partial", "completed")
        assert await platform.output(run.id, "total") == b"40"


# An end of the platform in the middle, and another one on the same folder.

RESTARTS = {
    "a diamond": (DIAMOND, "test.echo@1", "completed"),
    "a condition": (
        graph(a=ECHO, b={**ECHO, "when": "${{ exists(a.value) }}"}, c={**ECHO, "when": "${{ not exists(a.value) }}"}),
        "test.echo@1",
        "completed",
    ),
    "a failed branch": (graph(a=FAIL, b={**ECHO, "needs": ["a"]}, c=ECHO), "test.echo@1", "failed"),
}  # fmt: skip


@pytest.mark.parametrize("name", RESTARTS)
@pytest.mark.parametrize("after", [0, 1])
async def test_a_graph_is_gone_on_with_after_a_restart(tmp_path, name, after):
    document, _, state = RESTARTS[name]
    ran = []

    def count(value, options):
        ran.append(options)
        return {"value": "v", "options": options}

    first = FakeWorkerFleet(workers(**{"test.echo@1": caller(count)}))

    def before(kind, _instance, key):
        if kind == "put" and len(first.puts) >= after:
            first.workers["w1"].hang_once.add("test.echo@1")

    first.before = before
    async with open_core(tmp_path, first) as platform:
        run = await platform.start(document)
        await platform.until(lambda: len(first.puts) > after)
    async with open_core(tmp_path, workers(**{"test.echo@1": caller(count)})) as platform:
        view = await platform.end(run)
        assert view.state == state
        completed = sum(one == "completed" for one in states(view).values())
        assert len(ran) == completed
