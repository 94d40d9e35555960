"""Real worker processes under a whole platform; each rule costs a start of a second or two."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import killable_platform
import pytest
from hivemesh_platform.app import Platform
from hivemesh_platform.cli.log_lines import parsed
from hivemesh_platform.registry.model import InstanceState
from hivemesh_platform.supervisor.environment import EnvironmentBuilder
from hivemesh_platform.supervisor.processes import ProcessId, identify
from hivemesh_platform.supervisor.records import Records
from hivemesh_sdk.contracts.api import RunView
from killable_platform import of_the_tests
from platform_support import ask, platform
from waiting import until

pytestmark = pytest.mark.integration

MANIFEST = """
apiVersion: hivemesh/v1
kind: Worker
metadata: {name: tiny, version: 1.0.0}
runtime: {entrypoint: "worker_tiny.main:worker"}
capabilities: [{id: tiny.say@1, kind: call, run_in: inline}]
"""
MAIN = """
from hivemesh_sdk import Worker

worker = Worker()


@worker.call("tiny.say@1")
async def say(input: str) -> str:
    return input
"""


@pytest.fixture(autouse=True)
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A worker of a few lines; building environments is tested by itself."""
    monkeypatch.setattr(EnvironmentBuilder, "build", of_the_tests)
    folder = tmp_path / "workers" / "tiny"
    (folder / "src" / "worker_tiny").mkdir(parents=True)
    (folder / "pyproject.toml").write_text("[project]\nname = 'tiny'\n")
    (folder / "plugin.yaml").write_text(MANIFEST)
    (folder / "src" / "worker_tiny" / "__init__.py").touch()
    (folder / "src" / "worker_tiny" / "main.py").write_text(MAIN)
    return folder


def live(found: Platform) -> list[str]:
    return [
        listing.instance.id
        for listing in found.registry.instances()
        if listing.state is InstanceState.LIVE
    ]


def process(found: Platform, instance: str) -> ProcessId:
    return identify(found.supervisor.pid("tiny", instance))


async def become_live(found: Platform, number: int = 1) -> list[str]:
    await until(lambda: len(live(found)) == number, within_s=120)
    return live(found)


async def test_a_worker_is_started_listed_scaled_and_gone_in_the_end(tmp_path: Path) -> None:
    async with platform(tmp_path, **{"workers.supervise": True}) as found:
        (first,) = await become_live(found)
        await until(lambda: found.overview.worker("tiny").state == "live")
        scaled = await ask(found, "scale", "tiny", 2)
        both = await become_live(found, 2)
        processes = [process(found, name) for name in both]
        await ask(found, "scale", "tiny", 1)
        assert await become_live(found, 1)
        log = await ask(found, "worker_log", "tiny")
    assert scaled.wanted == 2
    assert first in both
    assert log
    assert not any(one.exists() for one in processes)
    assert not Records(found.state_folder / "run").all()


async def test_the_log_of_a_worker_has_what_its_capabilities_say(
    tmp_path: Path, tiny: Path
) -> None:
    says = MAIN.replace("(input: str)", "(input: str, context: Context)")
    says = says.replace("return", 'context.log.info("said", words=input.split())\n    return')
    says = says.replace("import Worker", "import Context, Worker")
    (tiny / "src" / "worker_tiny" / "main.py").write_text(says)
    async with platform(tmp_path, **{"workers.supervise": True}) as found:
        await become_live(found)
        job = await ask(found, "call", "tiny.say@1", "a b", wait_s=10)
        log = await ask(found, "worker_log", "tiny")
    (line,) = [one for one in map(parsed, log.splitlines()) if one["event"] == "said"]
    assert line["fields"] == {"words": ["a", "b"]}
    assert line["step"].startswith(job.id)


async def test_a_restart_replaces_one_after_the_other(tmp_path: Path) -> None:
    settings = {"workers.supervise": True, "workers.default_instances": 2}
    async with platform(tmp_path, **settings) as found:
        before = set(await become_live(found, 2))
        seen: list[set[str]] = []

        def replaced() -> bool:
            seen.append(set(live(found)))
            return len(seen[-1]) == 2 and not seen[-1] & before

        await ask(found, "restart", "tiny")
        await until(replaced, within_s=120)
    assert all(seen)


async def test_a_killed_worker_is_replaced(tmp_path: Path) -> None:
    async with platform(tmp_path, **{"workers.supervise": True}) as found:
        (first,) = await become_live(found)
        os.kill(process(found, first).pid, signal.SIGKILL)
        await until(lambda: live(found) not in ([], [first]), within_s=120)
        seen = await ask(found, "worker", "tiny")
    assert seen.instances[0].restarts == 1
    assert seen.instances[0].id != first


