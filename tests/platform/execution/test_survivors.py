"""A crash is a process that ended: who answers again has not died, however often it was cut off."""

import asyncio
from types import SimpleNamespace

import pytest
from execution_support import FAST, TESTER, core, worker
from fake_workers import FakeWorkerFleet
from hivemesh_platform.access.model import Principal
from hivemesh_platform.execution.held import Verdict
from hivemesh_platform.execution.ledger.letter_sql import LetterFilter
from hivemesh_platform.execution.steps.survivors import Survivors
from hivemesh_platform.storage.errors import DatabaseUnreachableError
from hivemesh_sdk.contracts.api import JobRequest
from hivemesh_sdk.contracts.problems import problem
from hivemesh_sdk.testing.clock import ManualClock

ECHO = "test.echo@1"
ADMIN = Principal(id="tester", roles=("admin",), grants=("admin:*",))
SINCE_LONG = 1e6


async def begin(platform):
    one = platform.fleet.workers["w1"]
    one.hang_once.add(ECHO)
    view = await platform.execution.jobs.start(JobRequest(capability=ECHO, input=1), TESTER)
    return view.id


async def lose(platform, attempt, *, last):
    """Cut the connection while the step runs; its next attempt hangs too, unless it is the last."""
    one = platform.fleet.workers["w1"]
    await platform.until(lambda: len(platform.fleet.puts) == attempt)
    if not last:
        one.hang_once.add(ECHO)
    [step] = platform.execution.held.at("w1")
    step.end(Verdict.LOST, problem("worker-lost", "it did not answer"))


async def counted(platform, job):
    row = await platform.database.read(
        lambda tx: tx.one("SELECT crashes, suspect FROM work WHERE run = ?", (job,))
    )
    return row["crashes"], row["suspect"]


async def crashes(platform, job):
    return (await counted(platform, job))[0]


async def outcomes(platform, run):
    found = await platform.execution.history.attempts(run, "", -1, 0, 100)
    return [one.outcome for one in found]


async def test_a_step_that_is_cut_off_again_and_again_is_no_poison(tmp_path):
    fleet = FakeWorkerFleet(worker(slots=1))
    fleet.uptime_s = SINCE_LONG
    async with core(tmp_path, fleet) as platform:
        job = await begin(platform)
        for attempt in range(1, 6):
            await lose(platform, attempt, last=attempt == 5)
            await platform.until(lambda attempt=attempt: len(fleet.puts) == attempt + 1)
            async with asyncio.timeout(20):
                while attempt < 5 and await crashes(platform, job):  # noqa: ASYNC110 - a row tells nobody
                    await asyncio.sleep(0)
        assert (await platform.end(job)).state == "completed"
        assert await outcomes(platform, job) == ["lost"] * 5 + ["completed"]


async def test_a_worker_that_beats_has_died_of_nothing(tmp_path):
    """It cannot be asked, and yet it is there: no way to it, for as long as that lasts."""
    fleet = FakeWorkerFleet(worker(slots=1))
    async with core(tmp_path, fleet) as platform:
        platform.placement.beating = {"w1"}
        job = await begin(platform)
        for attempt in range(1, 6):
            await lose(platform, attempt, last=attempt == 5)
            await platform.until(lambda attempt=attempt: len(fleet.puts) == attempt + 1)
            assert await counted(platform, job) == (0, 0)
        assert (await platform.end(job)).state == "completed"


async def test_what_has_killed_once_is_kept_apart_after_a_broken_connection_too(tmp_path):
    fleet = FakeWorkerFleet(worker(slots=1))
    fleet.uptime_s = SINCE_LONG
    async with core(tmp_path, fleet) as platform:
        job = await begin(platform)
        await platform.until(lambda: len(fleet.puts) == 1)
        await platform.database.write(
            lambda tx: tx.execute("UPDATE work SET crashes = 1 WHERE run = ?", (job,))
        )
        await lose(platform, 1, last=False)
        await platform.until(lambda: len(fleet.puts) == 2)
        async with asyncio.timeout(20):
            while await crashes(platform, job) > 1:  # noqa: ASYNC110 - a row tells nobody
                await asyncio.sleep(0)
        assert await counted(platform, job) == (1, 1)
        await lose(platform, 2, last=True)
        assert (await platform.end(job)).state == "completed"


async def test_no_worker_is_still_asked_when_a_look_ends_with_an_error():
    begun, answered = asyncio.Event(), asyncio.Event()
    writes = iter([False, True])

    async def write(_work):
        if next(writes):
            begun.set()
            await answered.wait()
        else:
            raise DatabaseUnreachableError

    async def status(_endpoint, *, timeout_s):
        return SimpleNamespace(uptime_s=SINCE_LONG)

    parts = SimpleNamespace(
        clock=ManualClock(),
        settings=FAST,
        transport=SimpleNamespace(status=status),
        database=SimpleNamespace(write=write),
    )
    survivors = Survivors(parts)
    for name in ("w1", "w2"):
        endpoint = SimpleNamespace(identity=name, instance=name)
        claim = SimpleNamespace(key=name, fence=SimpleNamespace(attempt=1))
        survivors.lost(SimpleNamespace(claim=claim, endpoint=endpoint, started=0.0))
    look = asyncio.create_task(survivors.look())
    await begun.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not look.done()
    answered.set()
    with pytest.raises(DatabaseUnreachableError):
        await look
    assert len(survivors) == 1


