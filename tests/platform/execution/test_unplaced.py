"""Rows that no instance may take wait without being counted, and without much work."""

from execution_support import TESTER, core, worker
from fake_workers import FakePlacement
from hivemesh_platform.execution.ports import NoCandidate, Requirement
from hivemesh_platform.execution.steps.unplaced import (
    GAP_MS,
    KINDS,
    LATE_MS,
    SOON_MS,
    Unplaced,
)
from hivemesh_sdk.contracts.api import JobRequest

NOW = 1_000_000
GPU = Requirement(capability="test.echo@1", labels={"gpu": "yes"})


def test_one_row_is_tried_again_soon():
    unplaced = Unplaced()
    for now in (NOW, NOW + SOON_MS, NOW + 2 * SOON_MS):
        assert unplaced.again(GPU, now) == now + SOON_MS


def test_many_rows_are_tried_in_turn_and_none_is_put_off_for_too_long():
    unplaced = Unplaced()
    times = [unplaced.again(GPU, NOW) for _ in range(10_000)]
    assert times == sorted(times)
    assert times[1000] - NOW >= 1000 * GAP_MS
    assert times[-1] <= NOW + LATE_MS
    assert Unplaced().again(GPU, NOW) == NOW + SOON_MS


def test_rows_that_ask_for_something_else_have_a_turn_of_their_own():
    unplaced = Unplaced()
    for _ in range(1000):
        unplaced.again(GPU, NOW)
    other = Requirement(capability="test.echo@1", labels={"gpu": "no"})
    assert unplaced.again(other, NOW) == NOW + SOON_MS


def test_however_much_is_asked_for_few_requirements_are_remembered():
    unplaced = Unplaced()
    for number in range(10 * KINDS):
        unplaced.again(Requirement(capability="test.echo@1", labels={"n": str(number)}), NOW)
    assert len(unplaced._tries) <= KINDS + 1
    unplaced.again(GPU, NOW + LATE_MS)
    assert len(unplaced._tries) == 1


def test_who_is_placed_brings_others_forward_while_they_are_put_off():
    unplaced = Unplaced()
    assert not unplaced.found(GPU, NOW)
    last = max(unplaced.again(GPU, NOW) for _ in range(100))
    assert unplaced.found(GPU, NOW)
    assert unplaced.again(GPU, NOW) == NOW + SOON_MS
    assert unplaced.found(GPU, NOW)
    assert not unplaced.found(GPU, last)


async def test_tries_that_asked_nobody_are_no_attempts(tmp_path, monkeypatch):
    tries, fits = [], []

    def choose(self, requirement):
        if requirement.labels and not fits:
            tries.append(requirement)
            return NoCandidate("no live instance has the label gpu=yes")
        return chosen(self, requirement)

    chosen = FakePlacement.choose
    monkeypatch.setattr(FakePlacement, "choose", choose)
    async with core(tmp_path, worker(slots=4)) as running:
        jobs = running.execution.jobs
        wants = JobRequest(capability="test.echo@1", input=1, requires={"gpu": "yes"})
        waiting = [(await jobs.start(wants, TESTER)).id for _ in range(30)]
        other = await jobs.start(JobRequest(capability="test.echo@1", input=2), TESTER)
        assert (await running.end(other.id)).state == "completed"
        await running.until(lambda: len(tries) > 2 * len(waiting))
        fits.append(True)
        for job in waiting:
            await running.end(job)
        rows = await running.database.read(
            lambda tx: tx.all("SELECT attempt FROM work WHERE node = 'job'")
        )
    assert {row["attempt"] for row in rows} == {1}
    assert len(rows) == len(waiting) + 1
