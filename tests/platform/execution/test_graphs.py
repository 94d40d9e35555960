"""Graphs over fake workers: order, conditions, failures beside healthy branches, restarts."""

import json

import pytest
from access_support import ADMIN
from execution_support import CAPABILITIES, FAST, PIPELINE, TESTER, core, numbers, worker
from fake_workers import (
    FakeCatalogue,
    FakeWorkerFleet,
    caller,
    capability,
    failing,
    mapper,
    source,
)
from graph_support import (
    ECHO,
    FAIL,
    FATAL,
    graph,
    open_core,
    order,
    reasons,
    states,
    told,
    workers,
)
from hivemesh_platform.execution.behalf import Behalf
from hivemesh_platform.execution.plans import references
from hivemesh_platform.execution.plans.references import OptionsTooLargeError
from hivemesh_platform.execution.runs.service import NothingMissingError
from hivemesh_platform.execution.runs.subjects import Filters
from hivemesh_sdk.contracts.api import JobRequest, RunRequest
from hivemesh_sdk.contracts.pages import Frame
from hivemesh_sdk.contracts.problems import problem
from hivemesh_sdk.contracts.steps import ProblemEvent
from hivemesh_sdk.contracts.tickets import TICKET_TYPE
from hivemesh_sdk.errors import HivemeshError
from hivemesh_sdk.trust import jws

pytestmark = pytest.mark.usefixtures("each_database")

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


async def test_failed_is_asked_of_the_last_step_alone_and_not_of_what_was_skipped(tmp_path):
    document = graph(
        bad=FAIL,
        last={**ECHO, "needs": ["bad"]},
        tell={**ECHO, "when": "${{ failed(last) }}"},
        out={**ECHO, "when": "${{ parameters.mode == 'none' }}"},
        left={**ECHO, "needs": ["out"]},
        no={**ECHO, "when": "${{ failed(out) or failed(left) }}"},
    )
    async with open_core(tmp_path) as platform:
        found = states(await platform.run(document))
        assert (found["last"], found["tell"]) == ("blocked", "completed")
        assert (found["left"], found["no"]) == ("skipped", "skipped")


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


async def test_options_that_references_make_too_large_are_refused_at_once(tmp_path):
    document = graph(a=told("${{ parameters.mode }}" * 100))
    async with open_core(tmp_path) as platform:
        with pytest.raises(OptionsTooLargeError) as refused:
            await platform.start(document, mode="x" * 10_000)
        assert refused.value.errors[0].pointer == "/steps/a/with"
        listed = await platform.execution.runs.page("", 10, ADMIN)
        assert listed == []


async def test_a_step_fails_whose_options_an_answer_makes_too_large(tmp_path):
    long = caller(lambda _value, _options: {"value": "x" * 100_000})
    document = graph(
        a=ECHO, b={**FAIL, "with": {"texts": ["${{ a.value }}"] * 100}, "on_error": "skip"}
    )
    async with open_core(tmp_path, workers(**{"test.echo@1": long})) as platform:
        run = await platform.run(document)
        failed = next(node for node in run.nodes if node.name == "b")
        assert failed.state == "failed"
        assert failed.problem["type"].endswith("options-invalid")
        assert failed.problem["errors"][0]["pointer"] == "/steps/b/with"


async def test_the_options_of_a_runs_steps_have_a_limit_together(tmp_path, monkeypatch):
    monkeypatch.setattr(references, "MAX_RUN_OPTIONS_BYTES", 250_000)
    long = caller(lambda _value, _options: {"value": "x" * 100_000})
    taking = {f"b{number}": told("${{ a.value }}") for number in range(3)}
    async with open_core(tmp_path, workers(**{"test.echo@1": long})) as platform:
        run = await platform.run(graph(a=ECHO, **taking))
        ends = [states(run)[name] for name in taking]
        assert sorted(ends) == ["completed", "completed", "failed"]


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
        assert completed <= len(ran) <= completed + 2  # what ran and was not recorded runs again


# A run is set going again.


async def again(platform, run, first=""):
    await platform.execution.again.retry(run, first, TESTER)
    return await platform.end(run)