async def test_a_worker_that_a_step_kills_is_started_again_without_a_wait(
    tmp_path: Path, tiny: Path
) -> None:
    dies = MAIN.replace("return input", "os.kill(os.getpid(), 9)")
    (tiny / "src" / "worker_tiny" / "main.py").write_text("import os\n" + dies)
    settings = {"workers.supervise": True, "execution.retry_delay_s": 0.01}
    async with platform(tmp_path, **settings) as found:
        await become_live(found)
        job = await ask(found, "call", "tiny.say@1", "a", wait_s=0)
        ended = await wait_for_end(found, job.id)
        fleet = found.supervisor._fleets["tiny"]
        assert ended.state == "failed"
        await until(lambda: fleet.restarts == 3)  # seen beside the end of the job
        assert fleet._backoff.failures == 0


async def wait_for_end(found: Platform, job: str) -> RunView:
    async with asyncio.timeout(120):
        while not (view := await ask(found, "run", job)).state.ended:  # noqa: ASYNC110 - asked as people do
            await asyncio.sleep(0.05)
    return view


async def test_a_suspended_worker_is_replaced_and_may_come_back(tmp_path: Path) -> None:
    async with platform(tmp_path, **{"workers.supervise": True}) as found:
        (first,) = await become_live(found)
        suspended = process(found, first)
        os.kill(suspended.pid, signal.SIGSTOP)
        await until(lambda: live(found) not in ([], [first]), within_s=120)
        assert suspended.exists()  # it may come back for a while; then it is one too many
    assert not suspended.exists()


async def test_a_worker_that_cannot_run_is_shown_as_a_crash_loop(
    tmp_path: Path, tiny: Path
) -> None:
    (tiny / "src" / "worker_tiny" / "main.py").write_text("raise RuntimeError('broken')")
    async with platform(tmp_path, **{"workers.supervise": True}) as found:
        await until(lambda: found.overview.worker("tiny").state == "crash-loop", within_s=120)
        seen = await ask(found, "worker", "tiny")
        log = await ask(found, "worker_log", "tiny")
    assert "exit code" in seen.reason
    assert "broken" in log


async def test_workers_outlive_a_killed_platform_and_are_adopted(tmp_path: Path) -> None:
    settings = [f'--set=workers.folders=["{tmp_path / "workers"}"]']
    settings += ["--set=api.port=0", "--set=api.enrolment_port=0"]
    killed = await asyncio.create_subprocess_exec(
        *(sys.executable, killable_platform.__file__, "--state", str(tmp_path / "state")),
        *settings,
        cwd=tmp_path,
    )
    records = Records(tmp_path / "state" / "run")
    log = tmp_path / "state" / "logs" / "platform.log"
    await until(lambda: log.exists() and "instance_registered" in log.read_text(), within_s=120)
    (first,) = records.all()
    killed.kill()
    await killed.wait()
    assert first.process.exists()
    async with platform(tmp_path, **{"workers.supervise": True}) as found:
        assert await become_live(found) == [first.instance]
        assert found.supervisor.pid("tiny", first.instance) == first.pid
    assert not first.process.exists()


async def test_a_second_request_to_stop_kills_at_once(tmp_path: Path) -> None:
    async with platform(tmp_path, **{"workers.supervise": True}) as found:
        (first,) = await become_live(found)
        kept = process(found, first)
        os.kill(kept.pid, signal.SIGSTOP)  # it cannot drain
        hurry = asyncio.Event()
        hurry.set()
        async with asyncio.timeout(20):
            await found.supervisor.stop(hurry)
    assert not kept.exists()


async def test_a_changed_manifest_replaces_the_process(tmp_path: Path, tiny: Path) -> None:
    async with platform(tmp_path, **{"workers.supervise": True}) as found:
        (first,) = await become_live(found)
        (tiny / "plugin.yaml").write_text(MANIFEST.replace("1.0.0", "1.0.1"))
        await until(lambda: live(found) not in ([], [first]), within_s=120)
        seen = await ask(found, "worker", "tiny")
    assert (seen.version, seen.instances[-1].version) == ("1.0.1", "1.0.1")


async def test_a_worker_that_takes_more_memory_than_its_manifest_says_is_replaced(
    tmp_path: Path, tiny: Path
) -> None:
    (tiny / "plugin.yaml").write_text(MANIFEST + "resources: {memory_mb: 32}\n")
    async with platform(tmp_path, **{"workers.supervise": True}) as found:
        (first,) = await become_live(found)
        kept = process(found, first)
        await asyncio.to_thread(found.supervisor._look_after)  # what it does every five seconds
        await until(lambda: not kept.exists())


async def test_a_worker_within_its_limits_is_left_alone(tmp_path: Path) -> None:
    async with platform(tmp_path, **{"workers.supervise": True}) as found:
        (first,) = await become_live(found)
        kept = process(found, first)
        await asyncio.to_thread(found.supervisor._look_after)
        assert kept.exists()
