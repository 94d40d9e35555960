"""Quick functions: answered where the request was read, for as long as they are quick."""

import json

import msgspec
import pytest
from hivemesh_sdk import Worker
from hivemesh_sdk.contracts.names import TICKET_HEADER
from hivemesh_sdk.contracts.problems import slug_of
from hivemesh_sdk.contracts.steps import InputPart, Member, StepRequest, digest_of_members
from hivemesh_sdk.testing.clock import ManualClock
from hivemesh_sdk.worker.kinds import Capability
from hivemesh_sdk.worker.quick import QuickRunner
from worker_harness import HOLDER, TICKETS

QUICK = "sample.quick@1"
SERVING, SECOND = "MainThread", "inline"
INPUT = [b'{"a":1}']


async def test_the_loop_that_serves_answers(sample):
    answer = await sample.put(QUICK, inputs=INPUT)
    assert answer.result == {"a": 1, "thread": SERVING}
    assert sample.server.active()[QUICK] == 0


async def test_a_further_attempt_runs_on_the_second_loop(sample):
    await sample.put(QUICK, inputs=INPUT, key="r.s.1", parameters={"then": "raise"})
    again = await sample.put(QUICK, inputs=INPUT, key="r.s.2", attempt=2, parameters={"then": ""})
    assert again.result["thread"] == SECOND


async def test_an_input_by_reference_is_fetched_for_the_second_loop(sample):
    part = InputPart(artifact=sample.platform.add(INPUT[0]), count=1)
    answer = await sample.put_parts(QUICK, "call", [part])
    assert answer.result == {"a": 1, "thread": SECOND}


async def test_calls_that_travel_together_run_on_the_second_loop(sample):
    some = [Member(key=f"job_{number}.job.0", attempt=1) for number in range(3)]
    claims = {"members": digest_of_members(some)}
    ticket = TICKETS.sign(TICKETS.claims(HOLDER, "group.1f.0", QUICK, **claims))
    lines = b"\n".join(msgspec.json.encode({"n": number}) for number in range(3))
    first = await sample.put(
        QUICK, inputs=[lines], key="group.1f.0", members=some, headers={TICKET_HEADER: ticket}
    )
    assert [json.loads(frame.body) for frame in first.frames if frame.body] == [
        {"n": number, "thread": SECOND} for number in range(3)
    ]


@pytest.mark.parametrize(
    ("then", "detail"), [("raise", "ValueError: raise"), ("exit", "SystemExit: 3")]
)
async def test_whatever_it_raises_ends_the_step_and_nothing_else(sample, then, detail):
    answer = await sample.put(QUICK, inputs=INPUT, parameters={"then": then})
    assert answer.failure.detail == detail
    assert (await sample.put(QUICK, inputs=INPUT)).result["thread"] == SERVING


async def test_options_are_refused_before_it_runs(sample):
    answer = await sample.put(QUICK, inputs=INPUT, parameters={"than": "x"})
    assert (answer.status, answer.slug) == (422, "options-invalid")
    assert sample.server.active()[QUICK] == 0


@pytest.mark.parametrize("attempt", [1, 2])
async def test_options_that_raise_end_the_step_and_free_its_slot(sample, attempt):
    answer = await sample.put(QUICK, inputs=INPUT, attempt=attempt, parameters={"then": "refuse"})
    assert answer.failure.detail == "KeyError: 'refuse'"
    assert sample.server.active()[QUICK] == 0


async def test_an_input_of_the_wrong_form_is_a_problem(sample):
    assert slug_of((await sample.put(QUICK, inputs=[b"[1]"])).failure) == "input-invalid"


async def test_a_secret_is_lent_and_does_not_leave_in_the_answer(sample):
    sample.platform.secrets["mail.password"] = "correct-horse-battery"
    answer = await sample.put(QUICK, inputs=INPUT, parameters={"key": "{{ vault.mail.password }}"})
    assert slug_of(answer.failure) == "secret-in-answer"


class Ended:
    """An execution that ends and is released."""

    key = "r.s.1"
    ended = released = False

    def succeed(self, body, sha256, artifacts):
        self.ended = True

    def release(self):
        self.released = True


class Second:
    """Takes what is not answered at once."""

    def __init__(self, capability):
        self.capabilities = {capability.id: capability}
        self.taken = 0

    def start(self, execution, request, bodies):
        self.taken += 1


class Busy:
    """A quick function whose calls take as long as they are told."""

    def __init__(self):
        self.clock, worker = ManualClock(), Worker()

        @worker.call("a.b@1", run_in="inline")
        def hold(input: float) -> None:  # noqa: A002
            self.clock.advance(input)

        self.second = Second(Capability(worker.capabilities["a.b@1"]))
        self.runner = QuickRunner(self.second, self.clock)

    def call(self, *holds):
        """Make calls that take so long, one right after the other."""
        for hold in holds:
            body = msgspec.json.encode(hold)
            part = InputPart(bytes=len(body), count=1)
            request = StepRequest(
                capability="a.b@1", kind="call", attempt=1, epoch=1, inputs=[part]
            )
            self.runner.start(Ended(), request, [body])

    @property
    def moved(self):
        """Whether the next call runs on the second loop."""
        self.call(0.0)
        return bool(self.second.taken)


def test_one_call_that_blocks_moves_it():
    busy = Busy()
    busy.call(0.1)
    assert busy.moved
    assert busy.runner.blocked == 1


@pytest.mark.parametrize("holds", [[0.01] * 20, [0.09, 0.0, 0.09], [0.05] * 3])
def test_calls_that_take_much_of_the_time_move_it(holds):
    busy = Busy()
    busy.call(*holds)
    assert busy.moved
    assert busy.runner.blocked == 0


def test_a_slow_call_now_and_then_is_forgiven():
    busy = Busy()
    for _ in range(100):
        busy.call(0.05)
        busy.clock.advance(0.25)
    assert not busy.moved


def test_calls_that_are_quick_may_take_all_the_time():
    busy = Busy()
    busy.call(*[0.0009] * 2000)
    assert not busy.moved
