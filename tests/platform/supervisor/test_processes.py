import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from hivemesh_platform.supervisor import processes
from hivemesh_platform.supervisor.orphans import stop_orphans
from hivemesh_platform.supervisor.processes import Launch, ProcessId, WorkerProcess
from hivemesh_platform.supervisor.records import Record, Records
from waiting import until

pytestmark = pytest.mark.integration

SLEEPS = "import time; time.sleep(600)"
READS_TOKEN = (
    "import os, socket, sys\n"
    "channel = socket.socket(fileno=int(os.environ['HIVEMESH_TOKEN_FD']))\n"
    "line = channel.makefile().readline()\n"
    "sys.stdout.write(line + ' '.join(sorted(os.environ)) + ' ' + str(sys.argv))\n"
)
WITH_CHILD = (
    "import subprocess, sys, time\n"
    f"child = subprocess.Popen([sys.executable, '-c', {SLEEPS!r}])\n"
    "print(child.pid, flush=True)\n"
    "time.sleep(600)\n"
)
WITH_GROUP = WITH_CHILD.replace(
    "])\n", "], process_group=0)\n"
)  # as an executor and what it starts


def launch(folder: Path, code: str) -> tuple[WorkerProcess, object]:
    with (folder / "out").open("wb") as output:
        return processes.start(
            Launch(
                command=[sys.executable, "-c", code],
                environment={"A": "1"},
                folder=folder,
                output=output.fileno(),
            )
        )


async def ended(process: WorkerProcess) -> None:
    async with asyncio.timeout(60):
        await process.wait()


async def test_the_token_travels_over_the_inherited_channel_alone(tmp_path: Path) -> None:
    process, channel = launch(tmp_path, READS_TOKEN)
    channel.sendall(b"secret-token\n")
    await ended(process)
    channel.close()
    said = (tmp_path / "out").read_text()
    line, _, rest = said.partition("\n")
    assert line == "secret-token"
    assert "secret-token" not in rest
    assert rest.startswith("A HIVEMESH_TOKEN_FD")


async def test_an_end_is_noticed_with_its_exit_code(tmp_path: Path) -> None:
    process, channel = launch(tmp_path, "raise SystemExit(3)")
    await ended(process)
    channel.close()
    assert process.exit_code() == 3
    assert not process.id.exists()


@pytest.mark.parametrize("program", [WITH_CHILD, WITH_GROUP], ids=["child", "group"])
async def test_the_children_of_a_process_end_with_it(tmp_path: Path, program: str) -> None:
    process, channel = launch(tmp_path, program)
    await until(lambda: (tmp_path / "out").read_text().endswith("\n"))
    child = processes.identify(int((tmp_path / "out").read_text()))
    os.kill(process.id.pid, signal.SIGKILL)
    await ended(process)
    channel.close()
    await until(lambda: not child.exists())


async def test_a_process_that_is_suspended_is_told(tmp_path: Path) -> None:
    process, channel = launch(tmp_path, SLEEPS)
    process.signal(signal.SIGSTOP)
    await until(process.id.stopped)
    process.kill()
    await ended(process)
    channel.close()


async def test_a_pid_that_belongs_to_somebody_else_is_not_signalled(tmp_path: Path) -> None:
    process, channel = launch(tmp_path, SLEEPS)
    stranger = ProcessId(process.id.pid, "another boot/1")
    processes.kill_session(stranger)
    assert not stranger.exists()
    assert process.id.exists()
    process.kill()
    await ended(process)
    channel.close()


async def test_an_adopted_process_is_watched_like_a_child(tmp_path: Path) -> None:
    child, channel = launch(tmp_path, SLEEPS)
    adopted = WorkerProcess(child.id, None)
    adopted.kill()
    await ended(adopted)
    await ended(child)
    channel.close()
    assert adopted.exit_code() is None


async def test_a_process_that_is_gone_is_adopted_as_ended(tmp_path: Path) -> None:
    process, channel = launch(tmp_path, "pass")
    await ended(process)
    channel.close()
    assert WorkerProcess(process.id, None).ended


@pytest.mark.parametrize("program", [WITH_CHILD, WITH_GROUP], ids=["child", "group"])
async def test_memory_and_processes_of_a_session_are_counted(tmp_path: Path, program: str) -> None:
    process, channel = launch(tmp_path, program)
    await until(lambda: (tmp_path / "out").read_text().endswith("\n"))
    count, held = processes.usage([process.id.pid])[process.id.pid]
    process.kill()
    await ended(process)
    channel.close()
    assert count == 2
    assert held > 1024 * 1024


async def test_orphans_are_ended_and_forgotten(tmp_path: Path) -> None:
    process, channel = launch(tmp_path, SLEEPS)
    (tmp_path / "run").mkdir()
    records = Records(tmp_path / "run")
    records.add(
        Record(
            worker="a",
            instance="wi-1",
            manifest_digest="d",
            pid=process.id.pid,
            started=process.id.started,
        )
    )
    assert await asyncio.to_thread(stop_orphans, tmp_path) == 1
    await ended(process)
    channel.close()
    assert not records.all()


def test_a_record_that_was_cut_short_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "wi-1.process.json").write_text('{"worker": "a", "inst')
    assert not Records(tmp_path).all()
    assert not list(tmp_path.iterdir())
