"""Attempts of jobs that ended together are kept once, and told as if each had been kept alone."""

from dataclasses import replace

import pytest
from hivemesh_platform.access.model import Principal
from hivemesh_platform.execution.behalf import Behalf
from hivemesh_platform.execution.ledger import attempt_sql, batch_sql, store
from hivemesh_platform.execution.ledger.batch_sql import Ends
from hivemesh_platform.execution.ledger.port import Failure, Finished, JobEnd, NewJobs
from hivemesh_platform.execution.ledger.retention_sql import remove_jobs
from hivemesh_platform.execution.ledger.row_sql import SqlLedger
from hivemesh_platform.execution.model import AttemptOutcome
from hivemesh_platform.execution.runs import history, views
from hivemesh_platform.execution.runs.history import History
from hivemesh_sdk.clock import SystemClock
from ledger_conformance import BROKEN, DOUBLE, NOW, PLACED, new_job

ADMIN = Principal(id="a", grants=("admin:*",))
WHERE = replace(PLACED, explanation='{"reason": "the only one"}')
FIRST, SECOND = "job_" + "0" * 32, "job_" + "1" * 32


class Jobs:
    """Batches of jobs in a database, and what is told of their attempts."""

    def __init__(self, database):
        self.database = database
        self.ledger = SqlLedger(None)
        self.history = History(database, SystemClock())

    async def write(self, work):
        return await self.database.write(work)

    async def add(self, stem, count):
        new = NewJobs(job=new_job(stem), stem=stem, specs=["{}"] * count, together="t")
        await self.write(lambda tx: self.ledger.add_batch(tx, new, NOW))
        return [f"{stem}-{n:06d}" for n in range(1, count + 1)]

    async def claim(self, now=NOW):
        return await self.write(lambda tx: self.ledger.claim(tx, DOUBLE, 1, now, 500))

    async def end_together(self, claims, began=NOW, now=NOW + 5, where=WHERE):
        ends = [JobEnd(one.key, one.fence, '{"value":1}') for one in claims]
        await self.write(lambda tx: self.ledger.finish_jobs(tx, ends, where, began, now))

    async def end_alone(self, claims, began=NOW, now=NOW + 5, where=WHERE):
        for key, fence in [(one.key, one.fence) for one in claims]:
            end = Finished(output='{"value":1}', placed=where, began=began)
            await self.write(
                lambda tx, key=key, fence=fence, end=end: self.ledger.finish(
                    tx, key, fence, end, now
                )
            )

    async def fail_once(self, claim, now):
        """Have the job wait for its next attempt, as the worker's problem has it."""
        key, fence = claim.key, claim.fence
        failure = Failure(BROKEN, AttemptOutcome.FAILED, now)
        await self.write(lambda tx: self.ledger.placed(tx, key, fence, WHERE, now - 3))
        await self.write(lambda tx: self.ledger.retry(tx, key, fence, failure, now))

    async def told(self, run):
        """All that is told of the attempts of a job, but its id."""
        attempts = await self.history.attempts(run, "", -1, 0, 10)
        rows = await self.database.read(lambda tx: store.attempts(tx, run, 0, 10))
        count = await self.database.read(lambda tx: store.attempts_of(tx, run))
        shown = [*attempts, *map(views.explain_view, rows)]
        return count, [one.model_dump(exclude={"key"}) for one in shown]

    async def at_instance(self, instance="w1", limit=500):
        found, after = [], ""
        while after is not None:
            items, after = await self.history.at_instance(ADMIN, instance, after, limit)
            assert len(items) <= limit
            found += items
        return found

    async def groups(self):
        rows = await self.database.read(lambda tx: tx.all("SELECT id FROM attempt_group"))
        return [row["id"] for row in rows]


@pytest.fixture
async def jobs(database):
    return Jobs(database)


async def test_each_job_has_its_attempt(jobs):
    together = await jobs.add(FIRST, 3)
    await jobs.end_together(await jobs.claim())
    alone = await jobs.add(SECOND, 3)
    await jobs.end_alone(await jobs.claim())
    for one, other in zip(together, alone, strict=True):
        told = await jobs.told(one)
        assert told == await jobs.told(other)
        assert (told[0], told[1][0]["outcome"], told[1][0]["instance"]) == (1, "completed", "w1")
    found = [one.model_dump(exclude={"key"}) for one in await jobs.at_instance()]
    assert found == [found[0]] * 6


