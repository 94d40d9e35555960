"""A clock that jumped past the certificate's end: the worker comes back by itself."""

import asyncio
import os
from datetime import timedelta
from pathlib import Path

import pytest
from hivemesh_sdk.lifecycle.environment import read_environment
from hivemesh_sdk.lifecycle.location import locate
from hivemesh_sdk.lifecycle.process import WorkerProcess
from hivemesh_sdk.testing.clock import ManualClock
from hivemesh_sdk.testing.fake_platform import FakePlatform

TEXT_WORKER = Path(__file__).parents[1] / "testing" / "text-worker"

pytestmark = pytest.mark.integration


async def until(platform: FakePlatform, condition) -> None:
    async with asyncio.timeout(30), platform.changed:
        await platform.changed.wait_for(condition)


async def test_a_worker_enrols_again_after_the_clock_has_jumped_past_its_certificate(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    clock = ManualClock()
    async with FakePlatform(lifetime=timedelta(hours=1)) as platform:
        reader, writer = os.pipe()
        os.write(writer, f"{platform.new_token()}\n".encode())
        variables = {**platform.environment(), "HIVEMESH_TOKEN_FD": str(reader)}
        worker = WorkerProcess(locate(TEXT_WORKER), read_environment(variables), clock=clock)
        running = asyncio.create_task(worker.run())
        await until(platform, lambda: platform.members)
        (before,) = platform.members.values()

        platform.lifetime = timedelta(hours=6)  # OpenSSL looks at the machine's clock, which stood
        clock.jump(timedelta(hours=2))
        os.write(writer, f"{platform.new_token()}\n".encode())
        await until(platform, lambda: len(platform.enrolments) == 2)
        (after,) = platform.members.values()
        beats = len(after.heartbeats)
        await until(platform, lambda: len(after.heartbeats) > beats)

        assert (after.instance, platform.renewals) == (before.instance, 0)
        worker.stop()
        assert await running == 0
        os.close(writer)
