"""Requests that are sent again, and batches: what is accepted once, and what is refused."""

import asyncio
import json
from collections import Counter, defaultdict
from itertools import accumulate

import pytest
from execution_support import PIPELINE, TESTER, core, worker
from fake_workers import FakeWorkerFleet
from hivemesh_platform.execution.behalf import Behalf
from hivemesh_platform.execution.jobs.batches import read_inputs
from hivemesh_platform.execution.ledger import submit_sql
from hivemesh_platform.execution.ledger.submit_sql import OtherBodyError
from hivemesh_platform.execution.ledger.submits import InFlightError
from hivemesh_platform.execution.steps import claims
from hivemesh_sdk.contracts.api import BatchRequest, JobRequest, LimitRequest, RunRequest
from hivemesh_sdk.contracts.pages import decode_request
from hivemesh_sdk.errors import InvalidError, NotFoundError
from pydantic import ValidationError

ECHO = "test.echo@1"
OTHER = Behalf(sub="other", roles=("admin",), grants=("admin:*",))


@pytest.fixture
async def running(tmp_path):
    async with core(tmp_path, worker()) as found:
        yield found


async def submit(running, value=1, *, key="k", who=TESTER, **fields):
    request = JobRequest(capability=ECHO, input=value, **fields)
    view, is_new = await running.execution.jobs.start_once(request, who, key)
    return view.id, is_new


async def batch_of(running, values, *, key="", **fields):
    inputs = await read_inputs([json.dumps(value).encode() for value in values])
    request = BatchRequest(capability=ECHO, **fields)
    return await running.execution.batches.start(request, inputs, TESTER, key)


async def results(running, batch, after=0):
    data = b"".join([part async for part in running.execution.batches.results(batch, after)])
    return [json.loads(line) for line in data.splitlines()]


async def test_the_same_key_and_body_are_the_same_job(running):
    first, is_new = await submit(running)
    assert is_new
    assert await submit(running) == (first, False)


async def test_how_long_to_wait_is_no_part_of_the_body(running):
    first, _ = await submit(running)
    again, _ = await submit(running, wait_s=0.01)
    assert again == first


async def test_the_same_key_with_another_body_is_refused(running):
    await submit(running, 1)
    with pytest.raises(OtherBodyError) as refused:
        await submit(running, 2)
    assert refused.value.problem().status == 422


async def test_a_key_belongs_to_its_submitter(running):
    first, _ = await submit(running)
    other, is_new = await submit(running, 2, who=OTHER)
    assert is_new
    assert other != first


async def test_without_a_key_each_request_is_a_job(running):
    assert (await submit(running, key=""))[0] != (await submit(running, key=""))[0]


async def test_a_key_is_plain_text(running):
    with pytest.raises(InvalidError, match="printable"):
        await submit(running, key="a b")


async def test_a_request_that_is_being_accepted_is_not_accepted_twice(running):
    found = await asyncio.gather(*(submit(running) for _ in range(5)), return_exceptions=True)
    accepted = {one[0] for one in found if isinstance(one, tuple)}
    refused = [one for one in found if isinstance(one, Exception)]
    assert len(accepted) == 1
    assert all(isinstance(one, InFlightError) for one in refused)
    assert refused[0].problem().status == 409
    assert refused[0].problem().retry_after_s == 1.0


async def test_the_key_is_kept_in_the_transaction_that_accepts(running):
    job, _ = await submit(running)
    rows = await running.database.read(lambda tx: tx.all("SELECT target FROM submit_key"))
    assert [row["target"] for row in rows] == [job]


async def test_a_key_counts_no_more_after_its_time(running):
    first, _ = await submit(running)
    await running.database.write(lambda tx: tx.execute("UPDATE submit_key SET created_at = 1"))
    again, is_new = await submit(running, 2)
    assert is_new
    assert again != first


async def test_keys_are_forgotten_after_their_time(running):
    await submit(running)
    await running.database.write(lambda tx: submit_sql.forget(tx, 2**62))
    rows = await running.database.read(lambda tx: tx.all("SELECT * FROM submit_key"))
    assert rows == []


