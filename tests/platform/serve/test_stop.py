"""A platform that is stopped ends, whatever happens at that very moment."""

import asyncio
import errno
from contextlib import suppress
from types import SimpleNamespace

import pytest
from hivemesh_platform.replicas.model import Urls
from hivemesh_platform.server import _end, _naming_others
from hivemesh_sdk.contracts.policy import DenyList
from platform_support import platform

pytestmark = pytest.mark.integration
WITHIN_S = 30.0


@pytest.mark.parametrize("steps", [0, 1, 2])
async def test_a_stop_that_meets_a_new_denial_ends(tmp_path, steps):
    """The task that signs it is woken and cancelled within a few steps of the loop."""
    async with asyncio.timeout(WITHIN_S), platform(tmp_path) as running:
        running.policy.deny(DenyList(serials=["1f"]))
        for _ in range(steps):
            await asyncio.sleep(0)


async def test_a_cancel_that_was_swallowed_is_repeated(monkeypatch):
    monkeypatch.setattr("hivemesh_platform.server.CANCEL_AGAIN_S", 0.01)
    swallowed = 0

    async def deaf():
        nonlocal swallowed
        while swallowed < 2:
            with suppress(asyncio.CancelledError):
                await asyncio.get_running_loop().create_future()
            swallowed += 1

    task = asyncio.create_task(deaf())
    await asyncio.sleep(0)
    async with asyncio.timeout(WITHIN_S):
        await _end([task])
    assert swallowed == 2


class Operator:
    """Files of the operator on a disk that is full at first."""

    def __init__(self):
        self.tries, self.written = 0, asyncio.get_running_loop().create_future()

    def write_endpoint(self, host, port, others):
        self.tries += 1
        if self.tries == 1:
            raise OSError(errno.ENOSPC, "no space left on device")
        self.written.set_result((host, port, others))


async def test_others_are_named_as_soon_as_the_disk_takes_it(monkeypatch):
    monkeypatch.setattr("hivemesh_platform.server.BEAT_S", 0.01)
    others = [
        SimpleNamespace(urls=Urls(mesh=url)) for url in ("https://b:1", "https://c:65536", "")
    ]
    operator = Operator()
    async with (
        asyncio.timeout(WITHIN_S),
        _naming_others(SimpleNamespace(others=others), operator, ("a", 1)),
    ):
        assert await operator.written == ("a", 1, [("b", 1)])