async def test_attempts_before_it_stay_and_come_first(jobs):
    told = []
    for stem, end in ((FIRST, jobs.end_together), (SECOND, jobs.end_alone)):
        [run] = await jobs.add(stem, 1)
        [claim] = await jobs.claim()
        await jobs.fail_once(claim, NOW + 10)
        await end(await jobs.claim(NOW + 10), NOW + 12, NOW + 20)
        told.append(await jobs.told(run))
    assert told[0] == told[1]
    count, shown = told[0]
    assert [one.get("outcome") for one in shown[:2]] == ["failed", "completed"]
    assert (count, shown[1]["attempt"], shown[1]["gap_s"]) == (2, 2, pytest.approx(0.002))
    later = await jobs.history.attempts(f"{FIRST}-000001", "", -1, 1, 10)
    assert [(one.attempt, one.gap_s) for one in later] == [(2, pytest.approx(0.002))]


async def test_a_job_that_was_retried_by_hand_has_both_of_its_attempts(jobs):
    told = []
    for stem, end in ((FIRST, jobs.end_together), (SECOND, jobs.end_alone)):
        [run] = await jobs.add(stem, 1)
        [claim] = await jobs.claim()
        key, fence = claim.key, claim.fence
        await jobs.write(lambda tx, k=key, f=fence: jobs.ledger.placed(tx, k, f, WHERE, NOW))
        await jobs.write(lambda tx, k=key, f=fence: jobs.ledger.fail(tx, k, f, BROKEN, NOW + 1))
        assert await jobs.write(lambda tx, run=run: jobs.ledger.job_again(tx, run, Behalf(), NOW))
        await end(await jobs.claim())
        told.append(await jobs.told(run))
        assert not await jobs.write(
            lambda tx, run=run: jobs.ledger.job_again(tx, run, Behalf(), NOW)
        )
    assert told[0] == told[1]
    assert sorted(one["outcome"] for one in told[0][1][:2]) == ["completed", "failed"]


async def test_an_attempt_that_is_kept_already_is_told_once(jobs):
    [run] = await jobs.add(FIRST, 1)
    [claim] = await jobs.claim()
    await jobs.write(lambda tx: jobs.ledger.placed(tx, claim.key, claim.fence, WHERE, NOW))
    await jobs.end_together([claim])
    assert (await jobs.told(run))[0] == 1
    assert [one.key for one in await jobs.at_instance()] == [f"{run}.job.0"]


async def test_what_is_not_held_any_more_has_no_attempt(jobs):
    runs = await jobs.add(FIRST, 4)
    claims = await jobs.claim()
    ends = Ends(f"{FIRST}-", f"{FIRST}.")
    cancelled = await jobs.write(lambda tx: batch_sql.cancel(tx, ends, 2, NOW))
    await jobs.end_together(claims)
    counts = [(await jobs.told(run))[0] for run in runs]
    assert (cancelled, counts) == (runs[:2], [0, 0, 1, 1])
    assert [one.key for one in await jobs.at_instance()] == [f"{run}.job.0" for run in runs[:1:-1]]


async def test_what_is_not_committed_has_left_nothing(jobs):
    [run] = await jobs.add(FIRST, 1)
    [claim] = await jobs.claim()

    def broken(tx):
        end = JobEnd(claim.key, claim.fence, '{"value":1}')
        jobs.ledger.finish_jobs(tx, [end], WHERE, NOW, NOW)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await jobs.write(broken)
    assert (await jobs.told(run), await jobs.groups()) == ((0, []), [])


@pytest.mark.parametrize("limit", [1, 2, 7])
async def test_a_history_has_what_is_kept_in_common_and_alone_in_one_order(
    jobs, monkeypatch, limit
):
    monkeypatch.setattr(attempt_sql, "LOOKED_UP", 2)
    monkeypatch.setattr(attempt_sql, "GROUPS", 1)
    await jobs.add(FIRST, 12)
    claims = await jobs.claim()
    other = replace(WHERE, instance="w2")
    await jobs.end_together(claims[0:6:2], NOW + 1)
    await jobs.end_together(claims[1:6:2], NOW + 1)  # another request that began at the same moment
    await jobs.end_alone(claims[6:8], NOW + 1)
    await jobs.end_together(claims[8:9], NOW + 2)
    await jobs.end_alone(claims[9:10], NOW)
    await jobs.end_together(claims[10:12], NOW + 1, where=other)
    found = await jobs.at_instance(limit=limit)
    order = [(one.started_at, one.key) for one in found]
    numbers = [int(one.key.partition(".")[0][-6:]) for one in found]
    assert order == sorted(order, reverse=True)
    assert numbers == [9, 8, 7, 6, 5, 4, 3, 2, 1, 10]
    assert [one.key[-12:-6] for one in await jobs.at_instance("w2", limit)] == ["000012", "000011"]


