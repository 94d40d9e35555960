import asyncio
import sys
from pathlib import Path

import pytest
from hivemesh_platform.registry.model import WorkerType
from hivemesh_platform.registry.types import InstalledWorker
from hivemesh_platform.supervisor.launcher import Launcher
from hivemesh_platform.supervisor.outputs import WorkerLog
from hivemesh_platform.supervisor.records import Record, Records
from registry_support import manifest
from waiting import until

pytestmark = pytest.mark.integration

# Stands for an interpreter: asks for a second token and writes down what it was given.
FAKE_PYTHON = f"""#!{sys.executable}
import os, socket, sys
channel = socket.socket(fileno=int(os.environ["HIVEMESH_TOKEN_FD"]))
lines = channel.makefile("rw")
first = lines.readline()
lines.write("token\\n")
lines.flush()
second = lines.readline()
print("first", first.strip(), "second", second.strip())
print("arguments", sys.argv[1:])
print("variables", sorted(os.environ))
print("folder", os.getcwd())
"""


class CountingTokens:
    """Makes token-1, token-2 … and remembers for whom."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []

    async def create_token(
        self, worker: str, *, instance: str = "", manifest_digest: str = ""
    ) -> str:
        self.asked.append((worker, instance, manifest_digest))
        return f"token-{len(self.asked)}"


_seen: list[Record] = []


class FullDisk(Records):
    """Cannot remember anything."""

    def add(self, record: Record) -> None:
        _seen[:] = [record]
        raise OSError(28, "No space left on device")


@pytest.fixture
def python(tmp_path: Path) -> Path:
    path = tmp_path / "python"
    path.write_text(FAKE_PYTHON)
    path.chmod(0o700)
    return path


@pytest.fixture
def log(tmp_path: Path) -> WorkerLog:
    return WorkerLog(tmp_path / "a.log", max_bytes=10_000, files=1)


def installed(folder: Path) -> InstalledWorker:
    found = manifest()
    return InstalledWorker(type=WorkerType(manifest=found, digest=found.digest()), folder=folder)


def launcher(folder: Path, tokens: CountingTokens, records: Records | None = None) -> Launcher:
    return Launcher(
        tokens=tokens,
        records=records or Records(folder),
        variables={"LANG": "C.UTF-8"},
        scratch=folder,
    )


async def test_tokens_travel_over_the_channel_alone(
    tmp_path: Path, python: Path, log: WorkerLog
) -> None:
    tokens = CountingTokens()
    started = await launcher(tmp_path, tokens).launch(installed(tmp_path), python, log)
    async with asyncio.timeout(20):
        await started.serve_tokens()
        await started.process.wait()
    said = log.tail(10).decode().splitlines()
    assert said[0] == "first token-1 second token-2"
    assert "token-1" not in "".join(said[1:])
    assert said[2] == "variables ['HIVEMESH_INSTANCE', 'HIVEMESH_TOKEN_FD', 'LANG']"


async def test_tokens_are_bound_to_worker_instance_and_manifest(
    tmp_path: Path, python: Path, log: WorkerLog
) -> None:
    tokens, worker = CountingTokens(), installed(tmp_path)
    started = await launcher(tmp_path, tokens).launch(worker, python, log)
    started.process.kill()
    started.channel.close()
    async with asyncio.timeout(20):
        await started.process.wait()
    assert tokens.asked == [("echo", started.instance, worker.type.digest)]


async def test_a_process_is_recorded_before_it_can_join(
    tmp_path: Path, python: Path, log: WorkerLog
) -> None:
    started = await launcher(tmp_path, CountingTokens()).launch(installed(tmp_path), python, log)
    (record,) = Records(tmp_path).all()
    assert record.process == started.process.id
    assert record.process.exists()  # it waits for its token
    started.process.kill()
    started.channel.close()
    async with asyncio.timeout(20):
        await started.process.wait()


async def test_a_process_that_cannot_be_recorded_is_ended(
    tmp_path: Path, python: Path, log: WorkerLog
) -> None:
    records = FullDisk(tmp_path)
    with pytest.raises(OSError, match="No space"):
        await launcher(tmp_path, CountingTokens(), records).launch(installed(tmp_path), python, log)
    await until(lambda: not _seen[0].process.exists())
