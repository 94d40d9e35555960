"""Jobs as one thing: found by their labels, listed, cancelled and retried by their batch."""

import asyncio
import json

import pytest
from execution_support import TESTER, core, worker
from fake_workers import FakeCatalogue, Frame, ProblemEvent, caller, capability
from hivemesh_platform.access.model import Principal
from hivemesh_platform.execution.jobs.batches import ends_of, read_inputs
from hivemesh_platform.execution.ledger.again_sql import NothingToRetryError
from hivemesh_platform.execution.ledger.group_rules import together_of
from hivemesh_platform.execution.ledger.retention_sql import remove_jobs
from hivemesh_platform.execution.plans.spec import JobSpec
from hivemesh_platform.execution.runs.service import RunEndedError
from hivemesh_platform.execution.runs.subjects import ALL, Filters
from hivemesh_sdk.contracts.api import BatchRequest, JobRequest, RunState
from hivemesh_sdk.contracts.problems import problem
from hivemesh_sdk.errors import InvalidError, NotFoundError
from pydantic import ValidationError

ECHO = "test.echo@1"
OWNER = Principal(id=TESTER.sub, roles=("admin",), grants=("admin:*",))
STRANGER = Principal(id="stranger", grants=("run:capability/other@1",))


class Picky:
    """Answers its input; refuses even numbers while it is in the mood."""

    def __init__(self):
        self.mood = True

    def __call__(self, request, inputs):
        if self.mood and json.loads(inputs[0]) % 2 == 0:
            yield Frame(ProblemEvent(no=1, problem=problem("step-fatal")))
        else:
            yield from caller(lambda value, _options: value)(request, inputs)


@pytest.fixture
async def running(tmp_path):
    """A platform whose only worker comes when `open` is called."""
    picky = Picky()
    one = worker(behaviours={ECHO: picky})
    one.dead = True
    async with core(tmp_path, one) as found:
        found.picky, found.worker = picky, one
        yield found


async def batch_of(running, count, **fields):
    inputs = await read_inputs([str(n).encode() for n in range(1, count + 1)])
    request = BatchRequest(capability=ECHO, **fields)
    return await running.execution.batches.start(request, inputs, TESTER, "")


async def job_of(running, value=1, **fields):
    request = JobRequest(capability=ECHO, input=value, **fields)
    return (await running.execution.jobs.start(request, TESTER)).id


async def listed(running, who=OWNER, **filters):
    found = await running.execution.runs.page("", 50, who, Filters(kind="capability", **filters))
    return [one.id for one in found]


async def batches(running, who=OWNER, before="", filters=ALL):
    found = await running.execution.batches.page(before, 50, who, filters)
    return [one.id for one in found]


async def all_ended(running, batch):
    """Let the worker come, and say how the jobs ended."""
    running.worker.dead = False
    running.execution.work.give()
    view = await running.execution.batches.get(batch)
    for number in range(1, view.count + 1):
        await running.end(f"{ends_of(batch).first}{number:06d}")
    return (await running.execution.batches.get(batch)).states


async def test_a_job_is_found_by_a_label_and_shows_it(running):
    mine = await job_of(running, labels={"team": "a", "stage": "test"})
    await job_of(running, labels={"team": "b"})
    await job_of(running)
    assert await listed(running, label="team", label_value="a") == [mine]
    assert (await running.execution.runs.get(mine)).labels == {"team": "a", "stage": "test"}


async def test_a_label_has_a_name(running):
    for name in ("", "a=b", "a b", "n" * 101):
        with pytest.raises(ValidationError):
            JobRequest(capability=ECHO, labels={name: "x"})


async def test_labels_keep_no_jobs_from_travelling_together():
    spec = JobSpec(tags={"customer": "1"})
    assert together_of(ECHO, spec) == together_of(ECHO, JobSpec())
    assert together_of(ECHO, JobSpec(labels={"gpu": "true"})) != together_of(ECHO, JobSpec())


async def test_a_job_is_placed_where_the_labels_are_that_it_requires(running, monkeypatch):
    asked = []
    choose = running.placement.choose
    monkeypatch.setattr(
        running.placement, "choose", lambda wanted: asked.append(wanted) or choose(wanted)
    )
    job = await job_of(running, requires={"gpu": "true"})
    running.worker.dead = False
    running.execution.work.give()
    await running.end(job)
    assert asked[-1].labels == {"gpu": "true"}


async def test_labels_go_with_their_job(running):
    batch = await batch_of(running, 3, labels={"team": "a"})
    await all_ended(running, batch.id)
    ids = await listed(running, label="team", label_value="a")
    assert len(ids) == 3
    settled = "UPDATE dead_letter SET state = 'discarded'"  # an open one keeps its job
    await running.database.write(lambda tx: tx.execute(settled))
    for _ in range(2):  # the first job goes behind the others
        await running.database.write(lambda tx: remove_jobs(tx, ids, 1 << 62))
    left = await running.database.read(lambda tx: tx.all("SELECT * FROM run_label"))
    assert left == []


