"""What goes on beside the processes outlives its own errors."""

import asyncio
import errno
from pathlib import Path
from types import SimpleNamespace

import pytest
from hivemesh_platform import loops
from hivemesh_platform.supervisor import service
from hivemesh_platform.supervisor.model import Limits
from hivemesh_platform.supervisor.service import Supervisor, SupervisorSettings
from hivemesh_sdk.clock import SystemClock


class Types:
    """Worker types whose folder cannot be read the first time."""

    def __init__(self) -> None:
        self.read = 0
        self.again = asyncio.Event()

    def all(self) -> list[object]:
        return []

    def refresh(self) -> bool:
        self.read += 1
        if self.read == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.again.set()
        return False


async def never(*_: object) -> None:
    await asyncio.Event().wait()


async def test_a_full_disk_does_not_end_the_supervisor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "TICK_S", 0.0)
    monkeypatch.setattr(loops, "AGAIN_S", 0.0)
    types = Types()
    settings = SupervisorSettings(
        state_folder=tmp_path,
        project=None,
        default_instances=1,
        instances={},
        host="127.0.0.1",
        alone_s=60.0,
        limits=Limits(),
        log_bytes=1000,
        log_files=2,
        environment={},
    )
    supervisor = Supervisor(
        settings,
        types=types,  # type: ignore[arg-type]
        registry=SimpleNamespace(changed=never),  # type: ignore[arg-type]
        routing=SimpleNamespace(suspects=never, busy=None),  # type: ignore[arg-type]
        tokens=SimpleNamespace(),  # type: ignore[arg-type]
        builder=SimpleNamespace(),  # type: ignore[arg-type]
        clock=SystemClock(),
    )
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        running = group.create_task(supervisor.run("https://127.0.0.1:1", "https://127.0.0.1:2"))
        await types.again.wait()
        assert not running.done()
        running.cancel()
