"""Whatever the author's code says, raises or ends costs its own step or record, and nothing else."""

import json

import pytest
from hivemesh_sdk.contracts.problems import slug_of
from hivemesh_sdk.worker.inline import InlineRunner
from structlog.testing import capture_logs
from worker_harness import serving, until

ESCAPED = "caf\\udce9"
LINES = b'{"id":1}\n{"id":2}\n{"id":3}\n'
ENDS = {
    "raise": ("step-failed", f"ValueError: {ESCAPED}"),
    "fatal": ("step-fatal", ESCAPED),
    "unprintable": ("step-failed", "UnprintableError: UnprintableError"),
    "own": ("step-failed", "OwnError: "),
    "exit": ("step-failed", "SystemExit: 3"),
    "interrupt": ("step-failed", "KeyboardInterrupt: "),
    "cancelled": ("step-failed", "CancelledError: "),
}
LASTING = {"fatal", "own", "answer"}


@pytest.fixture(autouse=True)
def _quiet():
    """Render no stack traces, which takes longer than the tests."""
    with capture_logs():
        yield


@pytest.fixture
async def inline(tmp_path):
    """The sample worker without an executor."""
    async with serving(tmp_path, warm=False) as running:
        yield running


@pytest.fixture(params=["sample.", "sample.inline."])
async def at(request, tmp_path):
    """The worker and the first half of a capability's name: in an executor, and inline."""
    async with serving(tmp_path, warm=False) as running:
        yield running, request.param
        assert running.server._pool.crashes == 0
        assert not running.server.stuck
        assert not any(running.server.active().values())


async def test_whatever_a_step_raises_is_its_problem(at):
    sample, where = at
    for how, expected in ENDS.items():
        answer = await sample.put(f"{where}misbehave@1", inputs=[json.dumps(how).encode()])
        assert (slug_of(answer.failure), answer.failure.detail) == expected
        assert answer.failure.retryable == (how not in LASTING)


async def test_an_answer_that_cannot_be_written_is_a_lasting_problem(at):
    sample, where = at
    answer = await sample.put(f"{where}misbehave@1", inputs=[b'"answer"'])
    assert slug_of(answer.failure) == "output-invalid"
    assert not answer.failure.retryable


async def test_a_step_may_say_what_nobody_can_keep(at):
    sample, where = at
    for how in ("log", "progress", "print"):
        answer = await sample.put(f"{where}misbehave@1", inputs=[json.dumps(how).encode()])
        assert answer.result == how
        if how == "log":
            event = answer.frames[0].event
            assert event.message == ESCAPED
            assert event.fields == {ESCAPED: ESCAPED, "many": "[1]"}
        if how == "progress":
            event = answer.frames[0].event
            assert (event.done, event.unit) == (2**63 - 1, ESCAPED)


async def test_a_record_that_cannot_be_written_costs_itself_alone(at):
    sample, where = at
    answer = await sample.put(f"{where}reject@1", "map", [LINES])
    assert answer.kinds == ["rejected", "rejected", "records", "result"]
    refused, unwritable, records = (frame.event for frame in answer.frames[:3])
    assert (refused.reason, refused.detail) == ("bad", ESCAPED)
    assert ESCAPED in refused.position
    assert (unwritable.reason, unwritable.position) == ("output-invalid", 1)
    assert records.count == 1
    assert json.loads(answer.frames[2].body)["id"] == 3


@pytest.mark.parametrize("attempt", [1, 2])
async def test_a_quick_function_costs_its_own_call(inline, attempt):
    for then in ("leave", "exit", "no unicode"):
        answer = await inline.put(
            "sample.quick@1", inputs=[b"{}"], attempt=attempt, parameters={"then": then}
        )
        assert slug_of(answer.failure) == "step-failed"
    assert (await inline.put("sample.quick@1", inputs=[b"{}"], attempt=attempt)).result
    assert not inline.server.stuck


@pytest.mark.parametrize("how", ["exit", "stop"])
async def test_code_that_ends_the_second_loop_ends_no_other_step(inline, how):
    await inline.put("sample.inline.leave@1", inputs=[json.dumps(how).encode()])
    answer = await inline.put("sample.echo@1", inputs=[b'{"a":1}'])
    assert answer.result == {"a": 1}
    assert not inline.server.stuck


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_second_loop_that_ends_makes_the_instance_one_to_replace(inline, monkeypatch):
    def broken(_runner):
        raise RuntimeError

    monkeypatch.setattr(InlineRunner, "_run_loop", broken)
    runner = inline.server._inline
    runner._loop.call_soon_threadsafe(runner._loop.stop)
    await until(lambda: inline.server.stuck)
