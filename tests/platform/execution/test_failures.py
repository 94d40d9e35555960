"""What counts against an input and what does not; attempts that are kept; parts that are cancelled."""

import asyncio
from types import SimpleNamespace

import pytest
from execution_support import FAST, PIPELINE, TESTER, core, numbers, worker
from fake_workers import FakeWorkerFleet, caller, failing, source
from hivemesh_platform.access.model import Principal
from hivemesh_platform.execution.ledger.letter_sql import LetterFilter
from hivemesh_platform.execution.ledger.port import StaleAttemptError
from hivemesh_platform.execution.ledger.row_sql import SqlLedger
from hivemesh_platform.execution.ports import UnreachableError
from hivemesh_platform.execution.runs.service import RunEndedError
from hivemesh_platform.execution.steps import clock_refusals, exchange, parts, reconnecting
from hivemesh_platform.replicas.model import Urls
from hivemesh_platform.replicas.service import Replicas
from hivemesh_sdk.contracts.api import JobRequest, RunState
from hivemesh_sdk.contracts.problems import problem
from hivemesh_sdk.errors import NotFoundError

ADMIN = Principal(id="tester", roles=("admin",), grants=("admin:*",))
ECHO = caller(lambda value, _options: value)


def at_first(times, document, then=ECHO):
    """Ends the first so many executions with a problem."""
    left = iter(range(times))

    def run(request, inputs):
        behaviour = failing(document) if next(left, None) is not None else then
        yield from behaviour(request, inputs)

    return run


async def job(platform, **fields):
    request = JobRequest(capability="test.echo@1", input=1, wait_s=20, **fields)
    return await platform.execution.jobs.start(request, TESTER)


async def attempts(platform, run, node="", seq=-1):
    return await platform.execution.history.attempts(run, node, seq, 0, 100)


async def letters(platform):
    return await platform.execution.letters.page(ADMIN, LetterFilter(), "", 10)


@pytest.mark.parametrize(("slug", "times"), [("draining", 6), ("executor-crashed", 2)])
async def test_what_is_no_retry_does_not_use_them_up(tmp_path, slug, times):
    behaviour = at_first(times, problem(slug))
    async with core(tmp_path, worker(behaviours={"test.echo@1": behaviour})) as platform:
        view = await job(platform, max_retries=0)
        assert view.state is RunState.COMPLETED
        assert len(await attempts(platform, view.id)) == times + 1


@pytest.mark.parametrize("seconds", [1e17, 1e308, float("inf"), float("nan"), -1e300])
async def test_a_worker_that_says_no_length_of_time_is_asked_again(tmp_path, monkeypatch, seconds):
    monkeypatch.setattr(parts, "LONGEST_DELAY_S", 0.01)
    behaviour = at_first(1, problem("step-failed", "soon", retry_after_s=seconds))
    fleet = FakeWorkerFleet(worker(behaviours={"test.echo@1": behaviour}))
    fleet.refuse = [problem("overloaded", retry_after_s=seconds)]
    async with core(tmp_path, fleet) as platform:
        view = await job(platform)
        assert view.state is RunState.COMPLETED
        assert [one.outcome for one in await attempts(platform, view.id)] == ["failed", "completed"]


async def test_a_failure_that_cannot_be_written_ends_its_row(tmp_path, monkeypatch):
    def broken(*_):
        raise OverflowError("too large")

    monkeypatch.setattr(SqlLedger, "retry", broken)
    behaviour = failing(problem("step-failed", "no luck"))
    async with core(tmp_path, worker(behaviours={"test.echo@1": behaviour})) as platform:
        view = await job(platform)
        assert view.state is RunState.FAILED
        assert view.problem["type"].endswith("internal")
        assert len(await attempts(platform, view.id)) == 1


@pytest.mark.parametrize("slug", ["worker-unreachable", "worker-lost", "execution-unknown"])
async def test_a_worker_that_has_lost_one_that_it_asked_is_not_lost_itself(tmp_path, slug):
    behaviour = at_first(2, problem(slug, "the one that was asked"))
    async with core(tmp_path, worker(behaviours={"test.echo@1": behaviour})) as platform:
        view = await job(platform)
        assert view.state is RunState.COMPLETED
        outcomes = [one.outcome for one in await attempts(platform, view.id)]
        assert outcomes == ["failed", "failed", "completed"]


