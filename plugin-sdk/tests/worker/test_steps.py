"""What a request on a key means: attempts, digests, epochs, slots, deadlines, retention."""

import hashlib

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hivemesh_sdk.contracts.artifacts import Artifact, DataClass
from hivemesh_sdk.contracts.problems import problem
from hivemesh_sdk.contracts.steps import InputPart, Limits, StepRequest
from hivemesh_sdk.errors import HivemeshError
from hivemesh_sdk.testing.clock import ManualClock
from hivemesh_sdk.testing.tickets import ThrowawayTickets
from hivemesh_sdk.trust.identity import SpiffeId
from hivemesh_sdk.trust.jws import SigningKey
from hivemesh_sdk.worker.access import Right
from hivemesh_sdk.worker.metrics import StepMetrics
from hivemesh_sdk.worker.spoken import SpokenLines
from hivemesh_sdk.worker.steps import Slots, StepTable, Timing, fingerprint_of
from structlog.testing import capture_logs

KEY = "run.step.1"
CALLER = "spiffe://mesh.test/platform/p1"
HOLDER = SpiffeId.worker("mesh.test", "sample", "i1")
TIMING = Timing(grace=5, orphan_after=600, keep=900, keep_bytes=20_000)


class FakeRun:
    """One execution of the fake runner: a test ends it."""

    def __init__(self, execution):
        self.execution = execution
        self.cancelled = self.killed = False
        self.credited = 0
        self.cpu = 0.0

    def cancel(self):
        self.cancelled = True

    def kill(self):
        self.killed = True
        self.execution.release()

    def credit(self, count):
        self.credited += count

    def cpu_s(self):
        return self.cpu

    def emit(self, body=b"{}\n", *, cost=0):
        self.execution.records(
            body, count=1, sha256="", checkpoint=b"1", cost=cost or len(body), more=False
        )

    def succeed(self, body=b"1"):
        self.execution.succeed(body, "", [])
        self.execution.release()


class FakeRunner:
    """A runner whose executions do nothing by themselves."""

    def __init__(self):
        self.runs = []

    def start(self, execution, request, bodies):
        self.runs.append(FakeRun(execution))
        return self.runs[-1]


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def runner():
    return FakeRunner()


@pytest.fixture
def table(clock, runner):
    slots = {
        "a.call@1": Slots(2, runner, StepMetrics()),
        "a.read@1": Slots(2, runner, StepMetrics()),
    }
    return StepTable(slots, clock, TIMING)


def request(capability="a.call@1", kind="call", *, attempt=1, epoch=1, **fields):
    return StepRequest(capability=capability, kind=kind, attempt=attempt, epoch=epoch, **fields)


TICKETS = ThrowawayTickets(SigningKey(Ed25519PrivateKey.generate()), CALLER)


def right(key, made):
    claims = TICKETS.claims(HOLDER, key, made.capability, made.attempt)
    return Right(CALLER, TICKETS.sign(claims), claims)


def put(table, *, key=KEY, body=b"1", **fields):
    fields.setdefault("inputs", [InputPart(bytes=len(body))])
    made = request(**fields)
    return table.put(key, made, [body], right(key, made))


def read(table, **fields):
    return put(table, capability="a.read@1", kind="source", **fields)


def refusal(act, *arguments, **fields):
    with pytest.raises(HivemeshError) as caught:
        act(*arguments, **fields)
    return caught.value.slug


def test_same_attempt_and_body_is_the_same_execution(table, runner):
    assert put(table) is put(table)
    assert len(runner.runs) == 1


def test_another_body_is_refused(table):
    put(table)
    assert refusal(put, table, body=b"2") == "idempotency-mismatch"
    assert refusal(put, table, parameters={"a": 1}) == "idempotency-mismatch"
    assert refusal(put, table, attempt=2, body=b"2") == "idempotency-mismatch"


def test_another_checkpoint_is_not_another_body(table, runner):
    read(table)
    runner.runs[0].succeed(None)
    again = read(table, attempt=2, checkpoint=msgspec.Raw(b"7"))
    assert again.attempt == 2


def test_the_order_of_parameters_does_not_matter(table):
    assert put(table, parameters={"a": 1, "b": 2}) is put(table, parameters={"b": 2, "a": 1})


def test_an_input_counts_by_its_content():
    body = b'{"id":1}\n'
    sha256 = hashlib.sha256(body).hexdigest()
    reference = InputPart(artifact=Artifact(sha256=sha256, size=len(body)))
    inline = fingerprint_of(request(inputs=[InputPart(bytes=len(body))]), [body])
    assert fingerprint_of(request(inputs=[reference]), [None]) == inline
    told = InputPart(bytes=len(body), sha256=hashlib.sha256(body).hexdigest())
    assert fingerprint_of(request(inputs=[told]), [body]) == inline


