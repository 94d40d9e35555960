"""What a process has freed goes back to the system, and garbage is looked for."""

import asyncio
import gc
import sys
import weakref

import pytest
from hivemesh_sdk import heap


class Ring:
    """Refers to itself, so that only the collector finds it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.mark.skipif(sys.platform != "linux", reason="the settings belong to glibc")
def test_the_allocator_takes_the_settings() -> None:
    assert heap.set_up_allocator()


async def test_garbage_is_found_though_the_collector_is_quiet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heap, "FIRST_S", 0.0)
    monkeypatch.setattr(heap, "EVERY_S", 0.0)
    found = asyncio.Event()
    gc.disable()
    try:
        loop = asyncio.get_running_loop()
        ring = Ring()
        weakref.finalize(ring, loop.call_soon_threadsafe, found.set)
        del ring
        task = asyncio.create_task(heap.give_back_regularly())
        await asyncio.wait_for(found.wait(), 60)
        task.cancel()
    finally:
        gc.enable()
