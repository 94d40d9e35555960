"""Workers that die, hang and restart, and a platform that restarts: every record exactly once."""

import asyncio
import random

import pytest
from execution_support import FAST, PIPELINE, core, worker
from fake_workers import FakeWorkerFleet
from hivemesh_platform.execution.steps import dispatch, exchange
from hivemesh_sdk.contracts.problems import problem

pytestmark = pytest.mark.usefixtures("each_database")

RECORDS = 120
DOUBLED = [2 * n for n in range(RECORDS)]
TOTAL = str(sum(DOUBLED)).encode()


def fleet_of(*names, page_events=2, **options):
    made = [worker(name, records=RECORDS, **options) for name in names]
    return FakeWorkerFleet(*made, page_events=page_events)


def at_request(fleet, kind, number, action):
    """Do something at the n-th request of a kind."""
    seen = 0

    def before(found, _instance, _key):
        nonlocal seen
        if found == kind:
            seen += 1
            if seen == number:
                action()

    fleet.before = before


async def assert_complete(platform, run, state="completed"):
    view = await platform.end(run)
    assert view.state == state, view.problem
    assert [one["n"] for one in await platform.records(run)] == DOUBLED
    assert await platform.output(run, "total") == TOTAL


@pytest.mark.parametrize("number", [1, 2, 4, 7])
@pytest.mark.parametrize("kind", ["put", "get"])
async def test_steps_of_a_dead_worker_go_to_another(tmp_path, kind, number):
    fleet = fleet_of("w1", "w2")
    at_request(fleet, kind, number, lambda: setattr(fleet.workers["w1"], "dead", True))
    async with core(tmp_path, fleet) as platform:
        await assert_complete(platform, await platform.start())


async def test_steps_of_a_stopped_worker_go_to_another(tmp_path):
    fleet = fleet_of("w1", "w2")
    stopped = fleet.workers["w1"]
    at_request(fleet, "get", 3, lambda: setattr(stopped, "stopped", asyncio.Event()))
    async with core(tmp_path, fleet) as platform:
        await assert_complete(platform, await platform.start())
        assert platform.execution.counters.attempts_lost >= 1
        stopped.stopped.set()


@pytest.mark.parametrize("number", [1, 3, 6])
async def test_a_worker_restarted_between_pages_loses_and_doubles_nothing(tmp_path, number):
    fleet = fleet_of("w1", bad={5, 17, 50})
    at_request(fleet, "get", number, fleet.workers["w1"].restart)
    async with core(tmp_path, fleet) as platform:
        run = await platform.start()
        view = await platform.end(run)
        assert (view.state, view.rejected) == ("partial", 3)
        left = [n for n in DOUBLED if n not in {10, 34, 100}]
        assert [one["n"] for one in await platform.records(run)] == left
        listed = await platform.execution.runs.rejected(run, 0, 10)
        assert [one.position for one in listed] == [5, 17, 50]


async def test_a_stuck_worker_answer_of_an_old_attempt_does_not_count(tmp_path):
    """The first answer of the map is held back until the row has gone to another worker."""
    fleet = fleet_of("w1", "w2")
    stopped = fleet.workers["w1"]
    stop = asyncio.Event()
    at_request(fleet, "put", 2, lambda: setattr(stopped, "stopped", stop))
    async with core(tmp_path, fleet) as platform:
        run = await platform.start()
        await assert_complete(platform, run)
        stop.set()
        await assert_complete(platform, run)


@pytest.mark.parametrize("batches", [0, 1, 3, 8])
async def test_a_restarted_platform_goes_on_with_the_running_execution(tmp_path, batches):
    fleet = fleet_of("w1")
    async with core(tmp_path, fleet) as platform:
        run = await platform.start()
        await platform.until(lambda: platform.execution.counters.batches_recorded >= batches)
    async with core(tmp_path, fleet) as platform:
        await assert_complete(platform, run)
    reads = [attempt for _, key, attempt in fleet.puts if key == f"{run}.read.0"]
    assert reads == [1] or batches == 0


async def test_platform_and_worker_restart_together(tmp_path):
    fleet = fleet_of("w1")
    async with core(tmp_path, fleet) as platform:
        run = await platform.start()
        await platform.until(lambda: platform.execution.counters.batches_recorded >= 5)
    fleet.workers["w1"].restart()
    async with core(tmp_path, fleet) as platform:
        await assert_complete(platform, run)


async def test_a_worker_that_says_execution_unknown_costs_no_retry(tmp_path):
    fleet = fleet_of("w1")
    async with core(tmp_path, fleet) as platform:
        at_request(fleet, "get", 1, fleet.workers["w1"].executions.clear)
        await assert_complete(platform, await platform.start())
        assert platform.execution.counters.attempts_failed == 0


async def test_a_step_past_its_deadline_is_ended_and_repeated(tmp_path):
    fleet = fleet_of("w1")
    fleet.workers["w1"].hang_once = {"test.double@1"}
    async with core(tmp_path, fleet) as platform:
        run = await platform.start(_with_deadline(0.5))
        await assert_complete(platform, run)
        assert platform.execution.counters.attempts_failed >= 1  # more where others are slow too
        assert ("w1", f"{run}.double.1") in fleet.deleted


@pytest.mark.parametrize("seed", range(12))
async def test_random_faults_lose_and_double_nothing(tmp_path, seed):
    """Kill, restart and fail at random, restart the platform now and then."""
    choose = random.Random(seed)  # noqa: S311 - repeatable faults
    fleet = fleet_of("w1", "w2", "w3", page_events=choose.choice([1, 2, 5]))

    def before(_kind, instance, _key):
        found = fleet.workers[instance]
        if choose.random() < 0.03:
            found.restart()
        if choose.random() < 0.02:
            fleet.refuse.append(problem("step-failed", "by chance", retryable=True))

    fleet.before = before
    document = _with_retries(50)
    async with core(tmp_path, fleet) as platform:
        run = await platform.start(document)
    for _ in range(choose.randrange(4)):
        async with core(tmp_path, fleet) as platform:
            await _until_recorded(platform, choose.randrange(1, 6))
    async with core(tmp_path, fleet) as platform:
        await assert_complete(platform, run)


async def _until_recorded(platform, batches):
    counters = platform.execution.counters
    await platform.until(lambda: counters.batches_recorded >= batches or not counters.open_runs)


def _with_deadline(seconds):
    steps = dict(PIPELINE["steps"])
    steps["double"] = {**steps["double"], "deadline_s": seconds}
    return {**PIPELINE, "steps": steps}


def _with_retries(count):
    retry = {"max_retries": count, "base_s": 0.001}
    steps = {name: {**step, "retry": retry} for name, step in PIPELINE["steps"].items()}
    return {**PIPELINE, "steps": steps}


async def test_a_source_makes_room_for_what_its_own_limit_holds_back(tmp_path, monkeypatch):
    """It reads on from its checkpoint, and who made its batches stays known."""
    monkeypatch.setattr(exchange, "ASIDE_AFTER_S", 0.0)
    monkeypatch.setattr(exchange, "ROOM_POLL_S", 0.01)
    monkeypatch.setattr(dispatch, "ASIDE_S", 0.0)
    settings = FAST.model_copy(update={"limits": {"all": 1}, "in_flight_batches": 2})
    async with core(tmp_path, fleet_of("w1"), settings=settings) as platform:
        run = await platform.start()
        await assert_complete(platform, run)
        found = await platform.execution.history.attempts(run, "read", -1, 0, 100)
        assert {one.outcome for one in found} == {"interrupted", "completed"}