def test_a_lower_attempt_is_stale(table):
    put(table, attempt=2)
    assert refusal(put, table, attempt=1) == "stale-attempt"
    assert refusal(table.delete, KEY, 1) == "stale-attempt"


def test_a_higher_attempt_waits_until_the_code_of_the_old_one_has_stopped(table, runner, clock):
    old = put(table)
    new = put(table, attempt=2)
    assert new is not old
    assert runner.runs[0].cancelled
    assert len(runner.runs) == 1
    clock.advance(4.9)
    table.tick()
    assert not runner.runs[0].killed
    clock.advance(0.2)
    table.tick()
    assert runner.runs[0].killed
    assert runner.runs[1].execution is new


def called_by(instance, made, *, worker="parser", step=KEY):
    holder = SpiffeId.worker("mesh.test", worker, instance)
    claims = TICKETS.claims(holder, step, "p.parse@1", made.attempt)
    return Right(str(holder), TICKETS.sign(claims), claims)


def call(table, instance, *, attempt=1, **caller):
    made = request(attempt=attempt, inputs=[InputPart(bytes=1)])
    return table.put(f"{KEY}.ask", made, [b"1"], called_by(instance, made, **caller))


def test_the_next_attempt_may_come_from_another_instance_of_the_worker(table, runner):
    first = call(table, "i1")
    second = call(table, "i2", attempt=2)
    assert second is not first
    assert runner.runs[0].cancelled
    runner.runs[0].kill()
    assert runner.runs[1].execution is second
    assert second.right.caller.endswith("/i2")


def test_what_the_first_instance_was_answered_answers_the_next_one(table, runner):
    first = call(table, "i1")
    runner.runs[0].succeed()
    assert call(table, "i2", attempt=2) is first
    assert first.right.caller.endswith("/i2")
    assert len(runner.runs) == 1


def test_a_kept_answer_keeps_neither_the_ticket_nor_its_claims(table, runner):
    execution = put(table)
    runner.runs[0].succeed()
    assert execution.right.ticket == ""
    assert execution.right.claims.step == ""
    assert execution.right.caller == CALLER


@pytest.mark.parametrize(
    "other",
    [
        {"instance": "i2"},  # the same attempt
        {"instance": "i2", "attempt": 2, "worker": "other"},
        {"instance": "i2", "attempt": 2, "step": "run.step.2"},
    ],
)
def test_nobody_else_takes_over_what_a_worker_has_created(table, runner, other):
    call(table, "i1")
    assert refusal(call, table, **other) == "not-authorized"
    assert not runner.runs[0].cancelled


def test_the_instance_of_a_former_attempt_does_not_get_its_key_back(table):
    call(table, "i1")
    call(table, "i2", attempt=2)
    assert refusal(call, table, "i1") == "not-authorized"


def test_the_platform_and_a_worker_never_share_a_key(table):
    call(table, "i1")
    assert refusal(put, table, key=f"{KEY}.ask", attempt=2) == "not-authorized"


def test_an_attempt_that_never_began_is_replaced(table, runner):
    put(table)
    second = put(table, attempt=2)
    third = put(table, attempt=3)
    assert second.failed
    runner.runs[0].kill()
    assert [run.execution for run in runner.runs[1:]] == [third]


def test_a_waiting_attempt_takes_the_slot_of_the_old_one(table, runner):
    put(table, key="run.step.9")
    put(table)  # both slots are taken
    put(table, attempt=2)
    runner.runs[1].kill()
    assert table.slot_status()["a.call@1"].active == 2


def test_a_stored_unary_result_answers_a_higher_attempt(table, runner):
    first = put(table)
    runner.runs[0].succeed()
    assert put(table, attempt=2) is first
    assert len(runner.runs) == 1


def test_a_stored_problem_never_answers_a_higher_attempt(table, runner):
    first = put(table)
    table.stop(first, "cancelled")
    runner.runs[0].kill()
    assert put(table, attempt=2) is not first


def test_the_end_of_a_source_never_answers_a_higher_attempt(table, runner):
    first = read(table)
    runner.runs[0].succeed(None)
    assert read(table, attempt=2) is not first


def test_a_lower_epoch_is_a_stale_reader(table):
    execution = put(table, epoch=3)
    assert refusal(table.find, KEY, execution.id, 2) == "stale-reader"
    assert refusal(put, table, epoch=2) == "stale-reader"
    table.find(KEY, execution.id, 4)
    assert refusal(table.find, KEY, execution.id, 3) == "stale-reader"


def test_an_unknown_execution_is_said_to_be_unknown(table):
    put(table)
    assert refusal(table.find, KEY, "other", 1) == "execution-unknown"
    assert refusal(table.find, "run.step.2", "other", 1) == "execution-unknown"