async def test_a_failed_run_is_retried_and_keeps_what_is_recorded(tmp_path):
    broken = workers()
    document = graph(
        read={"use": "test.read@1"},
        sum={"use": "test.sum@1", "reduce": "read"},
        bad={**FAIL, "with": {"n": "${{ sum.sum }}"}},
        behind=told("${{ bad.options.n }}"),
        outputs={"n": "behind.options.text"},
    )
    async with open_core(tmp_path, broken) as platform:
        run = await platform.run(document)
        assert states(run)["behind"] == "blocked"
        before = len(platform.fleet.puts)
        broken.behaviours["test.fail@1"] = caller(lambda _value, options: {"options": options})
        view = await again(platform, run.id)
        assert view.state == "completed"
        assert [key.split(".")[1] for _, key, _ in platform.fleet.puts[before:]] == [
            "bad", "behind",
        ]  # fmt: skip
        assert await platform.output(run.id, "n") == b"595"


async def test_a_failed_map_is_retried_and_every_record_is_there_once(tmp_path):
    broken = workers(**{"test.tag@1": failing(FATAL)})
    document = graph(
        read={"use": "test.read@1"},
        tag={"use": "test.tag@1", "map": "read"},
        double={"use": "test.double@1", "map": "tag"},
        sum={"use": "test.sum@1", "reduce": "double"},
        outputs={"records": "double", "total": "sum.sum"},
    )
    async with open_core(tmp_path, broken) as platform:
        run = await platform.run(document)
        assert (run.state, states(run)["sum"]) == ("failed", "blocked")
        broken.behaviours["test.tag@1"] = mapper(lambda record: record)
        view = await again(platform, run.id)
        assert (view.state, set(states(view).values())) == ("completed", {"completed"})
        assert [one["n"] for one in await platform.records(run.id)] == [2 * n for n in range(35)]
        assert await platform.output(run.id, "total") == b"1190"
        assert view.outputs["records"]["state"] == "complete"


async def test_a_run_is_done_afresh_from_a_step_on(tmp_path):
    async with open_core(tmp_path) as platform:
        run = await platform.run(PIPELINE)
        before = len(platform.fleet.puts)
        view = await again(platform, run.id, "double")
        assert view.state == "completed"
        later = platform.fleet.puts[before:]
        assert {key.split(".")[1] for _, key, _ in later} == {"double", "sum"}
        assert min(attempt for _, _, attempt in later) == 2
        assert len(await platform.records(run.id)) == 35
        assert await platform.output(run.id, "total") == b"1190"


async def test_a_cancelled_run_is_retried(tmp_path):
    slow = worker(records=500, slots=1)
    async with open_core(tmp_path, FakeWorkerFleet(slow, page_events=1)) as platform:
        run = await platform.start()
        await platform.until(lambda: platform.execution.counters.batches_recorded > 3)
        await platform.execution.runs.cancel(run)
        view = await again(platform, run)
        assert view.state == "completed"
        assert len(await platform.records(run)) == 500


async def test_a_run_that_has_not_failed_is_not_retried(tmp_path):
    async with open_core(tmp_path) as platform:
        run = await platform.run(PIPELINE)
        with pytest.raises(HivemeshError) as refused:
            await again(platform, run.id)
        assert refused.value.slug == "nothing-to-retry"


async def test_a_retry_goes_on_after_a_restart(tmp_path):
    document = graph(bad=FAIL, behind={**ECHO, "needs": ["bad"]})
    mended = {"test.fail@1": caller(lambda _value, _options: 1)}
    async with open_core(tmp_path) as platform:
        run = await platform.run(document)
        platform.fleet.workers["w1"].dead = True
        await platform.execution.again.retry(run.id, "", TESTER)
    async with open_core(tmp_path, workers(**mended)) as platform:
        assert (await platform.end(run.id)).state == "completed"


async def test_a_blocked_branch_is_set_free_while_another_still_runs(tmp_path):
    broken = workers()
    broken.hang_once = {"test.echo@1"}
    document = graph(bad=FAIL, behind={**ECHO, "needs": ["bad"]}, long=ECHO)
    async with open_core(tmp_path, broken) as platform:
        run = await platform.start(document)
        view = await platform.execution.runs.get(run)
        while states(view)["behind"] != "blocked" or states(view)["bad"] != "failed":
            _, view = await platform.execution.runs.changes(run, 1, 0.1)
        broken.behaviours["test.fail@1"] = caller(lambda _value, _options: 1)
        await platform.execution.again.retry(run, "", TESTER)
        while states(view)["behind"] != "completed":
            _, view = await platform.execution.runs.changes(run, 1, 0.1)
        assert (view.state, states(view)["long"]) == ("running", "running")


