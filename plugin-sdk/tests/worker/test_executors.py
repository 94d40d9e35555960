"""Rules that only a real executor process can show."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress

import msgspec
import psutil
import pytest
from hivemesh_sdk.clock import SystemClock
from hivemesh_sdk.contracts.steps import Limits
from hivemesh_sdk.testing.artifacts import FolderPlatform
from hivemesh_sdk.worker.executor_process import Executor, ExecutorSettings
from hivemesh_sdk.worker.platform import ArtifactService
from worker_harness import SAMPLES, serving, until

HEAVY = {"pydantic", "fastapi", "uvicorn", "cryptography", "structlog"}

pytestmark = pytest.mark.integration


async def test_one_bad_record_costs_that_record_only(sample):
    lines = b'{"id":1,"text":"a"}\n{"id":2}\n{"id":"x"}\n{"id":4,"text":"d"}\n'
    answer = await sample.put("sample.upper@1", "map", [lines])
    assert answer.kinds == ["rejected", "rejected", "records", "result"]
    assert answer.frames[2].body == b'{"id":1,"text":"A"}\n{"id":4,"text":"D"}\n'
    assert [frame.event.position for frame in answer.frames[:2]] == [2, 1]


async def test_raw_records_pass_byte_for_byte(sample):
    line = b'{"b": 1.0,  "a":"\\u00e9"}\n'
    answer = await sample.put("sample.raw@1", "map", [line])
    assert answer.frames[0].body == line


async def test_a_map_answers_one_record_as_a_call(sample):
    answer = await sample.put("sample.upper@1", "call", [b'{"id":1,"text":"a"}'])
    assert answer.result == {"id": 1, "text": "A"}


async def test_batches_are_numbered_and_checkpoints_are_valid_after_them(sample):
    first = await sample.put(
        "sample.count@1", "source", key="run.read.0", parameters={"size": 1200}
    )
    frames = await sample.read_all("run.read.0", first)
    assert [frame.event.no for frame in frames] == list(range(1, len(frames) + 1))
    batches = [frame for frame in frames if hasattr(frame.event, "checkpoint")]
    assert [frame.event.count for frame in batches] == [500, 500, 200]
    assert [bytes(frame.event.checkpoint) for frame in batches] == [b"500", b"1000", b"1200"]


async def test_a_source_goes_on_from_a_checkpoint(sample):
    first = await sample.put(
        "sample.count@1",
        "source",
        key="run.read.0",
        parameters={"size": 10},
        checkpoint=msgspec.Raw(b"7"),
    )
    frames = await sample.read_all("run.read.0", first)
    ids = [json.loads(line)["id"] for frame in frames for line in frame.body.splitlines()]
    assert ids == [7, 8, 9]


async def test_a_source_is_suspended_after_two_pages_and_goes_on(sample):
    key = "run.read.0"
    first = await sample.put("sample.endless@1", "source", key=key)
    await until(lambda: sample.server.status().executions[0].state == "suspended")
    status = sample.server.status().executions[0]
    assert status.buffered_bytes <= 8 * 1024 * 1024 + 64 * 1024
    after = first.frames[-1].event.no
    answer = await sample.events(key, first.execution, after)
    assert answer.frames[0].event.no == after + 1
    await sample.delete(key)
    await sample.idle("sample.endless@1")


async def test_reducer_kinds(sample):
    lines = b'{"id":1}\n{"id":2}\n'
    added = await sample.put("sample.total@1", "add", [lines, lines])
    assert added.result == {"count": 4}
    merged = await sample.put("sample.total@1", "merge", [b'{"count":4}', b'{"count":3}'])
    assert merged.result == {"count": 7}
    result = await sample.put("sample.total@1", "result", [b'{"count":7}'], parameters={"width": 2})
    assert result.result == {"total": 14}


@pytest.mark.parametrize(
    ("kind", "slug", "retryable"),
    [
        ("retryable", "step-failed", True),
        ("fatal", "step-fatal", False),
        ("skipped", "skipped", False),
        ("configuration", "configuration", False),
        ("other", "step-failed", True),
    ],
)
async def test_errors_carry_the_decision(sample, kind, slug, retryable):
    answer = await sample.put("sample.fail@1", inputs=[json.dumps({"kind": kind}).encode()])
    problem = answer.failure
    assert problem.type.endswith(f":{slug}")
    assert problem.retryable is retryable
    assert problem.retry_after_s == (7 if kind == "retryable" else None)


async def test_a_problem_names_the_error_and_shows_no_traceback(sample):
    answer = await sample.put("sample.fail@1", inputs=[b'{"kind":"other","message":"no"}'])
    assert answer.failure.detail == "ValueError: no"


async def test_options_are_refused_before_anything_runs(sample):
    answer = await sample.put("sample.count@1", "source", parameters={"sise": 3})
    assert (answer.status, answer.slug) == (422, "options-invalid")
    assert [one.pointer for one in answer.problem.errors] == ["/sise"]
    assert "did you mean 'size'" in answer.problem.detail


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGKILL", "40"])
async def test_a_crash_spares_the_worker_and_names_the_signal(sample, name):
    answer = await sample.put("sample.crash@1", inputs=[json.dumps(name).encode()])
    assert answer.failure.type.endswith(":executor-crashed")
    assert name in answer.failure.detail
    again = await sample.put("sample.upper@1", "call", [b'{"id":1,"text":"a"}'])
    assert again.result == {"id": 1, "text": "A"}


async def test_status_is_answered_while_c_code_holds_the_lock(sample):
    flag = sample.folder / "flag"
    task = asyncio.create_task(
        sample.put("sample.stubborn@1", key="run.x.1", parameters={"path": str(flag)})
    )
    await until(flag.exists)
    assert (await sample.get("/v1/status")).status == 200
    status = (await sample.get("/v1/steps/run.x.1")).body
    assert json.loads(status)["state"] == "running"
    await sample.delete("run.x.1")
    assert (await task).failure.type.endswith(":cancelled")
    await sample.idle("sample.stubborn@1")


async def test_cancel_reaches_code_that_asks(sample):
    flag = sample.folder / "flag"
    task = asyncio.create_task(
        sample.put("sample.obedient@1", key="run.x.1", parameters={"path": str(flag)})
    )
    await until(flag.exists)
    before = executors()
    assert (await sample.delete("run.x.1")).status == 202
    assert (await task).failure.type.endswith(":cancelled")
    await sample.idle("sample.obedient@1")
    assert executors() == before  # nothing was killed


async def test_a_deadline_ends_a_computation_in_c_and_a_fresh_executor_takes_over(sample):
    flag = sample.folder / "flag"
    answer = await sample.put("sample.stubborn@1", deadline_ms=400, parameters={"path": str(flag)})
    assert answer.failure.type.endswith(":deadline-exceeded")
    await sample.idle("sample.stubborn@1")
    again = await sample.put("sample.upper@1", "call", [b'{"id":1,"text":"a"}'])
    assert again.result == {"id": 1, "text": "A"}


async def test_a_higher_attempt_ends_the_old_one_first(sample):
    flag, other = sample.folder / "one", sample.folder / "two"
    old = asyncio.create_task(
        sample.put("sample.stubborn@1", key="run.x.1", parameters={"path": str(flag)})
    )
    await until(flag.exists)
    pids = executors()
    flag.rename(other)
    new = asyncio.create_task(
        sample.put("sample.stubborn@1", key="run.x.1", parameters={"path": str(flag)}, attempt=2)
    )
    await until(flag.exists)
    assert not pids & executors()
    assert (await old).failure.type.endswith(":stale-attempt")
    await sample.delete("run.x.1", attempt=2)
    await new


async def test_a_sleeping_step_is_ended_after_the_grace_and_its_neighbour_goes_on(sample):
    flag = sample.folder / "flag"
    neighbour = asyncio.create_task(
        sample.put("sample.obedient@1", key="run.x.2", parameters={"path": str(flag)})
    )
    asleep = asyncio.create_task(sample.put("sample.sleep@1", key="run.x.1"))
    await until(lambda: flag.exists() and sample.server.active()["sample.sleep@1"])
    await sample.delete("run.x.1")
    assert (await asleep).failure.type.endswith(":cancelled")
    await sample.idle("sample.sleep@1")
    assert not neighbour.done()
    await sample.delete("run.x.2")
    await neighbour


LINES = b"".join(b'{"id":%d,"text":"%s"}\n' % (n, b"poison" if n == 5 else b"x") for n in range(8))


async def test_a_batch_is_computed_in_parts_and_only_the_part_with_the_poison_dies(sample):
    async def part(attempt, lines):
        return await sample.put(
            "sample.poisoned@1",
            "map",
            [LINES],
            attempt=attempt,
            key="run.x.1",
            limits=Limits(lines=lines),
        )

    assert (await part(1, None)).failure.type.endswith(":executor-crashed")
    first, last = await part(2, (0, 4)), await part(3, (6, 8))
    assert [json.loads(one)["id"] for one in first.frames[0].body.splitlines()] == [0, 1, 2, 3]
    assert [json.loads(one)["id"] for one in last.frames[0].body.splitlines()] == [6, 7]
    assert (await part(4, (5, 6))).failure.type.endswith(":executor-crashed")


async def test_what_has_killed_an_executor_takes_no_neighbour_s_with_it_again(sample):
    async def upper(number):
        key, inputs = f"run.x.{number}", [b'{"id":1,"text":"a"}']
        return await sample.put("sample.upper@1", "call", inputs, key=key)

    await upper(1)
    first = await sample.put("sample.crash@1", inputs=[b'"SIGKILL"'], key="run.bad.0")
    assert first.failure.type.endswith(":executor-crashed")
    await upper(2)
    kept = executors()
    for attempt in (2, 3, 4):
        again = await sample.put(
            "sample.crash@1", inputs=[b'"SIGKILL"'], key="run.bad.0", attempt=attempt
        )
        assert again.failure.type.endswith(":executor-crashed")
        await upper(attempt + 10)
        assert executors() == kept


async def test_an_executor_that_a_step_has_killed_is_replaced_before_another_step_comes(sample):
    await sample.put("sample.crash@1", inputs=[b'"SIGKILL"'], key="run.bad.0")
    await until(lambda: len(executors()) == 1)


async def test_another_part_is_another_execution_and_the_same_part_is_the_same(sample):
    async def part(attempt, lines):
        limits = Limits(lines=lines)
        return await sample.put(
            "sample.total@1", "add", [LINES], key="run.x.1", attempt=attempt, limits=limits
        )

    first, second, again = await part(1, (0, 3)), await part(2, (3, 8)), await part(3, (3, 8))
    assert [one.result["count"] for one in (first, second, again)] == [3, 5, 5]
    assert first.execution != second.execution == again.execution


async def test_lines_count_over_all_inputs(sample):
    inputs = [b'{"id":1}\n{"id":2}\n', b'{"id":3}\n', b'{"id":4}\n{"id":5}\n']
    for number, (lines, count) in enumerate([((1, 4), 3), ((0, 1), 1), ((3, 5), 2)], 1):
        answer = await sample.put(
            "sample.total@1", "add", inputs, key="r.s.1", attempt=number, limits=Limits(lines=lines)
        )
        assert answer.result["count"] == count


async def test_a_refused_record_of_a_part_keeps_its_place_in_the_batch(sample):
    lines = b'{"id":1,"text":"a"}\n{"id":2}\n{"id":"x"}\n{"id":4}\n'
    answer = await sample.put("sample.poisoned@1", "map", [lines], limits=Limits(lines=(1, 3)))
    refused = [
        frame.event.position
        for frame in answer.frames
        if frame.event.__class__.__name__ == "RejectedEvent"
    ]
    assert sorted(refused) == [1, 2]


async def test_several_states_are_merged_into_one_answer(sample):
    states = [b'{"count":3}', b'{"count":4}']
    answer = await sample.put("sample.total@1", "result", states, parameters={"width": 2})
    assert answer.result == {"total": 14}


async def test_memory_over_the_manifest_ends_the_executor(tmp_path):
    own = psutil.Process().memory_info().rss >> 20
    async with serving(tmp_path, resources={"memory_mb": own + 150}) as sample:
        flag = tmp_path / "flag"
        answer = await sample.put(
            "sample.grow@1", inputs=[b"300000000"], parameters={"path": str(flag)}
        )
        assert answer.failure.type.endswith(":executor-crashed")
        assert "MiB" in answer.failure.detail


async def test_an_idle_execution_is_ended(tmp_path):
    async with serving(tmp_path) as sample:
        answer = await sample.put("sample.sleep@1", idle_timeout_ms=300)
        assert answer.failure.type.endswith(":deadline-exceeded")
        assert "neither an event nor CPU time" in answer.failure.detail


async def test_an_executor_has_a_clean_environment_and_slim_imports(sample, monkeypatch):
    monkeypatch.setenv("HIVEMESH_TOKEN", "secret")
    answer = await sample.put("sample.crash@1", inputs=[b'"SIGKILL"'])  # the next one is fresh
    answer = await sample.put("sample.surroundings@1", key="run.x.9", deadline_ms=60_000)
    found = answer.result
    assert not [name for name in found["environment"] if name.startswith("HIVEMESH")]
    assert not HEAVY & set(found["modules"])
    assert found["key"] == "run.x.9"
    assert found["deadline"] == pytest.approx(60, abs=5)


def test_an_executor_imports_no_network_code():
    code = "import hivemesh_sdk.worker.executor, sys; print(*sys.modules)"
    modules = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert not (HEAVY | {"asyncio", "ssl"}) & set(modules)


async def test_scratch_is_removed_after_the_step_and_after_a_crash(sample):
    answer = await sample.put("sample.surroundings@1")
    assert answer.result["scratch"].startswith(str(sample.scratch))
    await sample.put("sample.litter@1")
    await until(lambda: not list(sample.scratch.iterdir()))


async def test_stale_scratch_is_removed_at_start(tmp_path):
    left = tmp_path / "scratch" / "old"
    left.mkdir(parents=True)
    async with serving(tmp_path):
        assert not left.exists()


async def test_log_lines_travel_with_the_next_event(sample):
    answer = await sample.put("sample.surroundings@1")
    assert answer.kinds == ["log", "result"]


async def test_a_thread_that_outlives_its_step_says_nothing_in_the_next_one(sample):
    await sample.put("sample.outlive@1", key="run.x.0")
    answer = await sample.put("sample.after@1", key="run.x.1")
    assert answer.kinds == ["result"]
    assert answer.result == {"log": "StepCancelledError", "progress": "StepCancelledError"}


async def test_slots_bound_the_executors_and_more_is_refused(tmp_path):
    async with serving(tmp_path, slots={"sample.obedient@1": 2}) as sample:
        flags = [tmp_path / "a", tmp_path / "b"]
        tasks = [
            asyncio.create_task(
                sample.put(
                    "sample.obedient@1", key=f"run.x.{number}", parameters={"path": str(flag)}
                )
            )
            for number, flag in enumerate(flags)
        ]
        await until(lambda: all(flag.exists() for flag in flags))
        refused = await sample.put("sample.obedient@1", key="run.x.9")
        assert (refused.status, refused.slug) == (429, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        for number in range(2):
            await sample.delete(f"run.x.{number}")
        await asyncio.gather(*tasks)


async def test_a_worker_that_cannot_be_imported_says_why(tmp_path):
    async with serving(tmp_path, warm=False) as sample:
        broken = "no_such_module:worker"
        object.__setattr__(sample.server._pool._settings, "entrypoint", broken)
        answer = await sample.put("sample.upper@1", "call", [b'{"id":1}'])
        assert "no_such_module" in answer.failure.detail


async def test_a_worker_that_cannot_start_a_process_says_so(tmp_path, monkeypatch):
    async with serving(tmp_path, warm=False) as sample:
        with monkeypatch.context() as missing:
            missing.setattr(sys, "executable", str(tmp_path / "no-python"))
            answer = await sample.put("sample.upper@1", "call", [b'{"id":1}'])
        assert answer.failure.type.endswith(":step-failed")
        assert sample.server.active()["sample.upper@1"] == 0
        again = await sample.put("sample.upper@1", "call", [b'{"id":1,"text":"a"}'])
        assert again.result == {"id": 1, "text": "A"}


async def test_nothing_is_left_when_the_worker_stops(tmp_path):
    async with serving(tmp_path) as sample:
        await sample.put("sample.upper@1", "call", [b'{"id":1,"text":"a"}'])
        pids = executors()
        assert pids
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert not (tmp_path / "scratch").exists()


async def test_executors_die_with_a_killed_front(tmp_path):
    script = SAMPLES / "front.py"
    front = subprocess.Popen(  # noqa: ASYNC220 - it is waited for in a thread
        [sys.executable, str(script), str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        pid = int(await asyncio.to_thread(front.stdout.readline))
        executor = psutil.Process(pid)
    finally:
        front.send_signal(signal.SIGKILL)
        front.wait()
        front.stdout.close()
    await until(lambda: not executor.is_running() or executor.status() == "zombie")


async def test_an_executor_gone_between_steps_is_replaced(sample):
    await sample.put("sample.upper@1", "call", [b'{"id":1,"text":"a"}'])
    before = executors()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    await until(lambda: (found := executors()) and not before & found)
    again = await sample.put("sample.upper@1", "call", [b'{"id":1,"text":"b"}'])
    assert again.result == {"id": 1, "text": "B"}


async def test_a_record_does_not_wait_for_a_slow_successor(sample):
    flag = sample.folder / "flag"
    first = await sample.put(
        "sample.slow@1", "source", key="run.read.0", parameters={"path": str(flag)}
    )
    assert first.frames[0].event.count == 1
    flag.touch()
    frames = await sample.read_all("run.read.0", first)
    assert [frame.event.count for frame in frames[:-1]] == [1, 1]


def executors() -> set[int]:
    """Executor processes of this test run's workers."""
    found = set()
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # it ends at this moment
            if "hivemesh_sdk.worker.executor" in child.cmdline():
                found.add(child.pid)
    return found


class Unconnected(Executor):
    """Its channel cannot be opened."""

    async def _connect(self, ours: socket.socket) -> None:
        ours.close()


class Nobody:
    """The owner of an executor that is never given a step."""

    def executor_idle(self, executor: Executor) -> None: ...

    def executor_gone(self, executor: Executor, *, crashed: bool, was_ready: bool) -> None: ...


async def test_a_process_whose_channel_never_opened_is_buried_too(tmp_path):
    settings = ExecutorSettings(
        entrypoint="sample_worker:worker",
        search_path=(str(SAMPLES),),
        scratch=tmp_path,
        memory_bytes=1 << 30,
        file_bytes=0,
    )
    executor = Unconnected(
        settings, ArtifactService(FolderPlatform(tmp_path), SystemClock()), Nobody()
    )
    executor.spawn()
    executor.kill("the worker stops")
    async with asyncio.timeout(20):
        await executor.gone.wait()
