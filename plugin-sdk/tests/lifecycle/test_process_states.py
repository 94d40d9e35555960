"""What one worker process does when clocks jump, platforms go away and people are in a hurry.

The process lives on the loop of the test, so that its clock can be moved.
"""

import asyncio
import os
import socket
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from hivemesh_sdk.errors import ConfigurationError
from hivemesh_sdk.lifecycle.environment import read_environment
from hivemesh_sdk.lifecycle.location import locate
from hivemesh_sdk.lifecycle.process import ALONE, ENDED, WorkerProcess
from hivemesh_sdk.lifecycle.remembered import Remembered
from hivemesh_sdk.testing.clock import ManualClock
from hivemesh_sdk.testing.fake_platform import FakePlatform
from hivemesh_sdk.testing.instance import InstanceUnderTest, Step
from hivemesh_sdk.transport.errors import WorkerUnreachableError
from hivemesh_sdk.trust.keys import key_pem, pem, write_private_file

TEXT_WORKER = Path(__file__).parents[1] / "testing" / "text-worker"

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def private_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
async def platform():
    async with FakePlatform() as platform:
        yield platform


class Life:
    """A worker process of this loop and the writing end of its token pipe."""

    def __init__(self, variables: dict[str, str], clock: ManualClock) -> None:
        reader, self._writer = os.pipe()
        environment = read_environment({**variables, "HIVEMESH_TOKEN_FD": str(reader)})
        self.process = WorkerProcess(locate(TEXT_WORKER), environment, clock=clock)
        self.task: asyncio.Task[int]

    def give(self, token: str) -> None:
        os.write(self._writer, f"{token}\n".encode())

    def start(self) -> None:
        self.task = asyncio.create_task(self.process.run())

    async def end(self) -> None:
        self.process.stop()
        self.process.stop()
        await asyncio.wait((self.task,))
        os.close(self._writer)


@asynccontextmanager
async def living(platform: FakePlatform, clock: ManualClock, variables=None):
    life = Life(variables or platform.environment(), clock)
    life.give(platform.new_token())
    life.start()
    try:
        yield life
    finally:
        await life.end()


async def until(platform: FakePlatform, condition) -> None:
    async with asyncio.timeout(30), platform.changed:
        await platform.changed.wait_for(condition)


async def joined(platform: FakePlatform):
    await until(platform, lambda: any(one.heartbeats for one in platform.members.values()))
    (member,) = platform.members.values()
    return member


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def without_enrolment(platform: FakePlatform) -> dict[str, str]:
    nowhere = f"https://127.0.0.1:{closed_port()}"
    return {**platform.environment(), "HIVEMESH_ENROLMENT": nowhere}


async def test_replicas_that_were_told_are_asked_after_a_restart_too(platform, clock, tmp_path):
    """The one that the settings name is away."""
    settings = without_enrolment(platform)
    nowhere, there = (one["HIVEMESH_ENROLMENT"] for one in (settings, platform.environment()))
    told = Remembered.of(
        "text", read_environment({**settings, "HIVEMESH_TOKEN_FD": "0"}).enrolments
    )
    told.learn(["https://127.0.0.1:1"], [nowhere, "nonsense", there])
    async with living(platform, clock, settings):
        await joined(platform)
        assert len(platform.enrolments) == 1


async def test_replicas_that_were_told_at_the_enrolment_are_remembered(platform, clock):
    settings = platform.environment()
    platform.replicas = ["https://127.0.0.1:1"]
    async with living(platform, clock, settings):
        await joined(platform)
    given = read_environment({**settings, "HIVEMESH_TOKEN_FD": "0"}).enrolments
    assert Remembered.of("text", given).replicas.enrolments == ("https://127.0.0.1:1",)


def test_what_cannot_be_read_is_not_remembered():
    Remembered.of("text", ()).learn(["https://a:1"], ["https://a:2"])
    assert Remembered.of("text", ()).replicas.platforms == ("https://a:1",)
    Remembered.of("text", ())._path.write_bytes(b"{")
    assert Remembered.of("text", ()).replicas.platforms == ()


