"""`status` and `health`: what runs, and a platform that is alive but takes no work yet."""

import json

import pytest
from hivemesh_platform.app import Platform
from platform_support import ask

pytestmark = pytest.mark.integration


async def test_what_runs_is_listed(hivemesh, found: Platform) -> None:
    assert json.loads((await hivemesh("status -o json")).out)["running"] == []
    job = await ask(found, "submit", "echo.say@1", "hello")
    waiting = await hivemesh("status")
    assert (waiting.code, job.id in waiting.out) == (0, False)
    started = "UPDATE work SET state = 'running', reason = '', started_at = 1 WHERE run = ?"
    await found.people.access.database.write(lambda tx: tx.execute(started, (job.id,)))
    [one] = json.loads((await hivemesh("status -o json")).out)["running"]
    assert (one["id"], one["of"]) == (job.id, "echo.say@1")
    assert one["started_at"].startswith("1970")
    lines = [line.split() for line in (await hivemesh("status")).out.splitlines()]
    assert [job.id, "echo.say@1"] in [words[:2] for words in lines]


async def test_one_that_answers_and_takes_no_work_is_told_from_one_that_is_away(
    hivemesh, found: Platform, tmp_path
) -> None:
    assert await hivemesh("health") == (0, "ready\n", "")
    found.ready = False
    assert await hivemesh("health") == (7, "not ready\n", "")
    assert "· starting ·" in (await hivemesh("status")).out
    away = await hivemesh("health --state", str(tmp_path / "elsewhere"))
    assert (away.code, away.out) == (7, "")
    assert "no platform has been started" in away.err


async def test_a_call_that_nobody_serves_says_that_it_goes_on(hivemesh) -> None:
    code, out, err = await hivemesh("worker call echo.say@1 --wait 0")
    assert (code, out) == (6, "")
    assert "hivemesh job cancel job_" in err
    code, out, _ = await hivemesh("worker call echo.say@1 --wait 0 -o json")
    assert (code, json.loads(out)["state"] in {"queued", "waiting"}) == (6, True)