async def test_retries_that_end_without_the_one_that_is_asked_make_a_letter(tmp_path):
    behaviour = at_first(1, problem("worker-unreachable", "the one that was asked"))
    async with core(tmp_path, worker(behaviours={"test.echo@1": behaviour})) as platform:
        view = await job(platform, max_retries=0)
        assert view.state is RunState.FAILED
        [letter] = await letters(platform)
        assert letter.row["cause"] == "retries"


@pytest.mark.parametrize(
    "slug",
    ["draining", "overloaded", "overloaded-server", "ticket-expired", "ticket-not-yet-valid"],
)
async def test_a_refusal_before_the_work_begins_counts_as_nothing(tmp_path, monkeypatch, slug):
    monkeypatch.setattr(clock_refusals, "FIRST_S", 0.001)
    fleet = FakeWorkerFleet(worker())
    fleet.refuse = [problem(slug, retry_after_s=0.01) for _ in range(6)]
    async with core(tmp_path, fleet) as platform:
        view = await job(platform, max_retries=0)
        assert view.state is RunState.COMPLETED
        assert len(await attempts(platform, view.id)) == 1


@pytest.mark.parametrize("slug", ["ticket-expired", "ticket-not-yet-valid"])
async def test_who_does_not_tell_its_clock_refuses_no_ticket_for_ever(tmp_path, slug):
    fleet = FakeWorkerFleet(worker())
    fleet.refuse = [problem(slug) for _ in range(100)]
    async with core(tmp_path, fleet) as platform:
        platform.placement.without_time.add("w1")
        view = await job(platform, max_retries=0)
        assert view.state is RunState.FAILED
        assert len(fleet.refuse) == 99


async def test_what_is_refused_for_our_clock_waits_twice_as_long_each_time(tmp_path, monkeypatch):
    """It may be ours: the worker tells the right time to another replica."""
    monkeypatch.setattr(clock_refusals, "FIRST_S", 0.001)
    put_back = []
    release = SqlLedger.release

    def note(ledger, tx, key, fence, reason, not_before, **more):
        put_back.append((not_before, reason))
        release(ledger, tx, key, fence, reason, 0, **more)

    monkeypatch.setattr(SqlLedger, "release", note)
    fleet = FakeWorkerFleet(worker())
    fleet.refuse = [problem("ticket-not-yet-valid", "it begins in 600 s") for _ in range(20)]
    async with core(tmp_path, fleet) as platform:
        view = await job(platform, max_retries=0)
        assert view.state is RunState.COMPLETED
    assert {reason for _, reason in put_back} == {"w1 refused its ticket: it begins in 600 s"}
    assert len(put_back) == 20
    assert put_back[-1][0] - put_back[0][0] >= 1000  # ms: it was a thousand times as long


async def test_what_could_not_even_be_sent_counts_as_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(reconnecting, "RECONNECT_S", 0.01)
    fleet = FakeWorkerFleet(worker())
    left = iter(range(4 * 5))  # five times every reconnect

    def before(kind, _instance, _key):
        if kind == "put" and next(left, None) is not None:
            raise UnreachableError("refused", sent=False)

    fleet.before = before
    async with core(tmp_path, fleet) as platform:
        request = JobRequest(capability="test.echo@1", input=1, max_retries=0)
        view = await platform.execution.jobs.start(request, TESTER)
        ended = await platform.end(view.id, timeout_s=60)
        assert ended.state is RunState.COMPLETED
        assert await letters(platform) == []


async def test_four_attempts_and_their_gaps_are_kept(tmp_path):
    broken = worker(behaviours={"test.echo@1": failing(problem("step-failed", "no luck"))})
    async with core(tmp_path, broken) as platform:
        view = await job(platform)
        assert view.state is RunState.FAILED
        found = await attempts(platform, view.id)
        assert [one.attempt for one in found] == [1, 2, 3, 4]
        assert {one.outcome for one in found} == {"failed"}
        assert {one.problem["detail"] for one in found} == {"no luck"}
        assert found[0].gap_s is None
        for number, one in enumerate(found[1:]):
            assert one.gap_s >= 0.005 * 2**number - 0.002  # half of 10, 20, 40 ms
        [letter] = await letters(platform)
        assert (letter.row["cause"], letter.row["attempts"]) == ("retries", 4)