async def test_it_enrols_again_after_the_clock_has_jumped_past_its_certificate(platform, clock):
    async with living(platform, clock) as life:
        before = await joined(platform)
        platform.lifetime = timedelta(hours=6)  # OpenSSL looks at the machine's clock, which stood
        clock.jump(timedelta(hours=2))
        life.give(platform.new_token())
        await until(platform, lambda: len(platform.enrolments) == 2)
        (after,) = platform.members.values()
        beats = len(after.heartbeats)
        await until(platform, lambda: len(after.heartbeats) > beats)
        assert (after.instance, platform.renewals) == (before.instance, 0)


async def test_it_fetches_a_newer_trust_bundle(platform, clock):
    async with living(platform, clock):
        await joined(platform)
        platform.ca.add_root()
        await until(platform, lambda: platform.bundles_given == 1)


async def test_alone_for_two_minutes_it_gives_up(platform, clock):
    async with living(platform, clock) as life:
        await joined(platform)
        await platform.close_listeners()
        clock.advance(121.0)
        async with asyncio.timeout(30):
            assert await life.task == ALONE


async def test_a_short_absence_of_the_platform_changes_nothing(platform, clock):
    async with living(platform, clock) as life:
        member = await joined(platform)
        clock.advance(119.0)
        beats = len(member.heartbeats)
        await until(platform, lambda: len(member.heartbeats) > beats)
        assert not life.task.done()


async def test_stopped_before_it_has_joined_it_ends_at_once(platform, clock):
    async with living(platform, clock, without_enrolment(platform)) as life:
        life.process.stop()
        async with asyncio.timeout(30):
            assert await life.task == ENDED


async def test_a_platform_that_never_comes_is_given_up_after_two_minutes(platform, clock):
    async with living(platform, clock, without_enrolment(platform)) as life:
        async with asyncio.timeout(30):
            while not life.task.done():  # whenever it begins to wait
                clock.advance(121.0)
                await asyncio.wait((life.task,), timeout=0.05)
        with pytest.raises(WorkerUnreachableError):
            await life.task


async def test_a_second_signal_ends_running_steps(platform, clock):
    async with living(platform, clock) as life:
        member = await joined(platform)
        instance = InstanceUnderTest(
            platform.client, member.target, member.peer.id, platform.tickets
        )
        await instance.put("run.node.1", Step.of("text.spin@1", "call", bodies=[b"40"]), wait_s=0)
        life.process.stop()
        await until(platform, lambda: member.heartbeats[-1].draining)
        life.process.stop()
        async with asyncio.timeout(30):
            assert await life.task == ENDED
        assert platform.left == [member.instance]


def identity_files(folder: Path, svid, roots) -> dict[str, str]:
    """The variables of a worker whose identity lies in files."""
    files = {"KEY": key_pem(svid.key), "CHAIN": pem(svid.chain), "BUNDLE": pem(roots)}
    for name, content in files.items():
        write_private_file(folder / name, content)
    return {f"HIVEMESH_IDENTITY_{name}": str(folder / name) for name in files}


async def test_an_identity_from_files_joins_without_enrolment(platform, clock, tmp_path):
    location = locate(TEXT_WORKER)
    who = platform.ca.worker(location.manifest.metadata.name, "by-files")
    files = identity_files(tmp_path, platform.ca.svid(who), platform.ca.bundle().roots)
    told = {
        name: value
        for name, value in platform.environment().items()
        if name not in {"HIVEMESH_TOKEN_FD", "HIVEMESH_ENROLMENT"}
    }
    process = WorkerProcess(location, read_environment({**told, **files}), clock=clock)
    task = asyncio.create_task(process.run())
    try:
        member = await joined(platform)
        assert (member.instance, len(platform.enrolments)) == ("by-files", 0)
        beat = member.heartbeats[-1]
        assert beat.bundle_sequence == platform.ca.sequence
        assert beat.issuer
    finally:
        process.stop()
        process.stop()
        await asyncio.wait((task,))
    assert task.result() == ENDED


async def test_files_of_another_worker_are_refused(platform, clock, tmp_path):
    svid = platform.ca.svid(platform.ca.worker("another", "i1"))
    files = identity_files(tmp_path, svid, platform.ca.bundle().roots)
    environment = read_environment({**platform.environment(), **files, "HIVEMESH_TOKEN_FD": ""})
    with pytest.raises(ConfigurationError, match="this worker is worker/"):
        await WorkerProcess(locate(TEXT_WORKER), environment, clock=clock).run()
