"""What travels together is never left held, never travels on another's right, and kills no fleet."""

import asyncio
from types import SimpleNamespace

import pytest
from execution_support import TESTER, core, worker
from fake_workers import FakeWorkerFleet, Frame, ProblemEvent, caller
from hivemesh_platform.execution.behalf import Behalf
from hivemesh_platform.execution.held import HeldSteps, Verdict
from hivemesh_platform.execution.jobs import batches as job_batches
from hivemesh_platform.execution.jobs.batches import read_inputs
from hivemesh_platform.execution.ledger.counters import ExecutionCounters
from hivemesh_platform.execution.ledger.group_rules import GroupSizes
from hivemesh_platform.execution.losses.elsewhere import StepsElsewhere
from hivemesh_platform.execution.plans.spec import is_intact
from hivemesh_platform.execution.ports import NoCandidate, Outcome, UnreachableError
from hivemesh_platform.storage.errors import StorageFullError
from hivemesh_sdk.clock import SystemClock
from hivemesh_sdk.contracts.api import BatchRequest, JobRequest
from hivemesh_sdk.contracts.artifacts import DataClass
from hivemesh_sdk.contracts.problems import problem
from hivemesh_sdk.errors import InvalidError

ECHO = "test.echo@1"


@pytest.fixture(autouse=True)
def _together_on_a_slow_machine_too(monkeypatch):
    monkeypatch.setattr("hivemesh_platform.execution.ledger.group_rules.TARGET_S", 600.0)


async def submit(running, values, **fields):
    jobs = running.execution.jobs
    return [
        (await jobs.start(JobRequest(capability=ECHO, input=one, **fields), TESTER)).id
        for one in values
    ]


def let_in(running, one):
    one.dead = False
    running.execution.work.give()


async def learn_how_long_one_takes(running, one):
    """Run a first job, so that the next ones travel together; the worker is away afterwards."""
    let_in(running, one)
    await running.end((await submit(running, [0]))[0])
    one.dead = True


async def of_rows(running, *columns):
    rows = await running.database.read(lambda tx: tx.all("SELECT * FROM work ORDER BY run"))
    return [tuple(row[column] for column in columns) for row in rows]


@pytest.mark.parametrize("count", [1, 5])
async def test_a_disk_that_is_full_when_rows_are_put_back_leaves_none_held(
    tmp_path, monkeypatch, count
):
    monkeypatch.setattr("hivemesh_platform.execution.steps.parts.FULL_S", 0.01)
    one = worker(slots=1)
    one.dead = True
    async with core(tmp_path, one) as running:
        ids = await submit(running, range(count))
        ledger, choose = running.execution.jobs._parts.ledger, running.placement.choose
        full, gone = [1, 1], [1]

        def choose_later(requirement):
            return NoCandidate("gone this moment") if gone and gone.pop() else choose(requirement)

        def failing_once(method):
            def call(*args, **fields):
                if full:
                    full.pop()
                    message = "no space"
                    raise StorageFullError(message)
                return method(*args, **fields)

            return call

        running.placement.choose = choose_later
        ledger.unclaim = failing_once(ledger.unclaim)
        let_in(running, one)
        views = [await running.end(job) for job in ids]
        assert all(view.state == "completed" for view in views)
        assert not full


async def test_a_job_retried_by_somebody_with_less_right_travels_apart_from_its_peers(tmp_path):
    broken = [True]

    def run(request, inputs):
        if inputs[0] == b'"bad"' and broken:
            yield Frame(ProblemEvent(no=1, problem=problem("step-fatal", "no")))
        else:
            yield from caller(lambda value, _options: value)(request, inputs)

    one = worker(behaviours={ECHO: run}, slots=1)
    async with core(tmp_path, one) as running:
        [bad] = await submit(running, ["bad"])
        await running.end(bad)
        broken.clear()
        one.dead = True
        [good] = await submit(running, ["good"])
        lesser = Behalf(sub="lesser", roles=("viewer",), grants=("run:capability/*",))
        await running.execution.again.retry_job(bad, lesser)
        together = dict(await of_rows(running, "run", "together"))
        assert together[bad] != together[good]
        sent = len(running.fleet.puts)
        let_in(running, one)
        await running.end(bad)
        await running.end(good)
        keys = {key for _, key, _ in running.fleet.puts[sent:]}
        assert keys == {f"{bad}.job.0", f"{good}.job.0"}


