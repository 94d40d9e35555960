"""Whole pipelines over fake workers: the order of things, and that nothing is lost or doubled."""

import asyncio
import json

import pytest
from access_support import ADMIN
from execution_support import (
    CAPABILITIES,
    FAST,
    PIPELINE,
    TESTER,
    DirectEngine,
    core,
    double,
    numbers,
    worker,
)
from fake_workers import (
    FakeCatalogue,
    FakeWorkerFleet,
    capability,
    failing,
    mapper,
    ndjson,
    parse,
    records_frame,
    source,
)
from hivemesh_platform.execution.steps import claims, dispatch, exchange
from hivemesh_sdk.contracts.api import JobRequest, LimitRequest
from hivemesh_sdk.contracts.pages import Frame
from hivemesh_sdk.contracts.problems import problem, slug_of
from hivemesh_sdk.contracts.steps import ProblemEvent, ResultEvent
from hivemesh_sdk.errors import HivemeshError

pytestmark = pytest.mark.usefixtures("each_database")

DOUBLED = [2 * n for n in range(35)]


async def values(platform, run):
    return [one["n"] for one in await platform.records(run.id)]


async def test_a_pipeline_reads_maps_and_reduces_every_record_once(tmp_path):
    async with core(tmp_path, worker(records=35)) as platform:
        run = await platform.run()
        assert run.state == "completed"
        assert await values(platform, run) == DOUBLED
        assert await platform.output(run.id, "total") == str(sum(DOUBLED)).encode()


async def test_the_view_counts_batches_and_records(tmp_path):
    async with core(tmp_path, worker(records=35)) as platform:
        run = await platform.run()
        seen = {n.name: (n.batches_done, n.batches_known, n.records_out) for n in run.nodes}
        assert seen == {"read": (4, 4, 35), "double": (4, 4, 35), "sum": (4, 4, 1)}


async def test_the_log_of_a_run_tells_which_dataset_it_made_and_how_large(tmp_path):
    async with core(tmp_path, worker(records=35)) as platform:
        run = await platform.run()
        events = await platform.execution.runs.events(run.id, 0, 100, 0)
        [closed] = [one for one in events if one.type == "dataset_closed"]
        made = {"dataset": "sums.records", "version": 1, "state": "complete", "records": 35}
        assert closed.data == {**made, "bytes": len(ndjson({"n": n} for n in DOUBLED))}


async def test_the_records_that_a_workers_steps_bring_are_counted_with_their_bytes(tmp_path):
    async with core(tmp_path, worker(records=35)) as platform:
        await platform.run()
        counters = platform.execution.counters
        assert counters.records_by_worker == {"fake": 35 + 35}
        read, doubled = ndjson(numbers(35)), ndjson(map(double, numbers(35)))
        assert counters.bytes_by_worker == {"fake": len(read) + len(doubled)}


async def test_many_batches_grow_a_reduce_tree(tmp_path):
    async with core(tmp_path, worker(records=650, batch=2)) as platform:
        run = await platform.run()
        assert await platform.output(run.id, "total") == str(2 * sum(range(650))).encode()
        kinds = [key.rpartition(".")[2] for _, key, _ in platform.fleet.puts if ".sum." in key]
        merges = [seq for seq in kinds if int(seq) > 1_000_000_000]
        assert len(merges) == 3  # 325 batches: 21 adds, 2 merges of adds, 1 merge of these
        assert len(kinds) == 21 + 3 + 1


async def test_a_source_without_records_gives_an_empty_result(tmp_path):
    async with core(tmp_path, worker(records=0)) as platform:
        run = await platform.run()
        assert run.state == "completed"
        assert await platform.records(run.id) == []
        assert await platform.output(run.id, "total") == b"0"


async def test_rejected_records_make_the_run_partial_and_are_listed(tmp_path):
    async with core(tmp_path, worker(records=20, bad={3, 14})) as platform:
        run = await platform.run()
        assert (run.state, run.rejected) == ("partial", 2)
        listed = await platform.execution.runs.rejected(run.id, 0, 10)
        assert [(one.node, one.position) for one in listed] == [("read", 3), ("read", 14)]
        assert len(await platform.records(run.id)) == 18