# Optional steps.

SOON = FAST.model_copy(update={"optional_wait_s": 0.05})
TAGGED = {
    "tag": capability(
        "test.tag@1",
        "map",
        input={"type": "object", "properties": {"n": {}}},
        output={"type": "object", "properties": {"n": {}, "tag": {}}},
    )
}
OPTIONAL = graph(
    read={"use": "test.read@1"},
    tag={"use": "test.tag@1", "map": "read", "optional": True},
    sum={"use": "test.sum@1", "reduce": "tag"},
    outputs={"records": "tag", "total": "sum.sum"},
)


def without_tags():
    found = worker()
    found.behaviours.pop("test.fail@1", None)
    return found


def optional_core(folder, *given):
    catalogue = FakeCatalogue(*CAPABILITIES, TAGGED["tag"], capability("test.fail@1", "call"))
    return core(folder, *given, catalogue=catalogue, settings=SOON)


async def test_a_run_goes_on_without_an_optional_step_that_nobody_serves(tmp_path):
    async with optional_core(tmp_path, without_tags()) as platform:
        run = await platform.run(OPTIONAL)
        assert (run.state, run.missing) == ("partial", ["tag"])
        assert await platform.records(run.id) == numbers(35)
        assert await platform.output(run.id, "total") == b"595"
        assert run.outputs["records"]["state"] == "partial"
        version = await platform.execution.datasets.get(run.outputs["records"]["name"])
        assert version.provenance["missing"] == ["tag"]


async def test_what_an_optional_step_refuses_goes_on_without_it(tmp_path):
    def partly(request, inputs):
        wrong = b'"n": 12' in inputs[0]
        yield from (failing(FATAL) if wrong else mapper(lambda one: {**one, "tag": 1}))(
            request, inputs
        )

    async with optional_core(tmp_path, workers(**{"test.tag@1": partly})) as platform:
        run = await platform.run(OPTIONAL)
        assert (run.state, run.missing) == ("partial", ["tag"])
        records = await platform.records(run.id)
        assert [one["n"] for one in records] == list(range(35))
        assert [one["n"] for one in records if "tag" not in one] == list(range(10, 20))


async def test_what_needs_the_answer_of_an_optional_step_is_missing_too(tmp_path):
    document = graph(a={**FAIL, "optional": True}, b=told("${{ a.x }}"), c={**ECHO, "needs": ["a"]})
    async with open_core(tmp_path) as platform:
        run = await platform.run(document)
        assert (run.state, run.missing) == ("partial", ["a", "b"])
        assert states(run) == {"a": "skipped", "b": "skipped", "c": "completed"}


# Jobs, and lists of them.


async def job(platform, capability="test.echo@1", wait_s=10):
    request = JobRequest(capability=capability, wait_s=wait_s)
    return await platform.execution.jobs.start(request, TESTER)


async def test_a_failed_job_is_retried_under_its_own_name(tmp_path):
    broken = workers()
    async with open_core(tmp_path, broken) as platform:
        failed = await job(platform, "test.fail@1")
        assert failed.state == "failed"
        broken.behaviours["test.fail@1"] = caller(lambda _value, _options: 7)
        await platform.execution.again.retry_job(failed.id, TESTER)
        view = await platform.end(failed.id)
        assert (view.state, view.outputs) == ("completed", {"result": 7})
        assert [attempt for _, _, attempt in platform.fleet.puts] == [1, 2]
        with pytest.raises(HivemeshError) as refused:
            await platform.execution.again.retry_job(failed.id, TESTER)
        assert refused.value.slug == "nothing-to-retry"


async def test_a_step_that_is_done_afresh_is_not_waited_for_where_it_still_runs(tmp_path):
    stuck = workers()
    stuck.slots, stuck.hang_once = dict.fromkeys(stuck.behaviours, 1), {"test.echo@1"}
    async with open_core(tmp_path, stuck) as platform:
        run = await platform.start(graph(a=ECHO))
        await platform.until(lambda: platform.fleet.puts)
        await platform.execution.again.retry(run, "a", TESTER)
        assert (await platform.end(run, timeout_s=10)).state == "completed"
        first, second = await platform.execution.history.attempts(run, "", -1, 0, 10)
        assert (first.outcome in {"cancelled", "interrupted"}, second.outcome) == (
            True,
            "completed",
        )