async def test_options_are_not_multiplied_without_bound(tmp_path):
    async with core(tmp_path, worker()) as running:
        body = BatchRequest(capability=ECHO, options={"text": "x" * 200_000})
        inputs = await read_inputs([b"1"] * (job_batches.MAX_BYTES // 200_000 + 1))
        with pytest.raises(InvalidError, match="send fewer lines"):
            await running.execution.batches.start(body, inputs, TESTER, "")
        assert await of_rows(running, "run") == []


async def test_a_request_that_kills_its_worker_is_blamed_and_its_members_part(tmp_path):
    one = worker(slots=1)
    one.dead = True
    up, killed = [True], []
    async with core(tmp_path, one) as running:
        ids = await submit(running, range(6))

        def before(kind, _instance, key):
            if not up:
                message = "connection refused"
                raise UnreachableError(message, sent=False)
            if kind == "put" and key.startswith("group.") and not killed:
                killed.append(key)
                up.clear()
                message = "connection reset"
                raise UnreachableError(message, sent=True)

        running.fleet.before = before
        one.dead = False
        running.execution.work.give()
        for job in ids:
            done = asyncio.create_task(running.end(job))
            while not done.done():
                await running.until(
                    lambda done=done: done.done() or not len(running.execution.held)
                )
                if not done.done():  # nothing is held: a request that was killed has ended
                    up.append(True)
                running.execution.work.give()
                await asyncio.sleep(0)
            assert done.result().state == "completed"
        assert len(killed) == 1
        assert sum(crashes for (crashes,) in await of_rows(running, "crashes")) == 1


async def test_what_a_batch_keeps_of_a_job_has_a_checksum(tmp_path):
    one = worker()
    one.dead = True
    async with core(tmp_path, one) as running:
        inputs = await read_inputs([b"1234", b"5678"])
        await running.execution.batches.start(BatchRequest(capability=ECHO), inputs, TESTER, "")
        for (spec,) in await of_rows(running, "spec"):
            assert is_intact(spec)
            assert not is_intact(spec.replace("1234", "1235").replace("5678", "5679"))


async def test_a_platform_that_comes_back_goes_on_with_what_travels(tmp_path):
    ran = []

    def run(request, inputs):
        ran.append(inputs[0])
        yield from caller(lambda value, _options: value)(request, inputs)

    one = worker(behaviours={ECHO: run}, slots=1)
    fleet = FakeWorkerFleet(one, page_events=2)
    one.dead = True
    async with core(tmp_path, fleet) as running:
        await learn_how_long_one_takes(running, one)
        ids = await submit(running, range(6))
        asked = asyncio.Event()

        async def nothing_more(_endpoint, _key, _place, **_fields):
            asked.set()
            await asyncio.Event().wait()

        get_events, fleet.get_events = fleet.get_events, nothing_more
        let_in(running, one)
        await asyncio.wait_for(asked.wait(), 30)
    fleet.get_events = get_events
    ran_before, puts = len(ran), len(fleet.puts)
    async with core(tmp_path, fleet) as running:
        views = [await running.end(job) for job in ids]
        assert all(view.state == "completed" for view in views)
        assert ran_before < len(ran) == 1 + len(ids)
        assert len(fleet.puts) == puts
        await running.until(lambda: not len(running.execution.held))
        assert await running.database.read(lambda tx: tx.all("SELECT * FROM travel")) == []


async def test_what_its_worker_does_not_know_any_more_is_queued_again_at_no_cost(tmp_path):
    one = worker(slots=1)
    fleet = FakeWorkerFleet(one, page_events=2)
    one.dead = True
    async with core(tmp_path, fleet) as running:
        await learn_how_long_one_takes(running, one)
        one.hang_once.add(ECHO)
        ids = await submit(running, range(6))
        let_in(running, one)
        await running.until(lambda: any(key.startswith("group.") for _, key, _ in fleet.puts))
    async with core(tmp_path, fleet) as running:
        views = [await running.end(job) for job in ids]
        assert all(view.state == "completed" for view in views)
        assert set(await of_rows(running, "retries", "crashes")) == {(0, 0)}


@pytest.mark.parametrize(
    ("verdict", "told"), [(Verdict.CANCELLED, True), (Verdict.MOVED, False), (None, False)]
)
async def test_a_worker_ends_what_nobody_wants_and_keeps_what_another_reader_wants(
    tmp_path, verdict, told
):
    """A request whose answers were recorded is acknowledged, and no other."""
    one = worker(slots=1)
    fleet = FakeWorkerFleet(one, page_events=2)
    one.dead = True
    async with core(tmp_path, fleet) as running:
        await learn_how_long_one_takes(running, one)
        ids = await submit(running, range(6))
        asked, go_on, get_events = asyncio.Event(), asyncio.Event(), fleet.get_events

        async def late(endpoint, key, place, **fields):
            asked.set()
            await go_on.wait()
            return await get_events(endpoint, key, place, **fields)

        fleet.get_events = late
        let_in(running, one)
        await asyncio.wait_for(asked.wait(), 30)
        [step] = running.execution.held.all()
        reported, report = {}, running.placement.report

        def reporting(choice, outcome, seconds, **fields):
            reported.setdefault(choice.number, outcome)
            report(choice, outcome, seconds, **fields)

        running.placement.report = reporting
        key = str(step.claim.key)
        if verdict is not None:
            step.end(verdict)
            await running.until(lambda: reported)
        go_on.set()
        for job in ids:
            await running.end(job)
        await running.until(lambda: not len(running.execution.held))
        await running.until(lambda: (("w1", key) in fleet.deleted) is told)
        assert (("w1", key, 1) in fleet.acknowledged) is (verdict is None)
        ended = Outcome.COMPLETED if verdict is None else Outcome.CANCELLED
        assert next(iter(reported.values())) is ended


async def test_another_replica_knows_who_holds_what_travels(tmp_path):
    one = worker(slots=1)
    fleet = FakeWorkerFleet(one, page_events=2)
    one.dead = True
    async with core(tmp_path, fleet) as running:
        await learn_how_long_one_takes(running, one)
        one.hang_once.add(ECHO)
        await submit(running, range(6))
        let_in(running, one)
        await running.until(lambda: any(key.startswith("group.") for _, key, _ in fleet.puts))
        [step] = running.execution.held.all()
        here = SimpleNamespace(
            database=running.database,
            clock=SystemClock(),
            tickets=SimpleNamespace(clearance=lambda _capability: DataClass.INTERNAL),
        )
        other = HeldSteps(ExecutionCounters())
        other.follow(StepsElsewhere(here, None).look_up)
        member, claim = next(iter(step.members.items()))
        await other.look_up(member)
        found = other.with_member(member)
        assert found is not None
        assert other.find(str(step.claim.key)) is found
        assert found.claim.key == step.claim.key
        assert found.endpoint.identity == step.endpoint.identity
        assert found.members[member].fence.attempt == claim.fence.attempt
        assert other.holding(member).run == claim.key.run


async def test_how_long_a_failure_takes_says_nothing_of_how_many_may_travel(tmp_path, monkeypatch):
    def run(request, inputs):
        if inputs[0] == b'"bad"':
            yield Frame(ProblemEvent(no=1, problem=problem("step-fatal", "no")))
        else:
            yield from caller(lambda value, _options: value)(request, inputs)

    one = worker(behaviours={ECHO: run}, slots=1)
    learnt = []
    monkeypatch.setattr(GroupSizes, "learn", lambda _self, *what: learnt.append(what))
    async with core(tmp_path, one) as running:
        await running.end((await submit(running, ["bad"]))[0])
        assert learnt == []
        await running.end((await submit(running, ["good"]))[0])
        await running.until(lambda: learnt)
