"""One loop that meets an error ends neither itself nor the platform."""

import asyncio

import pytest
from hivemesh_platform import loops
from hivemesh_platform.storage.errors import StorageFullError


@pytest.mark.parametrize("error", [StorageFullError("the disk is full"), KeyError("a bug")])
async def test_a_loop_goes_on_after_an_error(monkeypatch, error):
    monkeypatch.setattr(loops, "AGAIN_S", 0.0)
    turns = []

    async def loop():
        turns.append(len(turns))
        if len(turns) < 3:
            raise error

    await loops.forever("test", loop)
    assert turns == [0, 1, 2]


async def test_a_loop_ends_when_it_is_cancelled():
    task = asyncio.ensure_future(loops.forever("test", asyncio.Event().wait))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