async def test_a_batch_whose_records_are_all_refused_still_finishes(tmp_path):
    refusing = mapper(lambda record: None if record["n"] < 10 else record)
    async with core(tmp_path, worker(behaviours={"test.double@1": refusing})) as platform:
        run = await platform.run()
        assert (run.state, run.rejected) == ("partial", 10)
        assert await values(platform, run) == list(range(10, 35))
        assert await platform.output(run.id, "total") == str(sum(range(10, 35))).encode()


async def test_an_answer_in_several_parts_is_one_batch(tmp_path):
    def parted(_request, inputs):
        records = parse(b"".join(inputs))
        for no, record in enumerate(records, 1):
            yield records_frame(no, [double(record)])
        yield Frame(ResultEvent(no=len(records) + 1))

    async with core(tmp_path, worker(behaviours={"test.double@1": parted})) as platform:
        run = await platform.run()
        assert await values(platform, run) == DOUBLED
        assert await platform.output(run.id, "total") == str(sum(DOUBLED)).encode()


async def test_a_step_that_waits_for_a_value_is_shown_as_waiting(tmp_path):
    steps = {"tell": {"use": "test.echo@1", "with": {"text": "${{ sum.sum }}"}}}
    document = {**PIPELINE, "steps": {**PIPELINE["steps"], **steps}}
    one = worker(records=50)
    double = one.behaviours.pop("test.double@1")  # until the state was looked at
    async with core(tmp_path, FakeWorkerFleet(one, page_events=1)) as platform:
        run = await platform.start(document)
        await platform.until(lambda: platform.execution.counters.batches_recorded)
        view = await platform.execution.runs.get(run)
        assert {n.name: n.state for n in view.nodes}["tell"] == "waiting"
        one.behaviours["test.double@1"] = double
        platform.placement.changed()
        assert (await platform.end(run)).state == "completed"


async def test_the_map_starts_while_the_source_is_still_reading(tmp_path):
    async with core(tmp_path, worker(records=200)) as platform:
        order = []
        platform.fleet.before = lambda kind, _instance, key: order.append((kind, key))
        await platform.run()
        mapped = next(i for i, (kind, key) in enumerate(order) if ".double." in key)
        read = max(i for i, (kind, key) in enumerate(order) if kind == "get" and ".read." in key)
        assert mapped < read


async def test_a_source_waits_for_the_steps_behind_it(tmp_path):
    settings = FAST.model_copy(update={"in_flight_batches": 3})
    fleet = FakeWorkerFleet(worker(records=400, slots=1), page_events=2)
    async with core(tmp_path, fleet, settings=settings) as platform:
        open_rows = []

        async def count():
            rows = await platform.database.read(
                lambda tx: tx.one(
                    "SELECT count(*) AS n FROM work WHERE node = 'double' AND ended_at IS NULL"
                )
            )
            open_rows.append(rows["n"])

        run = await platform.start()
        ended = asyncio.create_task(platform.end(run))
        while not ended.done():
            await count()
        assert (await ended).state == "completed"
        assert max(open_rows) <= 3 + 1


@pytest.mark.parametrize("target", ["all", "key:mailbox"])
async def test_a_source_makes_room_for_the_steps_that_its_own_limit_holds_back(
    tmp_path, monkeypatch, target
):
    for module, name in (
        (exchange, "ASIDE_AFTER_S"),
        (exchange, "ROOM_POLL_S"),
        (dispatch, "ASIDE_S"),
    ):
        monkeypatch.setattr(module, name, 0.01)
    settings = FAST.model_copy(update={"in_flight_batches": 1})
    steps = {
        name: {**step, "concurrency_key": "mailbox"} for name, step in PIPELINE["steps"].items()
    }
    async with core(tmp_path, worker(slots=2), settings=settings) as platform:
        limit = LimitRequest(running=1)
        await platform.execution.limits.set(target, limit, "default", "tester")
        run = await platform.start({**PIPELINE, "steps": steps})
        assert (await platform.end(run, timeout_s=30)).state == "completed"
        assert [one["n"] for one in await platform.records(run)] == [2 * n for n in range(35)]


async def test_sources_leave_places_for_the_steps_behind_them(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "MAX_STEPS", 3)
    monkeypatch.setattr(claims, "MAX_SOURCES", 2)
    settings = FAST.model_copy(update={"in_flight_batches": 1})
    async with core(tmp_path, worker(slots=4), settings=settings) as platform:
        runs = [await platform.start() for _ in range(4)]
        for run in runs:
            assert (await platform.end(run, timeout_s=10)).state == "completed"