async def test_a_history_looks_at_nothing_of_other_tenants(jobs, monkeypatch):
    move = "UPDATE work SET tenant = ? WHERE run = ?"
    for stem, tenant in ((FIRST, "default"), (SECOND, "other")):
        moved = [(tenant, run) for run in await jobs.add(stem, 4)]
        await jobs.write(lambda tx, moved=moved: tx.execute_many(move, moved))
        claims = await jobs.claim()
        for n, claim in enumerate(claims):
            await jobs.end_together([claim], NOW + n)
    decoded = []

    def decode(text, real=attempt_sql._decode):
        decoded.extend(real(text))
        return real(text)

    monkeypatch.setattr(attempt_sql, "_decode", decode)
    expected = [f"{FIRST}-{n:06d}" for n in (4, 3, 2, 1)]
    assert [one.key for one in await jobs.at_instance()] == [f"{run}.job.0" for run in expected]
    assert set(decoded) == set(expected)
    other = replace(ADMIN, tenant="other")
    found, _ = await jobs.history.at_instance(other, "w1", "", 9)
    assert [one.key[:36] for one in found] == [SECOND] * 4


async def test_jobs_that_have_gone_count_as_looked_at(jobs, monkeypatch):
    monkeypatch.setattr(history, "SCANNED", 4)
    monkeypatch.setattr(history, "MOST_SCANNED", 8)
    runs = await jobs.add(FIRST, 48)
    claims = await jobs.claim()
    for first in range(0, 48, 16):
        await jobs.end_together(claims[first : first + 16], NOW + first)
    gone = [run for number, run in enumerate(runs) if number % 16]
    await jobs.write(lambda tx: remove_jobs(tx, gone, NOW + 99))
    found, after, pages = [], "", 0
    while after is not None:
        items, after = await jobs.history.at_instance(ADMIN, "w1", after, 1)
        found, pages = found + items, pages + 1
    assert [one.key for one in found] == [f"{run}.job.0" for run in runs[32::-16]]
    assert pages > len(found)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_many_that_ended_alone_are_looked_up_together(jobs, monkeypatch):
    await jobs.add(FIRST, 40)
    for number, claim in enumerate(await jobs.claim()):
        await jobs.end_together([claim], NOW + number)
    asked = []

    class Counting:
        def __init__(self, tx):
            self._tx = tx

        def all(self, sql, parameters=()):
            asked.append(sql)
            return self._tx.all(sql, parameters)

    def read(tx):
        rows = attempt_sql.in_common_at(Counting(tx), "w1", "default", attempt_sql.Place(1 << 62))
        return [row["run"] for _, row in rows]

    assert len(await jobs.database.read(read)) == 40
    assert len(asked) == 5  # twice rows in common with their jobs, and once none


async def test_what_they_have_in_common_goes_with_the_last_of_them(jobs):
    runs = await jobs.add(FIRST, 3)
    await jobs.end_together(await jobs.claim())
    assert len(await jobs.groups()) == 1

    def due(tx, before):
        return attempt_sql.due_groups(tx, "", before, 10)

    def remove(tx, gone):
        remove_jobs(tx, gone, NOW + 6)
        return attempt_sql.remove_groups(tx, due(tx, NOW + 6), NOW + 6)

    assert await jobs.write(lambda tx: due(tx, NOW + 5)) == []
    assert await jobs.write(lambda tx: remove(tx, runs[1:])) == 0
    assert (await jobs.told(runs[0]))[0] == 1
    assert [one.key for one in await jobs.at_instance()] == [f"{runs[0]}.job.0"]
    assert await jobs.write(lambda tx: remove(tx, runs[:1])) == 1
    assert (await jobs.groups(), await jobs.at_instance()) == ([], [])
