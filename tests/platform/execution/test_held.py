"""Who holds a step, and what happens to those who held it."""

import pytest
from hivemesh_platform.execution.held import EARLY, ENDED_KEPT, HeldStep, HeldSteps
from hivemesh_platform.execution.ledger.counters import ExecutionCounters
from hivemesh_platform.execution.ledger.port import Claim, StaleAttemptError
from hivemesh_platform.execution.model import Fence, RetryPolicy, WorkKey
from hivemesh_platform.execution.ports import Choice
from hivemesh_sdk.contracts.instances import Endpoint

HOLDER = "spiffe://test.hivemesh.internal/worker/parser/w1"
OTHER = "spiffe://test.hivemesh.internal/worker/parser/w2"


def step(seq: int = 0, attempt: int = 1, identity: str = HOLDER) -> HeldStep:
    claim = Claim(
        key=WorkKey(run="run_1", node="parse", seq=seq),
        fence=Fence(attempt=attempt, epoch=1),
        kind="source",
        capability="email.parse@1",
        policy=RetryPolicy(),
        inputs=(),
        spec=None,
        options="{}",
        labels="{}",
        deadline_ms=0,
        idle_timeout_ms=0,
        retries=0,
        losses=0,
        last_instance="",
    )
    endpoint = Endpoint(
        instance=identity.rpartition("/")[2],
        worker="parser",
        version="0.1.0",
        identity=identity,
        host="127.0.0.1",
        port=1,
        capabilities=["email.parse@1"],
    )
    return HeldStep(claim, endpoint, frozenset(), frozenset(), 0.0)


@pytest.fixture
def counters() -> ExecutionCounters:
    return ExecutionCounters()


@pytest.fixture
def held(counters: ExecutionCounters) -> HeldSteps:
    return HeldSteps(counters)


async def test_an_attempt_that_ends_after_the_next_one_has_begun_leaves_nothing_behind(held):
    """Its row is free a moment before it; the instances are asked about their steps all the same."""
    first, second = step(attempt=1), step(attempt=2, identity=OTHER)
    held.add(first)
    held.add(second)
    assert [held.at(name) for name in ("w1", "w2")] == [[first], [second]]
    held.remove(first)
    assert held.find("run_1.parse.0") is second
    held.remove(second)
    assert (held.endpoints(), len(held)) == ([], 0)


async def test_what_a_superseded_attempt_asks_for_is_refused_as_stale_and_counted(held, counters):
    first, second = step(attempt=1), step(attempt=2, identity=OTHER)
    held.add(first)
    held.remove(first)
    held.add(second)
    with pytest.raises(StaleAttemptError):
        held.refuse_ended("run_1.parse.0", 1, HOLDER)
    assert counters.stale_results == 1


async def test_a_step_whose_worker_has_said_its_last_is_held_and_has_no_rights(held, counters):
    one = step()
    held.add(one)
    assert held.holding("run_1.parse.0") is not None
    held.end_rights(one)
    assert held.holding("run_1.parse.0") is None
    assert held.find_active("run_1.parse.0") is None
    assert held.holds("run_1.parse.0", 1)
    with pytest.raises(StaleAttemptError):
        held.refuse_ended("run_1.parse.0", 1, HOLDER)
    assert counters.stale_results == 1


async def test_a_stranger_learns_nothing_of_ended_attempts(held, counters):
    first = step()
    held.add(first)
    held.remove(first)
    held.refuse_ended("run_1.parse.0", 1, OTHER)
    held.refuse_ended("run_1.parse.0", 2, HOLDER)
    held.refuse_ended("run_1.parse.1", 1, HOLDER)
    assert counters.stale_results == 0


async def test_the_memory_of_ended_attempts_is_bounded(held):
    for seq in range(ENDED_KEPT + 1):
        one = step(seq)
        held.add(one)
        held.remove(one)
    held.refuse_ended("run_1.parse.0", 1, HOLDER)  # forgotten: the answer is that of a stranger
    with pytest.raises(StaleAttemptError):
        held.refuse_ended(f"run_1.parse.{ENDED_KEPT}", 1, HOLDER)


class Slots:
    """A placement that counts what it gets back."""

    def __init__(self) -> None:
        self.free = 0

    def give_back(self, _choice: Choice) -> bool:
        self.free += 1
        return True


async def test_slots_of_few_answers_at_a_time_are_given_back_before_they_are_kept(held):
    slots, steps = Slots(), [step(seq) for seq in range(EARLY + 1)]
    for one in steps:
        held.add(one)
        choice = Choice(endpoint=one.endpoint, capability="email.parse@1", explanation={})
        held.give_back(one, slots, choice)
        held.give_back(one, slots, choice)  # once is enough
    assert slots.free == EARLY
    assert not steps[-1].given_back
    held.remove(steps[0])
    held.give_back(steps[-1], slots, choice)
    assert slots.free == EARLY + 1