async def test_the_same_key_and_body_are_the_same_run(running):
    request = RunRequest(document=PIPELINE)
    first = await running.execution.runs.start(request, TESTER, None, "k")
    again = await running.execution.runs.start(request, TESTER, None, "k")
    assert again.id == first.id
    with pytest.raises(OtherBodyError):
        await submit(running)


async def test_every_job_of_a_batch_has_its_own_answer(running):
    view = await batch_of(running, range(300))
    assert view.count == 300
    ids = [f"{view.first[:-6]}{number:06d}" for number in range(1, 301)]
    for one in ids:
        await running.end(one)
    found = await results(running, view.id)
    assert [one["id"] for one in found] == ids
    assert [one["result"]["value"] for one in found] == list(range(300))
    assert len(await results(running, view.id, after=290)) == 10


async def test_a_flipped_digit_in_an_input_of_a_batch_is_found_and_never_sent(tmp_path):
    only = worker()
    only.dead = True
    async with core(tmp_path, only) as platform:
        view = await batch_of(platform, [{"amount": 1000}, {"amount": 2000}])

        def flip(tx):
            text = tx.one("SELECT spec FROM work WHERE run = ?", (view.first,))["spec"]
            assert "1000" in text
            changed = text.replace("1000", "5000")
            tx.execute("UPDATE work SET spec = ? WHERE run = ?", (changed, view.first))

        await platform.database.write(flip)
        only.dead = False
        platform.placement.changed()
        ended = await platform.end(view.first)
        assert ended.problem["type"].endswith(":payload-damaged")


async def test_a_batch_is_accepted_once_under_its_key(running):
    first = await batch_of(running, range(10), key="b")
    again = await batch_of(running, range(10), key="b")
    assert again.id == first.id
    with pytest.raises(OtherBodyError):
        await batch_of(running, range(11), key="b")


@pytest.mark.parametrize(
    "line", [b"{", b'"\xff"', b"1e999", b"[" * 65 + b"]" * 65, b"[" * 5000 + b"]" * 5000]
)
async def test_one_bad_line_refuses_the_whole_batch(line):
    with pytest.raises(InvalidError, match="line 3"):
        await read_inputs([b"1", line, b"3"])


@pytest.mark.parametrize("count", [0, 100_001])
async def test_a_batch_has_a_bounded_number_of_jobs(count):
    with pytest.raises(InvalidError, match="100000"):
        await read_inputs([b"1"] * count)


async def test_an_input_is_kept_in_one_form():
    inputs = await read_inputs([b'{"a": 1, "a": 2}'])
    assert inputs.lines == [b'{"a":2}']


async def test_an_artifact_is_found_however_it_is_written():
    digest = "0" * 64
    written = b'{"\\u0073ha256": "' + digest.encode() + b'", "size": 1}'
    inputs = await read_inputs([written])
    assert inputs.naming == [{"sha256": digest, "size": 1}]


async def test_a_batch_that_is_not_there_is_not_found(running):
    with pytest.raises(NotFoundError):
        await running.execution.batches.get(f"batch_{'0' * 32}")
    with pytest.raises(NotFoundError):
        await running.execution.batches.get("batch_x' OR 1")


@pytest.mark.parametrize("kind", [JobRequest, BatchRequest])
@pytest.mark.parametrize("priority", [-1, 11])
def test_priorities_are_0_to_10(kind, priority):
    with pytest.raises(ValidationError):
        kind(capability=ECHO, priority=priority)


async def test_a_run_has_the_priority_of_its_pipeline_or_of_its_request(running):
    document = {**PIPELINE, "priority": 2}
    one = await running.execution.runs.start(RunRequest(document=document), TESTER)
    two = await running.execution.runs.start(RunRequest(document=document, priority=9), TESTER)
    rows = await running.database.read(
        lambda tx: tx.all("SELECT DISTINCT run, priority FROM node ORDER BY priority")
    )
    assert [(row["run"], row["priority"]) for row in rows] == [(one.id, 2), (two.id, 9)]


