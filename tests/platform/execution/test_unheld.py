"""Rows that were lost between their claim and their step do not wait for a restart."""

import pytest
from execution_support import TESTER, core, worker
from hivemesh_platform.execution.ledger.group_rules import GroupSizes
from hivemesh_platform.execution.losses.unheld import MOST_LOSSES, UnheldRows
from hivemesh_platform.execution.model import WorkKey
from hivemesh_platform.execution.runtime import Execution
from hivemesh_sdk.contracts.api import JobRequest

ECHO = "test.echo@1"


def rows_of(platform) -> UnheldRows:
    parts = platform.execution.jobs._parts
    return UnheldRows(parts, parts.ledger._standing)


async def lose(platform, job) -> None:
    """As an error between claim and step would."""
    await platform.database.write(
        lambda tx: tx.execute(
            """UPDATE work SET state = 'running', attempt = attempt + 1, replica = ?,
                      replica_epoch = ? WHERE run = ?""",
            (*standing_of(platform.execution), job),
        )
    )


def standing_of(execution: Execution) -> tuple[str, int]:
    standing = execution.jobs._parts.ledger._standing
    return standing.replica, standing.epoch


async def submitted(platform, **fields):
    request = JobRequest(capability=ECHO, input=1, **fields)
    return (await platform.execution.jobs.start(request, TESTER)).id


async def test_a_row_that_no_step_holds_at_two_looks_is_queued_again(tmp_path):
    one = worker()
    one.dead = True
    async with core(tmp_path, one) as platform:
        job = await submitted(platform)
        await lose(platform, job)
        one.dead = False
        rows = rows_of(platform)
        assert await rows.look() == 0
        assert await rows.look() == 1
        assert (await platform.end(job)).state == "completed"
        assert await rows.look() == 0


async def test_a_row_that_is_lost_again_and_again_ends(tmp_path):
    one = worker()
    one.dead = True
    async with core(tmp_path, one) as platform:
        job = await submitted(platform)
        rows = rows_of(platform)
        for _ in range(MOST_LOSSES):
            await lose(platform, job)
            assert [await rows.look(), await rows.look()] == [0, 1]
        view = await platform.end(job)
        assert view.state == "failed"
        assert view.problem["type"].endswith("internal")


@pytest.mark.parametrize("jobs", [1, 4])
async def test_what_a_step_holds_is_left_alone(tmp_path, monkeypatch, jobs):
    monkeypatch.setattr(GroupSizes, "most", lambda *_: 10)
    monkeypatch.setattr(GroupSizes, "requests", lambda *_: 1)
    one = worker(slots=1)
    async with core(tmp_path, one) as platform:
        one.dead = True
        one.hang_once = {ECHO}
        found = [await submitted(platform) for _ in range(jobs)]
        one.dead = False
        platform.execution.work.give()
        await platform.until(lambda: len(platform.execution.held) == 1)
        held = platform.execution.held
        assert all(held.holds(str(WorkKey(job, "job", 0)), 1) for job in found)
        rows = rows_of(platform)
        assert [await rows.look(), await rows.look()] == [0, 0]
