"""Small jobs travel together, and each has its own state, answer, problem and retries."""

import asyncio
import json

import pytest
from execution_support import TESTER, core, worker
from fake_workers import Frame, ProblemEvent, ResultEvent, caller
from hivemesh_platform.execution.held import Verdict
from hivemesh_platform.execution.ledger import store
from hivemesh_platform.execution.ledger.group_rules import (
    MAX_MEMBERS,
    GroupSizes,
    spread,
    together_of,
)
from hivemesh_platform.execution.plans.spec import JobSpec
from hivemesh_platform.execution.ports import UnreachableError
from hivemesh_platform.execution.steps.budget import RetryBudget
from hivemesh_sdk.contracts.api import JobRequest
from hivemesh_sdk.contracts.problems import problem
from hivemesh_sdk.contracts.tickets import Ticket

ECHO = "test.echo@1"


def picky(decide):
    """A capability that answers its input, or fails as `decide` says of it."""

    def run(request, inputs):
        value = json.loads(inputs[0])
        found = decide(value)
        if found is None:
            yield from caller(lambda value, _options: value)(request, inputs)
        else:
            yield Frame(ProblemEvent(no=1, problem=found))

    return run


async def submit(running, values, **fields):
    """Jobs that are all queued before the first one is claimed."""
    jobs = running.execution.jobs
    views = []
    for value in values:
        request = JobRequest(capability=ECHO, input=value, **fields)
        views.append((await jobs.start(request, TESTER)).id)
    return views


async def ended(running, ids):
    return [await running.end(one) for one in ids]


@pytest.fixture
async def late(tmp_path, monkeypatch):
    """A platform whose only worker comes when it is let in; what may travel together does."""

    monkeypatch.setattr("hivemesh_platform.execution.ledger.group_rules.TARGET_S", 600.0)
    opened = []

    async def start(decide=lambda _value: None, **fields):
        one = worker(behaviours={ECHO: picky(decide)}, **fields)
        one.dead = True
        running = core(tmp_path, one)
        found = await running.__aenter__()
        opened.append(running)
        return found, one

    yield start
    for running in opened:
        await running.__aexit__(None, None, None)


def come(running, one):
    one.dead = False
    running.execution.work.give()


async def test_jobs_that_wait_travel_together_and_each_has_its_answer(late):
    running, one = await late(slots=1)
    ids = await submit(running, range(8))
    come(running, one)
    views = await ended(running, ids)
    assert [view.outputs["result"] for view in views] == list(range(8))
    assert len({key for _, key, _ in running.fleet.puts}) < 8
    assert any(key.startswith("group.") for _, key, _ in running.fleet.puts)


async def test_a_problem_is_that_of_the_one_that_has_it(late):
    fatal = problem("step-fatal", "no threes")
    running, one = await late(lambda value: fatal if value == 3 else None, slots=1)
    ids = await submit(running, range(6))
    come(running, one)
    views = await ended(running, ids)
    assert [view.state.value for view in views] == ["completed"] * 3 + ["failed"] + [
        "completed"
    ] * 2
    assert views[3].problem["detail"] == "no threes"


@pytest.mark.parametrize("data", [b"hello", b"[" * 5000 + b"]" * 5000, b'"\xff"'])
async def test_an_answer_that_is_no_value_is_the_problem_of_the_one_that_gave_it(late, data):
    running, one = await late(slots=1)

    def answering(request, inputs):
        if inputs == [b"1"]:
            yield Frame(ResultEvent(no=1, bytes=len(data)), data)
        else:
            yield from caller(lambda value, _options: value)(request, inputs)

    one.behaviours[ECHO] = answering
    ids = await submit(running, range(4))
    come(running, one)
    views = await ended(running, ids)
    assert [view.state.value for view in views] == ["completed", "failed"] + ["completed"] * 2
    assert views[1].problem["type"].endswith("output-invalid")
    assert any(key.startswith("group.") for _, key, _ in running.fleet.puts)


async def test_a_crash_costs_the_one_that_ran_and_the_others_nothing(late):
    crashes = []

    def decide(value):
        if value == 2 and not crashes:
            crashes.append(value)
            return problem("executor-crashed", "signal 11")
        return None

    running, one = await late(decide, slots=1)
    ids = await submit(running, range(6))
    come(running, one)
    await ended(running, ids)
    rows = await running.database.read(lambda tx: tx.all("SELECT run, retries, crashes FROM work"))
    costs = {row["run"]: row["retries"] + row["crashes"] for row in rows}
    assert [costs[one] for one in ids] == [0, 0, 1, 0, 0, 0]