def test_slots_are_refused_before_work_starts(table, runner):
    put(table, key="run.step.1")
    put(table, key="run.step.2")
    assert refusal(put, table, key="run.step.3") == "overloaded"
    runner.runs[0].succeed()
    put(table, key="run.step.3")


def test_an_unknown_capability_is_refused(table):
    assert refusal(put, table, capability="a.other@1") == "unknown-capability"


def test_draining_refuses_new_work_and_shows_the_old(table):
    execution = put(table)
    table.draining = True
    assert refusal(put, table, key="run.step.2") == "draining"
    assert refusal(put, table, attempt=2) == "draining"
    assert put(table) is execution


def test_acknowledged_events_are_dropped_and_credited(table, runner):
    execution = read(table)
    for _ in range(3):
        runner.runs[0].emit(b"{}\n", cost=100)
    table.acknowledge(execution, 2)
    assert runner.runs[0].credited == 200
    assert len(execution.page(0)) == 2  # a line and its body


def test_an_execution_read_to_its_end_is_forgotten(table, runner):
    execution = read(table)
    runner.runs[0].succeed(None)
    table.acknowledge(execution, execution.last_no)
    assert refusal(table.look, KEY) == "execution-unknown"
    assert table.kept_bytes == 0


def test_ended_executions_are_kept_for_15_minutes(table, runner, clock):
    read(table)
    runner.runs[0].succeed(None)
    clock.advance(899)
    table.tick()
    assert table.look(KEY).ended
    clock.advance(2)
    table.tick()
    assert refusal(table.look, KEY) == "execution-unknown"


def test_an_acknowledged_result_leaves_no_entry(table, runner):
    execution = put(table)
    runner.runs[0].succeed()
    table.settle(execution, 1)
    assert refusal(table.look, KEY) == "execution-unknown"
    assert table.kept_bytes == 0


def test_a_request_whose_result_was_acknowledged_is_refused_the_same_way_each_time(table, runner):
    execution = put(table, attempt=2)
    runner.runs[0].succeed()
    table.settle(execution, 2)
    for _ in range(2):
        assert refusal(put, table, attempt=2) == "stale-attempt"
        assert refusal(put, table, attempt=1) == "stale-attempt"
        assert refusal(put, table, attempt=2, body=b"2") == "idempotency-mismatch"
        assert refusal(put, table, attempt=3, body=b"2") == "idempotency-mismatch"
    assert len(runner.runs) == 1
    assert put(table, attempt=3) is not execution


def test_only_the_attempt_that_ended_can_be_acknowledged(table, runner):
    execution = put(table, attempt=2)
    table.settle(execution, 2)
    assert table.look(KEY) is execution
    runner.runs[0].succeed()
    table.settle(execution, 1)
    assert table.look(KEY) is execution


def test_code_that_has_yet_to_stop_is_not_forgotten(table, runner):
    execution = put(table)
    table.stop(execution, "cancelled")
    table.settle(execution, 1)
    assert table.look(KEY) is execution
    put(table, attempt=2)
    assert len(runner.runs) == 1  # the next attempt waits for it


def read_to_the_end(table, execution):
    table.acknowledge(execution, execution.last_no)


def deleted(table, execution):
    table.delete(execution.key, execution.attempt)


@pytest.mark.parametrize("forget", [read_to_the_end, deleted])
def test_the_next_attempt_waits_for_code_whose_end_was_read(table, runner, forget):
    execution = put(table)
    table.stop(execution, "deadline-exceeded")
    forget(table, execution)
    assert refusal(table.look, KEY) == "execution-unknown"
    second = put(table, attempt=2)
    deleted(table, second)  # it never begins
    third = put(table, attempt=3)
    assert len(runner.runs) == 1
    runner.runs[0].kill()
    assert [run.execution for run in runner.runs[1:]] == [third]
    assert table.slot_status()["a.call@1"].active == 1


def test_an_end_that_cannot_be_written_is_no_end(table, runner):
    execution = put(table)
    with pytest.raises(UnicodeEncodeError):
        execution.fail(problem("step-failed", "caf\udce9"))
    assert not execution.ended
    execution.fail(problem("step-failed"))
    assert execution.ended


def test_an_acknowledged_problem_leaves_the_key_to_the_next_attempt(table, runner):
    execution = put(table)
    runner.runs[0].execution.fail(problem("step-failed"))
    runner.runs[0].execution.release()
    table.settle(execution, 1)
    assert refusal(table.look, KEY) == "execution-unknown"
    assert put(table, attempt=2, body=b"2").attempt == 2


def test_another_part_of_an_acknowledged_batch_is_another_attempt(table, runner):
    execution = put(table, limits=Limits(lines=(0, 1)))
    runner.runs[0].succeed()
    table.settle(execution, 1)
    assert put(table, attempt=2, limits=Limits(lines=(1, 2))).attempt == 2