async def test_suspects_run_at_the_same_time_where_there_are_instances_for_them(tmp_path):
    """Both would rather go to the other instance than to the one that died with them."""
    first, second = worker("w1"), worker("w2")
    fleet = FakeWorkerFleet(first, second)
    async with core(tmp_path, fleet) as platform:
        await begin(platform)
        await platform.until(lambda: len(fleet.puts) == 1)
        await begin(platform)
        await platform.until(lambda: len(platform.execution.held.at("w1")) == len(fleet.puts) == 2)
        second.hang_once.add(ECHO)
        for step in platform.execution.held.at("w1"):
            step.end(Verdict.LOST, problem("worker-lost", "it did not answer"))
        counters = platform.execution.counters
        await platform.until(lambda: counters.rows_finished == 1, timeout_s=10)
        assert sorted(instance for instance, _, _ in fleet.puts) == ["w1", "w1", "w1", "w2"]


async def test_a_suspect_goes_to_the_one_instance_that_has_none(tmp_path):
    first, second = worker("w1", slots=3), worker("w2", slots=3)
    fleet = FakeWorkerFleet(first, second, worker("w3"))
    async with core(tmp_path, fleet) as platform:
        for count in (1, 2, 3):
            await begin(platform)
            await platform.until(lambda count=count: len(fleet.puts) == count)
        first.hang_once.add(ECHO)
        second.hang_once.add(ECHO)
        for step in platform.execution.held.at("w1"):
            step.end(Verdict.LOST, problem("worker-lost", "it did not answer"))
        counters = platform.execution.counters
        await platform.until(lambda: counters.rows_finished == 1, timeout_s=10)
        assert sorted(instance for instance, _, _ in fleet.puts[3:]) == ["w1", "w2", "w3"]


async def test_a_process_that_was_started_since_is_not_the_one_that_ran_the_step(tmp_path):
    fleet = FakeWorkerFleet(worker(slots=1))
    async with core(tmp_path, fleet) as platform:
        job = await begin(platform)
        for attempt in range(1, 4):
            await lose(platform, attempt, last=attempt == 3)
        assert (await platform.end(job)).state == "failed"
        [letter] = await platform.execution.letters.page(ADMIN, LetterFilter(), "", 10)
        assert letter.row["cause"] == "crashes"


async def test_what_was_lost_while_the_platform_was_away_counts_as_nothing(tmp_path):
    one = worker(records=60)
    fleet = FakeWorkerFleet(one, page_events=2)
    async with core(tmp_path, fleet) as platform:
        run = await platform.start()
        await platform.until(lambda: platform.execution.counters.batches_recorded >= 1)
    before = len([key for _, key, _ in fleet.puts if ".read." in key])
    one.executions.clear()
    async with core(tmp_path, fleet) as platform:
        assert (await platform.end(run)).state == "completed"
        assert "lost" not in await outcomes(platform, run)
    assert len([key for _, key, _ in fleet.puts if ".read." in key]) == before + 1


async def test_a_source_that_was_lost_does_not_keep_the_steps_behind_it_waiting(tmp_path):
    """All are suspects, and there is one instance: the source waits for them, not they for it."""
    most = FAST.in_flight_batches
    one = worker(slots=most, records=60)
    fleet = FakeWorkerFleet(one, page_events=2)
    double = "test.double@1"

    def hang(_kind, _instance, key):
        if ".double." in key:
            one.hang_once.add(double)

    def puts(node):
        return len([key for _, key, _ in fleet.puts if f".{node}." in key])

    def lose_all(platform):
        one.restart()
        for step in platform.execution.held.at("w1"):
            step.end(Verdict.LOST, problem("worker-lost", "it did not answer"))

    fleet.before = hang
    async with core(tmp_path, fleet) as platform:
        run = await platform.start()
        await platform.until(lambda: puts("double") == most)
        fleet.before, one.slots[double] = lambda *_: None, 0
        one.hang_once.clear()
        lose_all(platform)
        for again in (2, 3):  # the first time it went on, so that it is no suspect
            await platform.until(lambda again=again: puts("read") == again)
            if again == 2:
                lose_all(platform)
        one.slots[double] = 1
        platform.placement.changed()
        assert (await platform.end(run)).state == "completed"
        assert (await outcomes(platform, run)).count("lost") == most + 2


async def test_a_source_that_waits_has_not_killed_its_worker(tmp_path):
    """However often that dies of other steps, before there is room for the source to go on."""
    settings = FAST.model_copy(update={"in_flight_batches": 1})
    one = worker()
    fleet, double = FakeWorkerFleet(one), "test.double@1"
    one.slots[double] = 0
    async with core(tmp_path, fleet, settings=settings) as platform:
        run = await platform.start()
        for attempt in range(1, 6):
            await platform.until(lambda attempt=attempt: len(fleet.puts) == attempt)
            await platform.until(
                lambda: any(step.waits for step in platform.execution.held.at("w1"))
            )
            one.restart()
            for step in platform.execution.held.at("w1"):
                step.end(Verdict.LOST, problem("worker-lost", "it did not answer"))
        one.slots[double] = 2
        platform.placement.changed()
        assert (await platform.end(run)).state == "completed"
