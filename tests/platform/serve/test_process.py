"""The platform as `hivemesh up` starts it: a process of its own."""

import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path

import pytest
from hivemesh_platform.lock import holder, locked
from storage_support import write_other_version

pytestmark = pytest.mark.integration

QUIET = ("--set=workers.supervise=false", "--set=api.enrolment_port=0")
PASSPHRASE = "trust.passphrase=Zk3-q7Tv+Lw9xR2m"


async def start(folder: Path, *flags: str) -> tuple[asyncio.subprocess.Process, bytes]:
    """Start a platform and return what it says when it is ready or has failed."""
    ready, told = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hivemesh_platform.serve", "--state", str(folder / "state")),
        *(*QUIET, *flags, "--ready-fd", str(told)),
        pass_fds=[told],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(told)
    async with asyncio.timeout(60):
        message = await asyncio.to_thread(os.read, ready, 65_536)
    os.close(ready)
    return process, message


async def end(process: asyncio.subprocess.Process) -> tuple[int, str]:
    async with asyncio.timeout(60):
        _, said = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def failed(folder: Path, *flags: str) -> tuple[int, dict[str, object], str]:
    process, message = await start(folder, *flags)
    code, said = await end(process)
    return code, json.loads(message), said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_says_when_it_is_ready_and_ends_in_order(
    tmp_path: Path, number: signal.Signals
) -> None:
    process, message = await start(tmp_path, "--set=api.port=0")
    assert message == b"ready"
    assert holder(tmp_path / "state") == process.pid
    process.send_signal(number)
    assert await end(process) == (0, "")
    assert holder(tmp_path / "state") is None
    assert not (tmp_path / "state" / "operator" / "endpoint.json").exists()


async def test_the_state_folder_is_private(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o755)
    process, _ = await start(tmp_path, "--set=api.port=0")
    process.terminate()
    await end(process)
    state = tmp_path / "state"
    assert state.stat().st_mode & 0o077 == 0
    log = state / "logs" / "platform.log"
    assert log.stat().st_mode & 0o077 == 0
    assert all(json.loads(line)["event"] for line in log.read_text().splitlines())


async def test_a_taken_port_is_a_clear_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code, problem, said = await failed(tmp_path, f"--set=api.port={port}")
    assert (code, problem["code"]) == (5, "HM-1604")
    assert "fix: " in said
    assert "Traceback" not in said


async def test_a_second_platform_on_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    with locked(tmp_path / "state"):
        code, problem, _ = await failed(tmp_path, "--set=api.port=0")
    assert (code, problem["code"]) == (5, "HM-1602")


async def test_a_folder_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    write_other_version(tmp_path / "state" / "platform.db")
    _, problem, _ = await failed(tmp_path, "--set=api.port=0")
    assert problem["code"] == "HM-1603"


async def test_a_folder_whose_database_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / "platform.db").write_bytes(b"something else entirely" * 100)
    _, problem, _ = await failed(tmp_path, "--set=api.port=0")
    assert problem["code"] == "HM-1243"


async def test_a_killed_platform_does_not_start_without_its_last_commits(tmp_path: Path) -> None:
    process, message = await start(tmp_path, "--set=api.port=0")
    assert message == b"ready"
    process.kill()
    await end(process)
    log = tmp_path / "state" / "platform.db-wal"
    log.rename(tmp_path / "kept")
    code, problem, _ = await failed(tmp_path, "--set=api.port=0")
    assert (code, problem["code"]) == (5, "HM-1243")
    assert f"{log} is gone" in str(problem["detail"])
    (tmp_path / "kept").rename(log)
    process, message = await start(tmp_path, "--set=api.port=0")
    assert message == b"ready"
    process.terminate()
    assert await end(process) == (0, "")


async def test_an_unknown_setting_is_refused(tmp_path: Path) -> None:
    _, problem, said = await failed(tmp_path, "--set=api.prot=1")
    assert problem["code"] == "HM-1601"
    assert "did you mean 'api.port'" in said


@pytest.mark.parametrize("passphrase", ["", "trust.passphrase=hivemesh-passphrase"])
async def test_production_needs_a_passphrase_that_is_no_default(
    tmp_path: Path, passphrase: str
) -> None:
    flags = [f"--set={passphrase}"] if passphrase else []
    _, problem, said = await failed(tmp_path, "--set=mode=production", *flags)
    assert problem["code"] == "HM-1601"
    assert "trust.passphrase" in said


async def test_crash_points_are_refused_in_production(tmp_path: Path) -> None:
    ready, told = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hivemesh_platform.serve", "--state", str(tmp_path / "state")),
        *(*QUIET, "--set=api.port=0", "--set=mode=production", f"--set={PASSPHRASE}"),
        *("--ready-fd", str(told)),
        pass_fds=[told],
        cwd=tmp_path,
        env={"HOME": str(tmp_path), "HIVEMESH_CRASH_AT": "claim"},
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(told)
    os.close(ready)
    code, said = await end(process)
    assert code != 0
    assert "HIVEMESH_CRASH_AT" in said