async def test_a_job_waits_for_the_limit_of_its_key_and_says_so(tmp_path):
    idle = worker(slots=4)
    idle.hang_once.add(ECHO)
    async with core(tmp_path, idle) as running:
        limits = running.execution.limits
        await limits.set("key:customer-7", LimitRequest(running=1), "default", "tester")
        first, _ = await submit(running, 1, key="", concurrency_key="customer-7")
        await running.until(lambda: len(running.execution.held) == 1)
        second, _ = await submit(running, 2, key="", concurrency_key="customer-7")
        view = await running.execution.runs.get(second)
        async with asyncio.timeout(30):
            while view.state.value != "waiting":
                view = await running.execution.runs.get(second)
        assert view.reason == "limit customer-7: 1 of 1 running"
        [seen] = await limits.all("default")
        assert (seen.now_running, seen.now_waiting) == (1, 1)
        assert await limits.all("other") == []
        await limits.unset("key:customer-7", "default")
        assert (await running.end(second)).state.value == "completed"
        await running.execution.runs.cancel(first)


@pytest.mark.parametrize("target", ["key:customer-7", f"capability:{ECHO}", "all"])
@pytest.mark.parametrize("alone", [True, False])
async def test_who_waits_for_a_limit_is_told_of_room_at_once(tmp_path, monkeypatch, target, alone):
    monkeypatch.setattr(claims, "POLL_S", 3600.0)  # so nothing comes of looking again
    async with core(tmp_path, worker(slots=4)) as running:
        await running.execution.limits.set(target, LimitRequest(running=1), "default", "tester")
        jobs = [
            await submit(
                running,
                number,
                key="",
                concurrency_key="customer-7",
                options={"n": number} if alone else {},
            )
            for number in range(6)
        ]
        assert {(await running.end(job)).state.value for job, _ in jobs} == {"completed"}


CUSTOMERS, OF_EACH = 4, 8


class OverlappingFleet(FakeWorkerFleet):
    """A step goes on as the next one of its customer comes, so that one runs at each claim."""

    def __init__(self, *workers):
        super().__init__(*workers)
        self.came = Counter()
        self.next = defaultdict(asyncio.Event)

    async def put_step(self, endpoint, key, body, *, ticket, wait_s):
        _, inputs = decode_request(b"".join(body))
        customer = int(inputs[0]) % CUSTOMERS
        self.came[customer] += 1
        place = self.came[customer]
        self.next[customer, place].set()
        if place < OF_EACH:
            await self.next[customer, place + 1].wait()
        return await super().put_step(endpoint, key, body, ticket=ticket, wait_s=wait_s)


def most_at_once(spans):
    """Of spans of time; who begins as another one ends follows it."""
    changes = sorted(change for begun, ended in spans for change in ((begun, 1), (ended, -1)))
    return max(accumulate(change for _, change in changes))


async def test_each_key_keeps_its_limit_while_many_compete_for_more_slots(tmp_path):
    idle = [worker(f"w{number}", slots=8) for number in range(3)]
    for one in idle:
        one.dead = True
    async with core(tmp_path, OverlappingFleet(*idle)) as running:
        limits = running.execution.limits
        await limits.set("key:customer-*", LimitRequest(running=2), "default", "tester")
        jobs = []
        for number in range(CUSTOMERS * OF_EACH):
            alone = {"n": number}  # jobs with other options do not travel together
            name = f"customer-{number % CUSTOMERS}"
            jobs.append(await submit(running, number, key="", concurrency_key=name, options=alone))
        for one in idle:
            one.dead = False
        running.placement.changed()
        assert {(await running.end(job)).state.value for job, _ in jobs} == {"completed"}
        rows = await running.database.read(
            lambda tx: tx.all("SELECT limit_key, started_at, ended_at FROM work")
        )
        spans = defaultdict(list)
        for key, *span in rows:
            spans[key].append(span)
        most = {key: most_at_once(some) for key, some in spans.items()}
        assert len(most) == CUSTOMERS
        assert all(count <= 2 for count in most.values()), most
