"""Small jobs: nothing, so many milliseconds of CPU, and what time it is when one begins."""

import asyncio
import time

from hivemesh_sdk import Worker

worker = Worker()


@worker.call("small.nothing@1")
def nothing(number: int) -> int:
    """Answer at once."""
    return number


@worker.call("small.compute@1")
def compute(milliseconds: float) -> float:
    """Use so much CPU time."""
    until = time.thread_time() + milliseconds / 1000
    while time.thread_time() < until:
        pass
    return milliseconds


@worker.call("small.clock@1")
def clock(_number: int) -> float:
    """The time of the first instruction."""
    return time.time()


@worker.call("small.wait@1")
async def wait(seconds: float) -> float:
    """Take so long and compute nothing."""
    await asyncio.sleep(seconds)
    return seconds


@worker.call("small.wait_alone@1")
async def wait_alone(seconds: float) -> float:
    """The same, one at a time."""
    await asyncio.sleep(seconds)
    return seconds