async def test_a_job_asks_for_its_own_retries_and_deadline(tmp_path):
    slow = worker()
    slow.hang_once = {"test.echo@1"}
    async with core(tmp_path, slow) as platform:
        view = await job(platform, deadline_s=0.2, max_retries=0)
        assert view.state is RunState.FAILED
        assert view.problem["type"].endswith(":deadline-exceeded")


async def test_a_worker_that_asks_for_a_longer_wait_gets_it(tmp_path):
    asked = problem("step-failed", retry_after_s=0.3)
    behaviour = at_first(1, asked)
    async with core(tmp_path, worker(behaviours={"test.echo@1": behaviour})) as platform:
        view = await job(platform)
        assert view.state is RunState.COMPLETED
        assert (await attempts(platform, view.id))[1].gap_s >= 0.29


async def test_losses_of_others_do_not_crowd_out_those_that_may_be_seen(tmp_path, monkeypatch):
    monkeypatch.setattr("hivemesh_platform.execution.runs.history.SCANNED", 2)
    async with core(tmp_path, worker()) as platform:
        view = await job(platform)
        others = [await job(platform) for _ in range(5)]

        def lose(tx):
            tx.execute("UPDATE attempt SET outcome = 'lost'")
            for number, one in enumerate(others, 1):
                tx.execute("UPDATE work SET submitter = 'other' WHERE run = ?", (one.id,))
                later = "UPDATE attempt SET started_at = started_at + ? WHERE run = ?"
                tx.execute(later, (1000 * number, one.id))

        await platform.database.write(lose)
        mine = Principal(id="tester", grants=("run:capability",))
        for limit in (1, 2, 3):
            found = await platform.execution.history.lost(mine, since=0, ended=True, limit=limit)
            assert [one.key.split(".")[0] for one in found] == [view.id]


async def test_lost_steps_are_listed_with_what_became_of_them(tmp_path):
    fleet = FakeWorkerFleet(worker("w1"), worker("w2"))
    stopped = fleet.workers["w1"]

    def before(kind, instance, _key):
        if kind == "put" and instance == "w1":
            stopped.stopped = stopped.stopped or asyncio.Event()

    fleet.before = before
    async with core(tmp_path, fleet) as platform:
        view = await job(platform)
        assert view.state is RunState.COMPLETED
        history = platform.execution.history
        assert await history.lost(ADMIN, since=0, ended=False, limit=10) == []
        [found] = await history.lost(ADMIN, since=0, ended=True, limit=10)
        assert (found.instance, found.state, found.now_attempt) == ("w1", "completed", 2)
        assert found.elapsed_s > 0
        stranger = Principal(id="x", grants=("read:run/another",))
        assert await history.lost(stranger, since=0, ended=True, limit=10) == []
        stopped.stopped.set()


async def revive(platform, dead):
    """Replace the worker, as a supervisor does, whenever all of its steps are lost."""
    while True:
        await asyncio.sleep(0.01)
        if dead.stopped is not None and not len(platform.execution.held):
            dead.stopped.set()
            dead.stopped = None
            dead.restart()
            platform.placement.changed()


async def test_of_those_that_were_lost_together_only_the_cause_is_given_up(tmp_path):
    """One job takes its worker down with it; those that ran beside it are placed again."""
    victim, poison = worker("w1", slots=4), []
    fleet = FakeWorkerFleet(victim)

    def before(kind, _instance, key):
        held = platform.execution.held.find(key)
        named = {key, *map(str, getattr(held, "members", ()))}
        if kind == "put" and named.intersection(poison):
            victim.stopped = victim.stopped or asyncio.Event()

    fleet.before = before
    victim.dead = True  # until all of them wait
    async with core(tmp_path, fleet) as platform:
        start = platform.execution.jobs.start
        request = JobRequest(capability="test.echo@1", input=0)
        first, *others = [await start(request, TESTER) for _ in range(13)]
        poison.append(f"{first.id}.job.0")
        victim.dead = False
        platform.placement.changed()
        reviving = asyncio.create_task(revive(platform, victim))
        assert (await platform.end(first.id, timeout_s=60)).state is RunState.FAILED
        ends = [await platform.end(one.id, timeout_s=60) for one in others]
        reviving.cancel()
        assert {one.state for one in ends} == {RunState.COMPLETED}
        assert [one.row["run"] for one in await letters(platform)] == [first.id]
        assert max([len(await attempts(platform, one.id)) for one in others]) == 2


