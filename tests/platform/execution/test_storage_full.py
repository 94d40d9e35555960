"""No space: accepted work waits, nothing is lost, and it goes on by itself once there is space."""

import asyncio
import time

import pytest
from execution_support import TESTER, core, numbers, worker
from fake_workers import FakeWorkerFleet, source
from hivemesh_platform.execution.held import Verdict
from hivemesh_platform.execution.ledger.group_rules import GroupSizes
from hivemesh_platform.storage.errors import StorageFullError
from hivemesh_sdk.contracts.api import JobRequest
from hivemesh_sdk.contracts.problems import problem


async def test_a_run_goes_on_when_the_quota_is_raised(tmp_path, monkeypatch):
    monkeypatch.setattr("hivemesh_platform.execution.steps.dispatch.PAUSE_S", 0.05)
    monkeypatch.setattr("hivemesh_platform.execution.steps.parts.FULL_S", 0.05)
    behaviours = {"test.read@1": source(numbers(60))}
    fleet = FakeWorkerFleet(worker(behaviours=behaviours), page_events=2)
    async with core(tmp_path, fleet) as platform:
        platform.artifacts._quota = 500
        run = await platform.start()
        await platform.until(lambda: platform.execution.counters.pauses >= 2)
        assert not (await platform.execution.runs.get(run)).state.ended
        platform.artifacts._quota = 0
        view = await platform.end(run)
        assert view.state == "completed"
        assert [one["n"] for one in await platform.records(run)] == [2 * n for n in range(60)]


async def test_new_bytes_are_refused_with_507(tmp_path):
    async with core(tmp_path, worker()) as platform:
        platform.artifacts._quota = 10
        with pytest.raises(StorageFullError) as refused:
            await platform.artifacts.put(b"x" * 100, "")
        assert refused.value.problem().status == 507


async def test_a_full_database_delays_claims_and_results_only(tmp_path):
    fleet = FakeWorkerFleet(worker(records=100), page_events=2)
    async with core(tmp_path, fleet) as platform:
        run = await platform.start()
        await platform.until(lambda: platform.execution.counters.batches_recorded >= 1)
        pages = await platform.database.read(lambda tx: tx.one("PRAGMA page_count"))
        await platform.database.write(
            lambda tx: tx.one(f"PRAGMA max_page_count = {pages['page_count']}")
        )
        await platform.until(
            lambda: platform.execution.counters.pauses or not platform.execution.counters.open_runs
        )
        await platform.database.write(lambda tx: tx.one("PRAGMA max_page_count = 1000000"))
        view = await platform.end(run)
        assert view.state == "completed"
        assert [one["n"] for one in await platform.records(run)] == [2 * n for n in range(100)]


async def test_a_submit_is_refused_with_507_and_the_next_one_is_taken(tmp_path):
    async with core(tmp_path, FakeWorkerFleet(worker())) as platform:
        pages = await platform.database.read(lambda tx: tx.one("PRAGMA page_count"))
        limit = f"PRAGMA max_page_count = {pages['page_count']}"
        await platform.database.write(lambda tx: tx.one(limit))
        large = JobRequest(capability="test.echo@1", input="x" * 500_000)
        async with asyncio.timeout(20):
            with pytest.raises(StorageFullError) as refused:
                await platform.execution.jobs.start(large, TESTER)
        assert refused.value.problem().status == 507
        await platform.database.write(lambda tx: tx.one("PRAGMA max_page_count = 1000000"))
        view = await platform.execution.jobs.start(large, TESTER)
        assert (await platform.end(view.id)).state == "completed"


async def job_on_a_full_disk(platform, **fields):
    """A job that has been answered with more than there is space for."""
    platform.artifacts._quota = 100
    request = JobRequest(capability="test.echo@1", input="x" * 200_000, **fields)
    view = await platform.execution.jobs.start(request, TESTER)
    until = time.monotonic() + fields.get("deadline_s", 0.0)
    await platform.until(
        lambda: platform.execution.counters.pauses >= 5 and time.monotonic() > until
    )
    return view.id


@pytest.mark.parametrize("fields", [{}, {"deadline_s": 1.0}])
async def test_what_was_answered_is_kept_until_there_is_space_and_not_done_twice(
    tmp_path, monkeypatch, fields
):
    monkeypatch.setattr("hivemesh_platform.execution.steps.dispatch.PAUSE_S", 0.01)
    monkeypatch.setattr("hivemesh_platform.execution.steps.parts.FULL_S", 0.01)
    async with core(tmp_path, worker()) as platform:
        job = await job_on_a_full_disk(platform, **fields)
        platform.artifacts._quota = 0
        view = await platform.end(job)
        assert view.state == "completed", view.problem
        assert [attempt for _, _, attempt in platform.fleet.puts] == [1]
        rows = await platform.database.read(lambda tx: tx.all("SELECT * FROM attempt"))
        assert [(row["attempt"], row["outcome"]) for row in rows] == [(1, "completed")]


async def test_an_answer_that_waits_for_space_outlives_its_worker(tmp_path, monkeypatch):
    monkeypatch.setattr("hivemesh_platform.execution.steps.dispatch.PAUSE_S", 0.01)
    monkeypatch.setattr("hivemesh_platform.execution.steps.parts.FULL_S", 0.01)
    async with core(tmp_path, worker()) as platform:
        job = await job_on_a_full_disk(platform)
        [step] = platform.execution.held.at("w1")
        step.end(Verdict.LOST, problem("worker-lost", "gone"))
        platform.artifacts._quota = 0
        assert (await platform.end(job)).state == "completed"
        assert len(platform.fleet.puts) == 1


async def test_an_answer_that_waits_for_space_is_dropped_with_its_job(tmp_path, monkeypatch):
    monkeypatch.setattr("hivemesh_platform.execution.steps.parts.FULL_S", 0.01)
    async with core(tmp_path, worker()) as platform:
        job = await job_on_a_full_disk(platform)
        await platform.execution.runs.cancel(job)
        assert (await platform.end(job)).state == "cancelled"
        await platform.until(lambda: not len(platform.execution.held))


async def test_answers_of_a_request_that_wait_for_space_outlive_its_worker(tmp_path, monkeypatch):
    monkeypatch.setattr("hivemesh_platform.execution.steps.groups.FULL_S", 0.01)
    monkeypatch.setattr(GroupSizes, "most", lambda *_: 10)
    monkeypatch.setattr(GroupSizes, "requests", lambda *_: 1)
    one = worker(slots=1)
    async with core(tmp_path, one) as platform:
        one.dead = True
        request = JobRequest(capability="test.echo@1", input="x" * 200_000)
        jobs = [(await platform.execution.jobs.start(request, TESTER)).id for _ in range(3)]
        asked, put = [], platform.artifacts.put

        async def full(*args, **fields):
            asked.append(1)
            if platform.artifacts._quota:
                message = "no space"
                raise StorageFullError(message)
            return await put(*args, **fields)

        platform.artifacts._quota, platform.artifacts.put = 1, full
        one.dead = False
        platform.execution.work.give()
        await platform.until(lambda: len(asked) > 2)
        [step] = platform.execution.held.at("w1")
        assert len(step.members) > 1
        step.end(Verdict.LOST, problem("worker-lost", "gone"))
        platform.artifacts._quota = 0
        views = [await platform.end(job) for job in jobs]
        assert [view.state for view in views] == ["completed"] * 3
        assert len([key for _, key, _ in platform.fleet.puts if key.startswith("group.")]) == 1