def test_acknowledged_keys_are_remembered_in_bounded_number_and_time(runner, clock):
    timing = Timing(keep=900, keep_settled=8)
    table = StepTable({"a.call@1": Slots(2, runner, StepMetrics())}, clock, timing)
    for number in range(100):
        execution = put(table, key=f"run.step.{number}")
        runner.runs[-1].succeed()
        table.settle(execution, 1)
        assert table.settled <= 8
    assert refusal(put, table, key="run.step.99") == "stale-attempt"
    for _ in range(2):
        clock.advance(451)
        table.tick()
    assert table.settled == 0


def test_the_oldest_unary_results_are_dropped_first(table, runner):
    read(table, key="run.read.0")
    runner.runs[-1].emit(b"x" * 9000)
    runner.runs[-1].succeed(None)
    for number in range(20):
        put(table, key=f"run.step.{number}")
        runner.runs[-1].succeed()
    assert table.kept_bytes <= TIMING.keep_bytes
    assert table.look("run.read.0").ended
    assert table.look("run.step.19").ended
    assert refusal(table.look, "run.step.0") == "execution-unknown"


def test_a_deadline_ends_the_execution_at_once_and_its_code_after_the_grace(table, runner, clock):
    execution = put(table, deadline_ms=1000)
    clock.advance(1.1)
    table.tick()
    assert execution.failed
    assert runner.runs[0].cancelled
    assert table.slot_status()["a.call@1"].active == 1
    clock.advance(5.1)
    table.tick()
    assert runner.runs[0].killed
    assert table.slot_status()["a.call@1"].active == 0


def test_an_execution_nobody_asks_for_is_cancelled(table, runner, clock):
    execution = read(table, idle_timeout_ms=0)
    clock.advance(500)
    table.find(KEY, execution.id, 1)
    clock.advance(500)
    table.tick()
    assert not execution.ended
    clock.advance(101)
    table.tick()
    assert execution.failed


def test_cpu_time_is_activity_and_suspension_is_not_idleness(table, runner, clock):
    execution = read(table, idle_timeout_ms=10_000)
    for _ in range(3):
        clock.advance(9)
        runner.runs[0].cpu += 1
        table.tick()
    assert not execution.ended
    execution.suspend()
    clock.advance(100)
    table.tick()
    assert not execution.ended
    table.acknowledge(execution, 0)
    runner.runs[0].emit()
    table.acknowledge(execution, 1)
    clock.advance(11)
    table.tick()
    assert execution.failed


def test_what_an_ended_execution_says_later_counts_for_nothing(table, runner):
    execution = put(table)
    table.stop(execution, "cancelled")
    last = execution.last_no
    runner.runs[0].emit()
    runner.runs[0].succeed()
    assert execution.last_no == last
    assert execution.failed


def test_delete_cancels_then_forgets(table, runner):
    execution = put(table)
    assert table.delete(KEY, 1) is execution
    assert execution.failed
    runner.runs[0].kill()
    assert table.delete(KEY, 1) is execution
    assert table.delete(KEY, 1) is None


def test_progress_that_nobody_has_read_is_replaced(table):
    execution = read(table)
    execution.progress(1, 10, "records")
    execution.progress(2, 10, "records")
    assert execution.last_no == 1
    assert b'"done":2' in execution.page(0)[0]
    execution.progress(3, 10, "records")
    assert execution.last_no == 2


def test_a_page_holds_at_most_4_mib_and_at_least_one_event(table, runner):
    execution = read(table)
    for _ in range(3):
        runner.runs[0].emit(b"x" * 2_000_000)
    assert len(execution.page(0)) == 4
    runner.runs[0].emit(b"x" * 9_000_000)
    assert len(execution.page(3)) == 2


def test_stopping_ends_what_runs_and_what_waits(table, runner):
    put(table)
    waiting = put(table, attempt=2)
    table.stop_all()
    runner.runs[0].kill()
    assert waiting.failed
    assert len(runner.runs) == 1
    assert not table.busy


def test_what_keeps_a_step_from_beginning_is_told_as_far_as_its_class_allows(clock):
    class Failing:
        def start(self, execution, request, bodies):
            raise ValueError(str(request.capability).upper())

    slots = {"a.call@1": Slots(1, Failing(), StepMetrics())}
    spoken = SpokenLines(most=DataClass.PUBLIC)
    with capture_logs() as found:
        put(StepTable(slots, clock, TIMING, spoken))
        put(StepTable(slots, clock, TIMING))
    withheld, told = [one["exception"] for one in found]
    assert "ValueError" in withheld
    assert "A.CALL@1" not in withheld
    assert "A.CALL@1" in told