async def test_a_retry_lends_no_right_that_who_asks_for_it_has_not(tmp_path):
    broken = workers()
    viewer = Behalf(sub="viewer", roles=("viewer",), grants=("read:run",))
    async with open_core(tmp_path, broken) as platform:
        failed = await job(platform, "test.fail@1")
        run = await platform.run(graph(bad=FAIL))
        await platform.execution.again.retry_job(failed.id, viewer)
        await platform.execution.again.retry(run.id, "", viewer)
        await platform.end(failed.id)
        await platform.end(run.id)
        last = [json.loads(jws.unverified(one, TICKET_TYPE)) for one in platform.fleet.tickets[-2:]]
        assert [(one["sub"], one["roles"]) for one in last] == [("tester", ["viewer"])] * 2


async def listed(platform, **filters):
    found = await platform.execution.runs.page("", 20, ADMIN, Filters(**filters))
    return [one.id for one in found]


async def test_runs_and_jobs_are_found_by_what_they_are(tmp_path):
    async with open_core(tmp_path) as platform:
        good, bad = await job(platform), await job(platform, "test.fail@1")
        request = RunRequest(document=graph(bad=FAIL), labels={"team": "a"})
        run = await platform.end((await platform.execution.runs.start(request, TESTER)).id)
        assert await listed(platform) == [run.id, bad.id, good.id]
        assert await listed(platform, state="failed") == [run.id, bad.id]
        assert await listed(platform, kind="capability") == [bad.id, good.id]
        assert await listed(platform, kind="pipeline", name="graph") == [run.id]
        assert await listed(platform, name="test.echo@1") == [good.id]
        assert await listed(platform, label="team", label_value="a") == [run.id]
        assert await listed(platform, label="team", label_value="b") == []
        assert await listed(platform, submitter="tester", state="completed") == [good.id]
        assert await listed(platform, submitter="other") == []
        assert await listed(platform, since=2**50) == []


async def test_a_job_that_cannot_be_right_is_refused_before_it_is_accepted(tmp_path):
    strict = capability(
        "test.echo@1",
        "call",
        input={"type": "object", "required": ["n"]},
        options={"type": "object", "properties": {"a": {}}, "additionalProperties": False},
    )
    async with core(tmp_path, workers(), catalogue=FakeCatalogue(strict)) as platform:
        for request, pointer in (
            (JobRequest(capability="test.echo@1", input={}), "/input"),
            (JobRequest(capability="test.echo@1", input={"n": 1}, options={"b": 1}), "/options/b"),
        ):
            with pytest.raises(HivemeshError) as refused:
                await platform.execution.jobs.start(request, TESTER)
            assert refused.value.errors[0].pointer == pointer
        assert await listed(platform) == []


async def test_what_is_missing_is_given_later_into_a_new_version(tmp_path):
    async with optional_core(tmp_path, without_tags()) as platform:
        run = await platform.run(OPTIONAL)
        platform.fleet.workers["w2"] = workers()
        platform.fleet.workers["w2"].instance = "w2"
        platform.placement.changed()
        before = len(platform.fleet.puts)
        view = await platform.execution.runs.backfill(run.id, TESTER)
        view = await platform.end(view.id)
        assert (view.state, view.missing, view.backfill_of) == ("completed", [], run.id)
        later = {key.split(".")[1] for _, key, _ in platform.fleet.puts[before:]}
        assert later == {"tag", "sum"}
        assert [one["tag"] for one in await platform.records(view.id)] == [True] * 35
        assert view.outputs["records"]["version"] == 2
        version = await platform.execution.datasets.get(view.outputs["records"]["name"])
        assert "missing" not in version.provenance


async def test_what_was_retried_meanwhile_is_not_given_a_second_time(tmp_path):
    async with optional_core(tmp_path, without_tags()) as platform:
        run = await platform.run(OPTIONAL)
        runs = platform.execution.runs
        folders = runs.folders

        async def retried_meanwhile(given):
            await platform.database.write(
                lambda tx: tx.execute(
                    "UPDATE run SET missing = '[]', ended_at = NULL WHERE id = ?", (run.id,)
                )
            )
            return await folders(given)

        runs.folders = retried_meanwhile
        with pytest.raises(NothingMissingError):
            await runs.backfill(run.id, TESTER)
        assert len(await listed(platform)) == 1