async def test_one_that_failed_is_tried_again_alone(late):
    failed = []

    def decide(value):
        if value == 1 and not failed:
            failed.append(value)
            return problem("step-failed", "at first", retryable=True)
        return None

    running, one = await late(decide, slots=1)
    ids = await submit(running, range(4))
    come(running, one)
    views = await ended(running, ids)
    assert all(view.state.value == "completed" for view in views)
    assert f"{ids[1]}.job.0" in {key for _, key, _ in running.fleet.puts}


async def test_each_of_those_that_travel_together_earns_its_part_of_a_retry(late, monkeypatch):
    began = []
    monkeypatch.setattr(
        RetryBudget, "began", lambda _self, name, _now, count=1: began.extend([name] * count)
    )
    running, one = await late(slots=1)
    ids = await submit(running, range(8))
    come(running, one)
    await ended(running, ids)
    assert any(key.startswith("group.") for _, key, _ in running.fleet.puts)
    assert began == [ECHO] * 8


@pytest.mark.parametrize("slug", ["overloaded", "ticket-expired"])  # by a clock that is ahead
async def test_who_takes_none_of_them_puts_all_back_at_no_cost(late, slug):
    running, one = await late(slots=1)
    running.fleet.refuse.append(problem(slug, retry_after_s=0.01))
    ids = await submit(running, range(5))
    come(running, one)
    await ended(running, ids)
    rows = await running.database.read(lambda tx: tx.all("SELECT retries, crashes FROM work"))
    assert all(row["retries"] == row["crashes"] == 0 for row in rows)


async def test_who_does_not_tell_its_clock_refuses_no_tickets_for_ever(late):
    running, one = await late(slots=1)
    running.placement.without_time.add(one.instance)
    refusals = [problem("ticket-not-yet-valid")]

    def before(kind, _instance, key):
        if kind == "put" and key.startswith("group.") and refusals:
            running.fleet.refuse.append(refusals.pop())

    running.fleet.before = before
    ids = await submit(running, range(5), max_retries=0)
    come(running, one)
    assert "failed" in {view.state for view in await ended(running, ids)}


async def test_a_lost_worker_means_the_first_without_an_answer(late):
    running, one = await late(slots=1)
    one.hang_once.add(ECHO)
    ids = await submit(running, range(5))
    come(running, one)
    await running.until(lambda: any(True for _ in running.execution.held.endpoints()))
    [step] = running.execution.held.at("w1")
    step.end(Verdict.LOST, problem("worker-lost", "gone"))
    await ended(running, ids)
    rows = await running.database.read(
        lambda tx: tx.all("SELECT retries + crashes + suspect AS n FROM work ORDER BY run")
    )
    assert sum(row["n"] > 0 for row in rows) <= 1


async def test_the_ticket_is_that_of_these_jobs_and_no_others(late):
    running, one = await late(slots=1)
    ids = await submit(running, range(3))
    come(running, one)
    await ended(running, ids)
    held = running.execution.held
    await running.until(lambda: held.with_member(f"{ids[0]}.job.0") is None)
    assert isinstance(running.fleet.tickets[0], str)
    assert Ticket.__struct_fields__.count("members") == 1


async def test_every_attempt_is_kept_with_its_worker(late):
    running, one = await late(slots=1)
    ids = await submit(running, range(4))
    come(running, one)
    await ended(running, ids)
    kept = [
        await running.database.read(lambda tx, run=run: store.attempts(tx, run, 0, 10))
        for run in ids
    ]
    assert [row["run"] for (row,) in kept] == ids
    assert all(row["instance"] == "w1" and row["outcome"] == "completed" for (row,) in kept)


async def test_a_cancelled_one_stays_cancelled_and_the_others_end(late):
    running, one = await late(slots=1)
    ids = await submit(running, range(5))
    await running.execution.runs.cancel(ids[2])
    come(running, one)
    views = await ended(running, ids)
    assert [view.state.value for view in views].count("completed") == 4
    assert views[2].state.value == "cancelled"


async def test_jobs_with_other_options_travel_apart(late):
    running, one = await late(slots=4)
    first = await submit(running, range(3), options={"a": 1})
    second = await submit(running, range(3), options={"a": 2})
    come(running, one)
    await asyncio.gather(*(running.end(one) for one in [*first, *second]))
    rows = await running.database.read(
        lambda tx: tx.all("SELECT run, together FROM work ORDER BY run")
    )
    of = {row["run"]: row["together"] for row in rows}
    assert {of[one] for one in first}.isdisjoint({of[one] for one in second})


