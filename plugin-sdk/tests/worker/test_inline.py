"""Async capabilities: on a loop of their own, never on the one that serves."""

import asyncio
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from hivemesh_sdk.contracts.artifacts import Artifact
from hivemesh_sdk.contracts.steps import InputPart, StepRequest
from hivemesh_sdk.worker.inline import InlineRunner
from worker_harness import serving, until

LINES = b'{"id":1}\n{"id":2}\n'


async def test_an_answer_comes_from_another_thread(sample):
    answer = await sample.put("sample.inline_surroundings@1")
    assert answer.result["thread"] == "inline"


async def test_a_result_carries_the_digest_of_its_body(sample):
    answer = await sample.put("sample.echo@1", inputs=[b'{"a":1}'])
    frame = answer.frames[-1]
    assert frame.event.sha256 == hashlib.sha256(frame.body).hexdigest()


async def test_many_calls_at_once_each_get_their_answer(tmp_path):
    async with serving(tmp_path, slots={"sample.echo@1": 100}, warm=False) as sample:
        calls = [sample.put("sample.echo@1", inputs=[b'{"n":%d}' % n]) for n in range(100)]
        answers = await asyncio.gather(*calls)
    assert [answer.result["n"] for answer in answers] == list(range(100))


async def test_a_map_rejects_by_position(sample):
    answer = await sample.put("sample.inline_map@1", "map", [LINES])
    assert answer.kinds == ["rejected", "records", "result"]
    assert answer.frames[0].event.position == 0


async def test_an_input_by_reference_is_fetched(sample):
    reference = sample.platform.add(LINES)
    body = [InputPart(artifact=reference, count=2)]
    answer = await sample.put_parts("sample.inline_map@1", "map", body)
    assert answer.kinds == ["rejected", "records", "result"]


async def test_cancel_reaches_what_waits(sample):
    flag = sample.folder / "flag"
    task = asyncio.create_task(
        sample.put("sample.wait@1", key="r.s.1", parameters={"path": str(flag)})
    )
    await until(flag.exists)
    await sample.delete("r.s.1")
    assert (await task).failure.type.endswith(":cancelled")
    await sample.idle("sample.wait@1")


async def test_a_cancel_does_not_wait_for_inputs_that_do_not_come(sample, monkeypatch):
    asked = asyncio.Event()

    async def get(_grant, _offset, _length):
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(sample.platform, "get", get)
    body = [InputPart(artifact=sample.platform.add(LINES), count=2)]
    task = asyncio.create_task(sample.put_parts("sample.inline_map@1", "map", body))
    await asked.wait()
    await sample.delete(f"run.step.{sample.keys}")
    assert (await task).failure.type.endswith(":cancelled")
    await sample.idle("sample.inline_map@1")
    assert not sample.server.stuck


class Noted:
    """An execution that notes how it ended."""

    key, id = "r.s.1", "x1"

    def __init__(self):
        self.problem, self.released = None, False

    def fail(self, problem, *, refused):
        self.problem = problem

    def release(self):
        self.released = True


async def test_a_cancel_before_the_first_input_is_asked_for_ends_the_step(tmp_path):
    capability = SimpleNamespace(id="a.b@1", secrets_of=lambda _: frozenset())
    runner, execution = InlineRunner({"a.b@1": capability}, None, tmp_path), Noted()
    runner.open()
    try:
        part = InputPart(artifact=Artifact(sha256="0" * 64, size=1), count=1)
        request = StepRequest(capability="a.b@1", kind="call", attempt=1, epoch=1, inputs=[part])
        step = runner.start(execution, request, [None])
        step.cancel()
        await until(lambda: execution.released)
    finally:
        runner.close()
    assert execution.problem.type.endswith(":cancelled")
    assert not runner.left_behind


async def test_an_exception_is_a_problem(sample):
    answer = await sample.put("sample.inline_fail@1", inputs=[b'"no"'])
    assert answer.failure.detail == "ValueError: no"


async def test_a_wrong_input_is_a_problem_with_pointers(sample):
    answer = await sample.put("sample.inline_fail@1", inputs=[b'{"a":1}'])
    assert answer.failure.type.endswith(":input-invalid")
    assert answer.failure.errors


async def test_options_are_refused_before_anything_runs(sample):
    answer = await sample.put("sample.wait@1", parameters={"paht": "x"})
    assert (answer.status, answer.slug) == (422, "options-invalid")


async def test_blocking_code_is_noticed_and_stops_nobody_else(sample, capsys):
    flag = sample.folder / "flag"
    task = asyncio.create_task(sample.put("sample.block@1", parameters={"path": str(flag)}))
    await until(flag.exists)
    status = await sample.get("/v1/status")
    assert not task.done()
    assert status.status == 200
    flag.unlink()
    await task
    assert sample.server._inline.blocked == 1
    assert "inline_blocked" in capsys.readouterr().out


async def test_blocking_code_is_left_behind_after_the_grace(sample):
    flag = sample.folder / "flag"
    task = asyncio.create_task(
        sample.put("sample.block@1", deadline_ms=500, parameters={"path": str(flag)})
    )
    await until(flag.exists)
    assert (await task).failure.type.endswith(":deadline-exceeded")
    await sample.idle("sample.block@1")
    flag.unlink()
    await until(lambda: not sample.server.stuck)  # it has stopped after all


async def test_code_that_never_stops_makes_the_instance_one_to_replace(sample):
    flag = sample.folder / "flag"
    task = asyncio.create_task(
        sample.put("sample.unyielding@1", key="r.s.1", parameters={"path": str(flag)})
    )
    await until(flag.exists)
    assert not sample.server.stuck
    await sample.delete("r.s.1")
    assert (await task).failure.type.endswith(":cancelled")
    await until(lambda: sample.server.stuck)
    assert sample.server.active()["sample.unyielding@1"] == 0
    again = await sample.put("sample.echo@1", inputs=[b'{"a":1}'])
    assert again.result == {"a": 1}


async def test_artifacts_are_for_processes_only(sample):
    reference = {"sha256": "0" * 64, "size": 1}
    answer = await sample.put("sample.inline_artifact@1", inputs=[json.dumps(reference).encode()])
    assert answer.failure.type.endswith(":configuration")


async def test_any_thread_may_log(sample):
    answer = await sample.put("sample.from_thread@1")
    assert answer.kinds == ["log", "result"]


async def test_scratch_is_removed(sample):
    answer = await sample.put("sample.inline_surroundings@1")
    await until(lambda: not Path(answer.result["scratch"]).exists())


@pytest.mark.parametrize("count", [1, 3])
async def test_an_endless_source_follows_its_reader(sample, count):
    answer = await sample.put("sample.endless@1", "source", key="r.s.1")
    execution, last = answer.execution, 0
    for _ in range(count):
        last = answer.frames[-1].event.no
        answer = await sample.events("r.s.1", execution, last)
        assert answer.frames[0].event.no == last + 1
    await sample.delete("r.s.1")
    await sample.idle("sample.endless@1")