async def test_sources_that_are_resumed_leave_places_for_the_steps_behind_them(
    tmp_path, monkeypatch
):
    settings = FAST.model_copy(update={"in_flight_batches": 1})
    one = worker(slots=4)
    fleet = FakeWorkerFleet(one)
    one.slots["test.double@1"] = 0
    async with core(tmp_path, fleet, settings=settings) as platform:
        runs = [await platform.start() for _ in range(4)]
        await platform.until(lambda: platform.execution.counters.batches_recorded == len(runs))
    one.slots["test.double@1"] = 4
    monkeypatch.setattr(claims, "MAX_STEPS", 3)
    monkeypatch.setattr(claims, "MAX_SOURCES", 2)
    async with core(tmp_path, fleet, settings=settings) as platform:
        for run in runs:
            assert (await platform.end(run, timeout_s=10)).state == "completed"


async def test_sources_of_a_run_do_not_wait_for_each_other(tmp_path):
    settings = FAST.model_copy(update={"in_flight_batches": 1})
    reads = {name: {"use": "test.read@1"} for name in ("one", "two", "three")}
    steps = {**reads, "double": {"use": "test.double@1", "map": "two"}}
    document = {**PIPELINE, "steps": steps, "outputs": {"records": "double"}}
    async with core(tmp_path, worker(slots=len(reads)), settings=settings) as platform:
        run = await platform.start(document)
        assert (await platform.end(run, timeout_s=10)).state == "completed"


async def test_a_retryable_problem_is_repeated_and_costs_nothing_else(tmp_path):
    attempts = []

    def flaky(request, inputs):
        attempts.append(request.attempt)
        behaviour = mapper(double)
        if len(attempts) <= 2:
            behaviour = failing(problem("step-failed", "not yet", retryable=True))
        return behaviour(request, inputs)

    async with core(tmp_path, worker(behaviours={"test.double@1": flaky})) as platform:
        run = await platform.run()
        assert run.state == "completed"
        assert await values(platform, run) == DOUBLED


async def test_after_the_last_retry_the_batch_is_left_out_and_the_others_go_on(tmp_path):
    def poisoned(request, inputs):
        broken = problem("step-failed", "poison", retryable=True)
        bad = b'"n": 12' in inputs[0]
        return (failing(broken) if bad else mapper(double))(request, inputs)

    async with core(tmp_path, worker(behaviours={"test.double@1": poisoned})) as platform:
        run = await platform.run()
        assert run.state == "partial"
        assert await values(platform, run) == [n for n in DOUBLED if not 20 <= n < 40]
        tries = [attempt for _, key, attempt in platform.fleet.puts if key.endswith(".double.2")]
        assert tries == [1, 2, 3, 4]


async def test_what_a_source_gave_before_it_failed_is_recorded(tmp_path):
    def breaking(request, inputs):
        frames = source(numbers(100), batch=10)(request, inputs)
        for frame in frames:
            if b'"n": 45' in frame.body:
                broken = problem("step-failed", "broken disk", retryable=True)
                yield Frame(ProblemEvent(no=frame.event.no, problem=broken))
                return
            yield frame

    fleet = FakeWorkerFleet(worker(behaviours={"test.read@1": breaking}), page_events=20)
    async with core(tmp_path, fleet) as platform:
        run = await platform.run()
        assert (run.state, run.problem["detail"]) == ("failed", "broken disk")
        assert run.nodes[0].batches_done == 4
        tries = [attempt for _, key, attempt in fleet.puts if ".read." in key]
        assert tries == [1, 2, 3, 4]


async def test_an_error_of_our_own_is_repeated_and_leaves_no_row_held(tmp_path):
    fleet = FakeWorkerFleet(worker())
    broken = iter([True, True])

    def before(kind, _instance, key):
        if kind == "put" and ".double." in key and next(broken, False):
            message = "a mistake of ours"
            raise KeyError(message)

    fleet.before = before
    async with core(tmp_path, fleet) as platform:
        run = await platform.run()
        assert run.state == "completed"
        assert await values(platform, run) == DOUBLED


async def test_a_configuration_problem_fails_the_run_at_once(tmp_path):
    wrong = failing(problem("options-invalid", "no such type"))
    async with core(tmp_path, worker(behaviours={"test.double@1": wrong})) as platform:
        run = await platform.run()
        assert run.state == "failed"
        assert run.problem["detail"] == "no such type"
        assert {node.name: node.state for node in run.nodes}["sum"] == "blocked"