async def test_a_list_by_state_has_what_is_shown_in_that_state(running):
    job = await job_of(running)
    view, version = None, 0
    while view is None or view.state is not RunState.WAITING:
        version, view = await running.execution.runs.changes(job, version, 5)
    assert await listed(running, state="waiting") == [job]
    assert await listed(running, state="queued") == []


async def test_each_input_of_a_batch_fits_the_capability_or_none_is_accepted(tmp_path):
    strict = capability(ECHO, "call", input={"type": "object", "required": ["n"]})
    async with core(tmp_path, worker(), catalogue=FakeCatalogue(strict)) as running:
        request = BatchRequest(capability=ECHO)
        good, bad = b'{"n":1}', b'{"m":1}'
        with pytest.raises(InvalidError) as refused:
            await running.execution.batches.start(
                request, await read_inputs([good, bad, good]), TESTER, ""
            )
        assert [one.pointer for one in refused.value.errors] == ["/inputs/1"]
        assert await batches(running) == []
        batch = await running.execution.batches.start(
            request, await read_inputs([good, good]), TESTER, ""
        )
        assert batch.count == 2


async def test_batches_are_listed_newest_first_with_how_many_are_open(running):
    first = await batch_of(running, 3, labels={"team": "a"})
    await job_of(running)
    second = await batch_of(running, 12)
    assert await batches(running) == [second.id, first.id]
    assert await batches(running, before=second.id) == [first.id]
    assert await batches(running, filters=Filters(label="team", label_value="a")) == [first.id]
    assert await batches(running, STRANGER) == []
    [view, _] = await running.execution.batches.page("", 50, OWNER, ALL)
    assert (view.count, view.open, view.submitter) == (12, 12, TESTER.sub)
    [view] = await running.execution.batches.page(second.id, 50, OWNER, ALL)
    assert (view.labels, view.capability) == ({"team": "a"}, ECHO)


async def test_the_jobs_of_a_batch_are_listed_by_it(running):
    batch = await batch_of(running, 3)
    await batch_of(running, 2)
    ends = ends_of(batch.id)
    found = await listed(running, batch=(ends.first, ends.last))
    assert found == [f"{ends.first}{n:06d}" for n in (3, 2, 1)]
    assert (await running.execution.runs.get(found[0])).batch == batch.id


async def test_a_batch_is_cancelled_as_one(running):
    batch = await batch_of(running, 5)
    other = await batch_of(running, 2)
    view = await running.execution.batches.cancel(batch.id)
    assert (view.states, view.open) == ({"cancelled": 5}, 0)
    assert (await running.execution.batches.get(other.id)).open == 2
    with pytest.raises(RunEndedError):
        await running.execution.batches.cancel(batch.id)


async def test_what_has_ended_of_a_cancelled_batch_stays_as_it_is(running):
    batch = await batch_of(running, 4)
    await running.execution.runs.cancel(batch.first)
    view = await running.execution.batches.cancel(batch.id)
    assert view.states == {"cancelled": 4}
    with pytest.raises(NotFoundError):
        await running.execution.batches.cancel("batch_" + "0" * 32)


async def test_only_what_has_failed_of_a_batch_is_retried(running):
    batch = await batch_of(running, 6)
    await running.execution.runs.cancel(batch.first)
    assert await all_ended(running, batch.id) == {"cancelled": 1, "completed": 2, "failed": 3}
    running.picky.mood = False
    await running.execution.batches.retry(batch.id, {"failed"}, TESTER)
    assert await all_ended(running, batch.id) == {"cancelled": 1, "completed": 5}
    with pytest.raises(NothingToRetryError):
        await running.execution.batches.retry(batch.id, {"failed"}, TESTER)
    await running.execution.batches.retry(batch.id, {"failed", "cancelled"}, TESTER)
    assert await all_ended(running, batch.id) == {"completed": 6}


async def test_what_nobody_takes_says_why_and_counts_no_attempt(running):
    job = await job_of(running)
    runs = running.execution.runs
    version, view = await runs.changes(job, 0, 0.0)
    async with asyncio.timeout(60):
        while view.state is not RunState.WAITING:
            version, view = await runs.changes(job, version, 0.05)
    assert (view.nodes[0].attempts, view.started_at) == (0, None)
    [waits] = await runs.explain(job, 0, 10)
    assert await runs.explain(job, 1, 10) == []
    assert (waits.chosen, waits.reason, waits.candidates) == (None, view.reason, [])
    assert waits.reason == f"no live instance serves {ECHO}"
