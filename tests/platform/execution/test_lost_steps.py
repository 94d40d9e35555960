"""Liveness is asked: three unanswered questions lose a worker's steps, standstill ends a step."""

import pytest
from fake_workers import FakeWorker, FakeWorkerFleet
from hivemesh_platform.execution.held import HeldStep, HeldSteps, Verdict
from hivemesh_platform.execution.ledger.counters import ExecutionCounters
from hivemesh_platform.execution.ledger.port import Claim
from hivemesh_platform.execution.losses.lost_steps import LostStepWatch
from hivemesh_platform.execution.model import Fence, RetryPolicy, WorkKey
from hivemesh_platform.settings import ExecutionSettings
from hivemesh_sdk.contracts.problems import slug_of
from hivemesh_sdk.contracts.steps import ExecutionState, ExecutionStatus
from hivemesh_sdk.testing.clock import ManualClock
from msgspec.structs import replace


def claim(run="run_1", attempt=1, idle_timeout_ms=60_000):
    return Claim(
        key=WorkKey(run, "read", 0),
        fence=Fence(attempt, 1),
        kind="source",
        capability="test.read@1",
        inputs=(),
        spec=None,
        options="{}",
        labels="{}",
        policy=RetryPolicy(),
        deadline_ms=0,
        idle_timeout_ms=idle_timeout_ms,
        retries=0,
        losses=0,
        last_instance="",
    )


class Fleet(FakeWorkerFleet):
    """Its workers report the executions that the test gives."""

    reported: tuple[ExecutionStatus, ...] = ()

    async def status(self, endpoint, *, timeout_s):
        found = await super().status(endpoint, timeout_s=timeout_s)
        return replace(found, executions=list(self.reported))


def status(*, event=1, cpu=0.0, state=ExecutionState.RUNNING, attempt=1):
    return ExecutionStatus(
        key="run_1.read.0",
        execution="e1",
        attempt=attempt,
        epoch=1,
        capability="test.read@1",
        kind="source",
        state=state,
        last_event=event,
        idle_s=0.0,
        executor_cpu_s=cpu,
        buffered_bytes=0,
    )


@pytest.fixture
def fleet():
    return Fleet(FakeWorker("w1", {}, {}), FakeWorker("w2", {}, {}))


@pytest.fixture
def held():
    return HeldSteps(ExecutionCounters())


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def watch(held, fleet, clock):
    return LostStepWatch(held, fleet, ExecutionSettings(), clock)


@pytest.fixture
async def step(held, fleet):
    found = HeldStep(claim(), fleet.workers["w1"].endpoint(), frozenset(), frozenset(), 0.0)
    held.add(found)
    return found


async def test_the_third_unanswered_question_loses_the_steps(watch, fleet, step):
    fleet.workers["w1"].dead = True
    for _ in range(2):
        await watch.ask_all()
        assert not step.verdict.done()
    await watch.ask_all()
    verdict, document = step.verdict.result()
    assert (verdict, slug_of(document)) == (Verdict.LOST, "worker-lost")


async def test_an_answer_in_between_starts_the_count_again(watch, fleet, step):
    worker = fleet.workers["w1"]
    for dead in (True, True, False, True, True):
        worker.dead = dead
        await watch.ask_all()
    assert not step.verdict.done()


async def test_what_is_placed_there_after_a_loss_has_three_questions_of_its_own(
    watch, fleet, held, step
):
    fleet.workers["w1"].dead = True
    for _ in range(3):
        await watch.ask_all()
    held.remove(step)
    again = HeldStep(claim(), fleet.workers["w1"].endpoint(), frozenset(), frozenset(), 0.0)
    held.add(again)
    for lost in (False, False, True):
        await watch.ask_all()
        assert again.verdict.done() == lost


async def test_only_the_steps_of_the_lost_worker_are_lost(watch, fleet, held, step):
    other = HeldStep(claim("run_2"), fleet.workers["w2"].endpoint(), frozenset(), frozenset(), 0.0)
    held.add(other)
    fleet.workers["w1"].dead = True
    for _ in range(3):
        await watch.ask_all()
    assert step.verdict.done()
    assert not other.verdict.done()


async def test_workers_without_steps_are_not_asked(watch, fleet):
    asked = []
    fleet.before = lambda kind, instance, _key: asked.append((kind, instance))
    await watch.ask_all()
    assert asked == []


async def test_a_step_that_stands_still_for_its_idle_timeout_is_ended(watch, fleet, clock, step):
    fleet.reported = (status(),)
    await watch.ask_all()
    clock.advance(59)
    await watch.ask_all()
    assert not step.verdict.done()
    clock.advance(1)
    await watch.ask_all()
    verdict, document = step.verdict.result()
    assert (verdict, document.retryable) == (Verdict.STUCK, True)


@pytest.mark.parametrize("moved", [{"event": 2}, {"cpu": 0.5}])
async def test_an_event_or_cpu_time_is_movement(watch, fleet, clock, step, moved):
    fleet.reported = (status(),)
    await watch.ask_all()
    clock.advance(59)
    fleet.reported = (status(**moved),)
    await watch.ask_all()
    clock.advance(59)
    await watch.ask_all()
    assert not step.verdict.done()


@pytest.mark.parametrize("state", [ExecutionState.SUSPENDED, ExecutionState.ENDED])
async def test_waiting_for_our_acknowledgement_is_no_standstill(watch, fleet, clock, step, state):
    fleet.reported = (status(state=state),)
    for _ in range(5):
        await watch.ask_all()
        clock.advance(100)
    assert not step.verdict.done()


async def test_another_attempt_of_the_key_is_not_ours(watch, fleet, clock, step):
    fleet.reported = (status(attempt=7),)
    for _ in range(5):
        await watch.ask_all()
        clock.advance(100)
    assert not step.verdict.done()