def test_what_travels_together_has_all_but_its_input_in_common():
    one = JobSpec(input=b"1", options={"a": 1, "b": 2})
    same = JobSpec(input=b"2", options={"b": 2, "a": 1})
    assert together_of(ECHO, one) == together_of(ECHO, same)
    assert together_of("other.x@1", one) != together_of(ECHO, one)
    assert together_of(ECHO, JobSpec(options={"a": 2})) != together_of(ECHO, one)
    assert together_of(ECHO, JobSpec(deadline_ms=5)) != together_of(ECHO, JobSpec())


@pytest.mark.parametrize(("seconds", "most"), [(0.00001, MAX_MEMBERS), (0.005, 50), (3.0, 1)])
def test_a_request_holds_a_quarter_of_a_second_of_work(seconds, most):
    sizes = GroupSizes()
    for _ in range(30):
        sizes.learn(ECHO, 1, seconds)
    assert sizes.most(ECHO) == most


@pytest.mark.parametrize(
    ("seconds", "count", "slots", "requests"),
    [(0.0001, 8, 4, 1), (0.005, 40, 4, 4), (0.1, 4, 4, 2), (0.0001, 5000, 4, 10)],
)
def test_work_is_spread_over_the_slots_where_that_is_worth_it(seconds, count, slots, requests):
    sizes = GroupSizes()
    sizes.learn(ECHO, 1, seconds)
    assert sizes.requests(ECHO, count, slots) >= requests


def test_parts_keep_the_order_and_are_nearly_equal():
    class Row:
        def __init__(self, number):
            self.number, self.spec = number, "{}"

    parts = spread([Row(number) for number in range(10)], 3)
    assert [len(part) for part in parts] == [4, 4, 2]
    assert [one.number for part in parts for one in part] == list(range(10))


async def test_the_worker_is_told_of_one_that_is_cancelled(late):
    running, one = await late(slots=1)
    come(running, one)
    await ended(running, await submit(running, [0]))  # how long one takes is known from here
    one.dead = True
    one.hang_once.add(ECHO)
    ids = await submit(running, range(5))
    come(running, one)
    await running.until(lambda: any(step.members for step in running.execution.held.all()))
    [step] = running.execution.held.at("w1")
    key = list(step.members)[2]
    job = key.split(".")[0]
    await running.execution.runs.cancel(job)
    await running.until(lambda: ("w1", key) in running.fleet.deleted)
    assert not step.verdict.done()
    step.end(Verdict.CANCELLED)
    views = dict(zip(ids, await ended(running, ids), strict=True))
    assert views.pop(job).state == "cancelled"
    assert all(view.state == "completed" for view in views.values())


@pytest.mark.parametrize("broken", [False, True], ids=["answered", "broken"])
async def test_a_request_that_has_gone_to_another_reader_is_not_acknowledged(late, broken):
    """The other one has not read yet what is answered here, before this one has noticed."""

    def take_over(tx):
        tx.execute("UPDATE travel SET replica = 'other', epoch = epoch + 1")
        tx.execute("UPDATE work SET replica = 'other', epoch = epoch + 1 WHERE state = 'running'")

    running, one = await late(slots=1)
    put, moved = running.fleet.put_step, []

    async def put_step(endpoint, key, body, **more):
        page = await put(endpoint, key, body, **more)
        if key.startswith("group."):
            moved.append(key)
            await running.database.write(take_over)
            if broken:
                message = "the connection broke"
                raise UnreachableError(message, sent=True)
        return page

    running.fleet.put_step = put_step
    await submit(running, range(5))
    come(running, one)
    await running.until(lambda: moved and not running.execution.held.all())
    told = {key for _, key, _ in running.fleet.acknowledged}
    told |= {key for _, key in running.fleet.deleted}
    assert not told & set(moved)
    kept = await running.database.read(lambda tx: tx.all("SELECT key FROM travel"))
    assert {row["key"] for row in kept} == set(moved)


async def test_what_was_cancelled_costs_the_others_nothing(late):
    cancelled = [True]

    def decide(value):
        return problem("cancelled") if value == 2 and cancelled and cancelled.pop() else None

    running, one = await late(decide, slots=1)
    ids = await submit(running, range(6))
    come(running, one)
    views = await ended(running, ids)
    assert all(view.state == "completed" for view in views)
    others = "SELECT retries, crashes FROM work WHERE run != ?"  # it may have travelled alone
    rows = await running.database.read(lambda tx: tx.all(others, (ids[2],)))
    assert len(rows) == 5
    assert all(row["retries"] == row["crashes"] == 0 for row in rows)