async def test_a_full_worker_is_asked_again_without_a_retry(tmp_path):
    async with core(tmp_path, worker()) as platform:
        busy = problem("overloaded", retry_after_s=0.01)
        platform.fleet.refuse = [busy] * 6
        run = await platform.run()
        assert run.state == "completed"
        assert await values(platform, run) == DOUBLED


async def test_a_run_waits_with_a_reason_while_nobody_serves_its_capability(tmp_path):
    async with core(tmp_path, worker()) as platform:
        platform.fleet.workers["w1"].dead = True
        run = await platform.start()
        version, view = 0, await platform.execution.runs.get(run)
        async with asyncio.timeout(60):
            while view.state != "waiting":
                version, view = await platform.execution.runs.changes(run, version, 2.0)
        assert view.reason == "no live instance serves test.read@1"
        platform.fleet.workers["w1"].dead = False
        platform.placement.changed()
        assert (await platform.end(run)).state == "completed"


async def test_a_cancelled_run_ends_its_steps_at_the_worker(tmp_path):
    async with core(tmp_path, worker(records=5000, slots=1)) as platform:
        run = await platform.start()
        version = 0
        while not platform.fleet.puts:
            version, _ = await platform.execution.runs.changes(run, version, 1.0)
        view = await platform.execution.runs.cancel(run)
        assert view.state == "cancelled"
        await platform.until(lambda: not len(platform.execution.held))
        with pytest.raises(HivemeshError) as refused:
            await platform.execution.runs.cancel(run)
        assert refused.value.slug == "run-ended"
        await platform.until(lambda: ("w1", f"{run}.read.0") in platform.fleet.deleted)


async def test_outputs_of_one_step_are_options_of_another(tmp_path):
    document = {
        **PIPELINE,
        "steps": {
            **PIPELINE["steps"],
            "tell": {
                "use": "test.echo@1",
                "with": {"text": "total ${{ sum.sum }}", "raw": "${{ sum }}"},
            },
        },
        "outputs": {"told": "tell.options.text", "raw": "tell.options.raw.sum"},
    }
    async with core(tmp_path, worker()) as platform:
        run = await platform.run(document)
        assert json.loads(await platform.output(run.id, "told")) == f"total {sum(DOUBLED)}"
        assert json.loads(await platform.output(run.id, "raw")) == sum(DOUBLED)


async def test_a_map_may_wait_for_a_result_of_its_own_source(tmp_path):
    document = {
        **PIPELINE,
        "steps": {
            **PIPELINE["steps"],
            "late": {"use": "test.double@1", "map": "read", "with": {"of": "${{ sum.sum }}"}},
        },
        "outputs": {"records": "late"},
    }
    async with core(tmp_path, worker(records=200)) as platform:
        run = await platform.run(document)
        assert run.state == "completed"
        assert await values(platform, run) == [2 * n for n in range(200)]


