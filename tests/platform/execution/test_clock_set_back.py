"""A row does not wait longer because the clock of the machine was set back."""

import pytest
from hivemesh_platform.execution.ledger import clock_sql
from hivemesh_platform.execution.ledger.port import Failure, Placed
from hivemesh_platform.execution.ledger.row_sql import SqlLedger
from hivemesh_platform.execution.model import AttemptOutcome
from hivemesh_sdk.contracts.problems import problem
from queue_conformance import WORK, jobs

NOW = 100_000_000
HOUR = 3_600_000
MAX_S = 300.0
BROKEN = problem("step-failed", "broken", retryable=True)
LEDGER = SqlLedger(None)


@pytest.fixture
async def failed(database):
    """A job whose first attempt failed at NOW, and is to be repeated so many milliseconds later."""

    async def failed(wait):
        await database.write(lambda tx: LEDGER.add_jobs(tx, jobs("x", 1), NOW))
        [claim] = await database.write(lambda tx: LEDGER.claim(tx, WORK, 1, NOW))
        where = Placed(instance="w1", identity="x", worker="test", explanation="{}", endpoint="")
        await database.write(lambda tx: LEDGER.placed(tx, claim.key, claim.fence, where, NOW))
        again = Failure(BROKEN, AttemptOutcome.FAILED, NOW + wait)
        await database.write(lambda tx: LEDGER.retry(tx, claim.key, claim.fence, again, NOW))

    return failed


@pytest.fixture
async def claimed(database):
    """How many rows are claimed on that clock, after the look for what lies too far ahead."""

    async def claimed(now):
        if await database.read(lambda tx: clock_sql.any_far_ahead(tx, now, MAX_S)):
            await database.write(lambda tx: clock_sql.bring_near(tx, now, MAX_S))
        return len(await database.write(lambda tx: LEDGER.claim(tx, WORK, 9, now)))

    return claimed


async def test_a_retry_is_due_where_the_clock_was_set_back_by_an_hour(failed, claimed):
    await failed(30_000)
    assert await claimed(NOW - HOUR) == 1


async def test_a_gap_that_the_settings_allow_is_kept(failed, claimed):
    await failed(450_000)
    assert await claimed(NOW + 1) == 0
    assert await claimed(NOW + 450_000) == 1


async def test_a_longer_wait_that_a_service_asked_for_is_kept(failed, claimed):
    await failed(HOUR)
    assert await claimed(NOW + 1) == 0
    assert await claimed(NOW + HOUR) == 1


async def test_what_a_busy_worker_put_back_waits_for_the_longest_gap_at_most(database, claimed):
    await database.write(lambda tx: LEDGER.add_jobs(tx, jobs("x", 1), NOW))
    [claim] = await database.write(lambda tx: LEDGER.claim(tx, WORK, 1, NOW))
    later = NOW + 1000
    await database.write(lambda tx: LEDGER.release(tx, claim.key, claim.fence, "busy", later))
    assert await claimed(NOW - HOUR) == 0
    assert await claimed(NOW - HOUR + 300_000) == 1


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("statement", [clock_sql._LOOK, clock_sql._BRING_NEAR])
async def test_the_look_reads_delayed_rows_alone(database, statement):
    names = {"now": 1, "far": 2, "longest": 3}
    used = {name: value for name, value in names.items() if f":{name}" in statement}
    plan = await database.read(lambda tx: tx.all(f"EXPLAIN QUERY PLAN {statement}", used))
    steps = [row["detail"] for row in plan]
    assert any("work_delayed" in step for step in steps), steps
    assert not any(step.startswith("SCAN") for step in steps), steps
