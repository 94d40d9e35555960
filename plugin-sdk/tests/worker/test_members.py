"""Small calls that travel in one request: each has its own key, answer, problem and deadline."""

import asyncio
import json

import msgspec
import pytest
from hivemesh_sdk.contracts.names import TICKET_HEADER
from hivemesh_sdk.contracts.steps import (
    LogEvent,
    Member,
    ProblemEvent,
    ProgressEvent,
    ResultEvent,
    digest_of_members,
)
from worker_harness import HOLDER, NEIGHBOUR, TICKETS, until

GROUP = "group.1f.0"
CALLS = ["sample.surroundings@1", "sample.inline_surroundings@1"]


def members(count):
    return [Member(key=f"job_{number}.job.0", attempt=number + 1) for number in range(count)]


def headers(capability, some, **claims):
    claims = {"members": digest_of_members(some), **claims}
    return {TICKET_HEADER: TICKETS.sign(TICKETS.claims(HOLDER, GROUP, capability, **claims))}


async def put(sample, capability, inputs, some=None, *, given=None, who=None, **fields):
    some = members(len(inputs)) if some is None else some
    lines = b"\n".join(msgspec.json.encode(one) for one in inputs)
    return await sample.put(
        capability,
        inputs=[lines],
        key=GROUP,
        members=some,
        headers=headers(capability, some) if given is None else given,
        **({} if who is None else {"who": who}),
        **fields,
    )


async def frames_of(sample, capability, first):
    """The answers to the calls of a request and its end, without what they say meanwhile."""
    frames = list(first.frames)
    given = headers(capability, [])
    sample.asked[GROUP] = capability, 1
    while not isinstance(frames[-1].event, ResultEvent | ProblemEvent):
        after = frames[-1].event.no
        page = await sample.events(GROUP, first.execution, after, headers=given)
        frames += page.frames
    said = (LogEvent, ProgressEvent)
    return [one for one in frames if not isinstance(one.event, said)]


@pytest.mark.integration
@pytest.mark.parametrize("capability", CALLS)
async def test_each_has_its_own_key_and_answer(sample, capability):
    first = await put(sample, capability, [None] * 5)
    frames = await frames_of(sample, capability, first)
    answers = [json.loads(one.body) for one in frames[:-1]]
    assert [one["key"] for one in answers] == [f"job_{number}.job.0" for number in range(5)]
    assert [one.event.key for one in frames[:-1]] == [one["key"] for one in answers]


@pytest.mark.integration
async def test_what_one_raises_is_its_own_problem(sample):
    inputs = [{"kind": "fatal"}, {"kind": "retryable"}, {"kind": "other"}]
    first = await put(sample, "sample.fail@1", inputs)
    frames = await frames_of(sample, "sample.fail@1", first)
    slugs = [one.event.problem.type.rpartition(":")[2] for one in frames[:-1]]
    assert slugs == ["step-fatal", "step-failed", "step-failed"]
    assert frames[1].event.problem.retry_after_s == 7


@pytest.mark.integration
async def test_an_input_that_does_not_fit_costs_that_one_alone(sample):
    inputs = [{"a": 1}, 7, {"b": 2}]
    first = await put(sample, "sample.echo@1", inputs)
    frames = await frames_of(sample, "sample.echo@1", first)
    assert [one.event.problem is None for one in frames[:-1]] == [True, False, True]
    assert json.loads(frames[2].body) == {"b": 2}


@pytest.mark.integration
async def test_a_crash_means_the_first_without_an_answer(sample):
    capability = "sample.crash@1"
    first = await put(sample, capability, ["SIGKILL", "SIGKILL"])
    frames = await frames_of(sample, capability, first)
    assert len(frames) == 1
    assert frames[0].event.problem.type.endswith(":executor-crashed")


async def test_the_ticket_names_the_calls(sample):
    some = members(2)
    other = headers("sample.echo@1", some[:1])
    answer = await put(sample, "sample.echo@1", [{}, {}], some, given=other)
    assert answer.status == 403


async def test_a_ticket_of_one_call_takes_no_others_along(sample):
    single = headers("sample.echo@1", [])
    answer = await put(sample, "sample.echo@1", [{}, {}], given=single)
    assert answer.status == 403


async def test_a_ticket_of_several_calls_begins_no_single_one(sample):
    given = headers("sample.echo@1", members(2))
    answer = await sample.put("sample.echo@1", inputs=[b"{}"], key=GROUP, headers=given)
    assert answer.status == 403


async def test_another_worker_sends_one_call_in_a_request(sample):
    answer = await put(sample, "sample.echo@1", [{}, {}], who=NEIGHBOUR)
    assert answer.status == 403


@pytest.mark.parametrize("some", [members(1), members(3), members(1) * 2])
async def test_calls_and_inputs_are_as_many(sample, some):
    answer = await put(sample, "sample.echo@1", [{}, {}], some)
    assert answer.slug == "input-invalid"


async def test_the_same_request_means_the_same_execution(sample):
    some = members(2)
    given = headers("sample.echo@1", some)
    first = await put(sample, "sample.echo@1", [{}, {}], some, given=given)
    again = await put(sample, "sample.echo@1", [{}, {}], some, given=given)
    assert again.execution == first.execution


async def test_a_cancelled_call_ends_the_request_once_it_is_the_one_that_runs(sample):
    flag = sample.folder / "flag"
    some = members(3)
    first = asyncio.create_task(
        put(sample, "sample.wait@1", [None] * 3, some, parameters={"path": str(flag)})
    )
    await until(flag.exists)
    assert (await sample.delete(some[1].key, some[1].attempt)).status == 202  # it has not begun
    assert (await sample.delete(some[0].key, some[0].attempt + 1)).status == 404
    assert not first.done()
    await sample.delete(some[0].key, some[0].attempt)
    assert (await first).failure.type.endswith(":cancelled")
    await sample.idle("sample.wait@1")