async def test_a_run_whose_workflow_cannot_be_started_at_first_is_started_later(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("hivemesh_platform.execution.runs.service.SUBMIT_AGAIN_S", 0.01)

    class Failing(DirectEngine):
        failures = 2

        async def submit(self, run, nodes, turn=0):
            if self.failures:
                self.failures -= 1
                message = "the disk is full"
                raise OSError(message)
            await super().submit(run, nodes, turn)

    async with core(tmp_path, worker(), engine=Failing) as platform:
        assert (await platform.run()).state == "completed"


async def test_a_reference_to_a_missing_field_fails_the_run_with_words(tmp_path):
    document = {
        **PIPELINE,
        "steps": {
            **PIPELINE["steps"],
            "tell": {"use": "test.echo@1", "with": {"text": "${{ sum.nothing }}"}},
        },
        "outputs": {},
    }
    async with core(tmp_path, worker()) as platform:
        run = await platform.run(document)
        assert run.state == "failed"
        assert "sum.nothing has no 'nothing'" in run.problem["detail"]


async def test_a_job_answers_within_its_wait(tmp_path):
    async with core(tmp_path, worker()) as platform:
        request = JobRequest(capability="test.echo@1", input={"a": 1}, options={"b": 2}, wait_s=10)
        view = await platform.execution.jobs.start(request, TESTER)
        assert view.state == "completed"
        assert view.outputs == {"result": {"value": {"a": 1}, "options": {"b": 2}}}


async def test_a_job_tells_when_it_came_began_and_ended(tmp_path):
    away = worker()
    away.dead = True
    async with core(tmp_path, away) as platform:
        job = await platform.execution.jobs.start(JobRequest(capability="test.echo@1"), TESTER)
        assert (job.started_at, job.ended_at) == (None, None)
        away.dead = False
        platform.placement.changed()
        job = await platform.end(job.id)
        [attempt] = await platform.execution.history.attempts(job.id, "", -1, 0, 10)
        times = [job.created_at, job.started_at, attempt.started_at, attempt.ended_at, job.ended_at]
        assert all(times)
        assert times == sorted(times)


async def test_a_failed_job_shows_its_problem(tmp_path):
    broken = failing(problem("step-fatal", "never"))
    async with core(tmp_path, worker(behaviours={"test.echo@1": broken})) as platform:
        view = await platform.execution.jobs.start(
            JobRequest(capability="test.echo@1", wait_s=10), TESTER
        )
        assert view.state == "failed"
        assert view.problem["detail"] == "never"


async def test_a_job_of_an_unknown_capability_is_refused(tmp_path):
    async with core(tmp_path, worker()) as platform:
        with pytest.raises(HivemeshError) as refused:
            await platform.execution.jobs.start(JobRequest(capability="test.no@1"), TESTER)
        assert slug_of(refused.value.problem()) == "unknown-capability"


async def test_runs_and_jobs_are_listed_newest_first(tmp_path):
    async with core(tmp_path, worker()) as platform:
        first = await platform.run()
        job = await platform.execution.jobs.start(
            JobRequest(capability="test.echo@1", wait_s=10), TESTER
        )
        second = await platform.run()
        ids = [view.id for view in await platform.execution.runs.page("", 10, ADMIN)]
        assert ids == [second.id, job.id, first.id]
        assert [v.id for v in await platform.execution.runs.page(job.id, 10, ADMIN)] == [first.id]


async def test_each_attempt_is_explained(tmp_path):
    async with core(tmp_path, worker()) as platform:
        run = await platform.run()
        explained = await platform.execution.runs.explain(run.id, 0, 100)
        assert {one.chosen for one in explained} == {"w1"}
        assert explained[0].reason == "the first free one"


async def test_a_run_of_the_same_pipeline_makes_the_next_version_of_its_dataset(tmp_path):
    async with core(tmp_path, worker()) as platform:
        await platform.run()
        await platform.run()
        newest = await platform.execution.datasets.get("sums.records")
        assert (newest.version, newest.records, newest.state) == (2, 35, "complete")
        assert newest.provenance["workers"] == ["fake 1.0.0"]


async def test_two_maps_of_one_source_get_every_batch(tmp_path):
    document = {
        **PIPELINE,
        "steps": {
            "read": PIPELINE["steps"]["read"],
            "one": {"use": "test.double@1", "map": "read"},
            "two": {"use": "test.double@1", "map": "one"},
            "count": {"use": "test.sum@1", "reduce": "read"},
        },
        "outputs": {"once": "one", "twice": "two", "total": "count.sum"},
    }
    async with core(tmp_path, worker()) as platform:
        run = await platform.run(document)
        assert [one["n"] for one in await platform.records(run.id, "twice")] == [
            4 * n for n in range(35)
        ]
        assert await platform.output(run.id, "total") == str(sum(range(35))).encode()


async def test_inputs_above_a_page_go_by_reference(tmp_path):
    big = [{"n": n, "text": "x" * 3_000_000} for n in range(4)]
    seen = []

    def reducer(request, inputs):
        seen.append(sum(part.bytes is not None for part in request.inputs))
        yield from failing(problem("step-fatal", "enough"))(request, inputs)

    behaviours = {"test.read@1": source(big, batch=1), "test.sum@1": reducer}
    fleet = FakeWorkerFleet(worker(behaviours=behaviours), page_events=1)
    async with core(tmp_path, fleet) as platform:
        run = await platform.run()
        assert run.state == "failed"
        assert max(seen) == 1  # batches of 3 MB: one of them fits into 4 MiB


async def test_capabilities_are_checked_when_a_run_starts(tmp_path):
    catalogue = FakeCatalogue(*CAPABILITIES[:2], capability("test.sum@1", "map"))
    async with core(tmp_path, worker(), catalogue=catalogue) as platform:
        with pytest.raises(HivemeshError) as refused:
            await platform.start()
        assert refused.value.errors[0].pointer == "/steps/sum/reduce"