def hanging(steps, **more):
    """A worker whose next steps of some kinds never answer."""
    found = worker(**more)
    found.hang_once = set(steps)
    return found


TWO_MAPS = {
    **PIPELINE,
    "steps": {
        "read": {"use": "test.read@1", "with": {}},
        "slow": {"use": "test.double@1", "map": "read"},
        "sum": {"use": "test.sum@1", "reduce": "read"},
    },
    "outputs": {"total": "sum.sum"},
}


async def test_a_cancelled_step_leaves_the_other_branch_alone(tmp_path):
    fleet = FakeWorkerFleet(hanging(["test.double@1"], slots=2))
    async with core(tmp_path, fleet) as platform:
        run = await platform.start(TWO_MAPS)
        await platform.until(lambda: any(".slow." in key for _, key, _ in fleet.puts))
        await platform.execution.cancels.cancel(run, "slow", None)
        view = await platform.end(run)
        states = {node.name: node.state for node in view.nodes}
        assert states == {"read": "completed", "slow": "cancelled", "sum": "completed"}
        await platform.until(lambda: ("w1", f"{run}.slow.1") in fleet.deleted)
        with pytest.raises(RunEndedError):
            await platform.execution.cancels.cancel(run, "slow", None)


async def test_a_cancelled_batch_is_left_out_and_the_others_go_on(tmp_path):
    fleet = FakeWorkerFleet(
        hanging(["test.double@1"], behaviours={"test.read@1": source(numbers(40), batch=10)})
    )
    async with core(tmp_path, fleet) as platform:
        run = await platform.start()
        hung = lambda: [key for _, key, _ in fleet.puts if ".double." in key]  # noqa: E731 - said twice
        await platform.until(hung)
        seq = int(hung()[0].rpartition(".")[2])
        await platform.execution.cancels.cancel(run, "double", seq)
        view = await platform.end(run)
        assert view.state is RunState.PARTIAL
        left = [2 * n for n in range(40) if n // 10 != seq - 1]
        assert [one["n"] for one in await platform.records(run)] == left
        assert await letters(platform) == []
        await platform.until(lambda: ("w1", f"{run}.double.{seq}") in fleet.deleted)
        assert [one.outcome for one in await attempts(platform, run, "double", seq)] == [
            "cancelled"
        ]


async def test_what_is_not_there_cannot_be_cancelled(tmp_path):
    async with core(tmp_path, hanging(["test.read@1"])) as platform:
        run = await platform.start()
        with pytest.raises(NotFoundError):
            await platform.execution.cancels.cancel(run, "nothing", None)
        with pytest.raises(RunEndedError):
            await platform.execution.cancels.cancel(run, "double", 7)
        await platform.execution.runs.cancel(run)


async def test_a_retry_waits_for_its_budget(tmp_path):
    """Eight rows fail at once, and one retry a second is free."""
    budget = FAST.retry.model_copy(update={"budget_per_s": 1.0, "budget_ratio": 0.0})
    tight = FAST.model_copy(update={"retry": budget})
    broken = worker(behaviours={"test.echo@1": failing(problem("step-failed"))}, slots=8)
    async with core(tmp_path, broken, settings=tight) as platform:
        request = JobRequest(capability="test.echo@1", input=1, max_retries=1)
        views = [await platform.execution.jobs.start(request, TESTER) for _ in range(8)]
        gaps = []
        for view in views:
            await platform.end(view.id, timeout_s=60)
            gaps.append((await attempts(platform, view.id))[1].gap_s)
        assert min(gaps) < 1.0
        assert max(gaps) >= 3.0


async def test_a_worker_hears_that_an_answer_was_recorded_and_not_before(tmp_path, monkeypatch):
    order = []
    recorded = SqlLedger.finish

    def finish(ledger, tx, key, *rest):
        effects = recorded(ledger, tx, key, *rest)
        order.append(("recorded", str(key)))
        return effects

    monkeypatch.setattr(SqlLedger, "finish", finish)
    fleet = FakeWorkerFleet(worker())
    told = fleet.acknowledge

    def acknowledge(endpoint, key, attempt):
        order.append(("told", key))
        told(endpoint, key, attempt)

    fleet.acknowledge = acknowledge
    async with core(tmp_path, fleet) as platform:
        key = f"{(await job(platform)).id}.job.0"
        await platform.until(lambda: fleet.acknowledged == [("w1", key, 1)])
        assert order == [("recorded", key), ("told", key)]
        assert (fleet.workers["w1"].executions, fleet.deleted) == ({}, [])


@pytest.mark.parametrize("nothing_follows", [False, True])
async def test_the_answer_to_a_batch_is_forgotten_where_no_request_acknowledges_it(
    tmp_path, nothing_follows
):
    fleet = FakeWorkerFleet(worker(records=10))
    fleet.nothing_follows = nothing_follows
    async with core(tmp_path, fleet) as platform:
        run = await platform.start()
        await platform.end(run)
        key = ("w1", f"{run}.double.1")
        assert (*key, 1) in fleet.acknowledged
        await platform.until(lambda: (key in fleet.deleted) is nothing_follows)


async def test_where_a_long_attempt_runs_is_shown_while_it_runs(tmp_path):
    fleet = FakeWorkerFleet(hanging(["test.double@1"]))
    async with core(tmp_path, fleet) as platform:
        run = await platform.start(TWO_MAPS)
        async with asyncio.timeout(60):
            while True:
                found = await attempts(platform, run, "slow")
                if any(one.outcome == "" for one in found):
                    break
                await asyncio.sleep(0.01)
        assert {one.instance for one in found} == {"w1"}


@pytest.mark.parametrize("others", [[], [SimpleNamespace(urls=Urls())]])
async def test_where_an_attempt_runs_is_written_at_once_where_others_are_asked_about_it(
    tmp_path, monkeypatch, others
):
    order = []

    def noting(name):
        kept = getattr(SqlLedger, name)

        def note(ledger, tx, key, *rest):
            order.append(name)
            return kept(ledger, tx, key, *rest)

        monkeypatch.setattr(SqlLedger, name, note)

    noting("placed")
    noting("finish")
    monkeypatch.setattr(exchange, "PLACED_AFTER_S", 60.0)
    async with core(tmp_path, worker()) as platform:
        monkeypatch.setattr(Replicas, "others", others)
        view = await job(platform)
        assert view.state is RunState.COMPLETED
        assert [one.instance for one in await attempts(platform, view.id)] == ["w1"]
    assert order == (["placed", "finish"] if others else ["finish"])


async def test_an_attempt_whose_end_is_not_written_is_in_the_history(tmp_path, monkeypatch):
    finish = SqlLedger.finish
    broken = iter([OSError("no answer to the commit")])

    def finish_later(ledger, tx, key, *rest):
        for error in broken:
            raise error
        return finish(ledger, tx, key, *rest)

    monkeypatch.setattr(SqlLedger, "finish", finish_later)
    monkeypatch.setattr(exchange, "PLACED_AFTER_S", 60.0)
    async with core(tmp_path, worker()) as platform:
        view = await job(platform)
        assert view.state is RunState.COMPLETED
        found = await attempts(platform, view.id)
        assert [(one.instance, one.outcome) for one in found] == [
            ("w1", "failed"),
            ("w1", "completed"),
        ]


async def test_a_failed_attempt_that_is_tried_again_is_acknowledged(tmp_path):
    behaviour = at_first(2, problem("step-failed"))
    fleet = FakeWorkerFleet(worker(behaviours={"test.echo@1": behaviour}))
    async with core(tmp_path, fleet) as platform:
        key = f"{(await job(platform)).id}.job.0"
        await platform.until(lambda: len(fleet.acknowledged) == 3)
        assert fleet.acknowledged == [("w1", key, attempt) for attempt in (1, 2, 3)]


async def test_an_answer_that_counts_no_more_is_not_acknowledged(tmp_path, monkeypatch):
    def superseded(_ledger, _tx, key, *_rest):
        raise StaleAttemptError(str(key))

    fleet = FakeWorkerFleet(worker())
    async with core(tmp_path, fleet) as platform:
        monkeypatch.setattr(SqlLedger, "finish", superseded)
        request = JobRequest(capability="test.echo@1", input=1)
        view = await platform.execution.jobs.start(request, TESTER)
        await platform.until(lambda: ("w1", f"{view.id}.job.0") in fleet.deleted)
        assert fleet.acknowledged == []
