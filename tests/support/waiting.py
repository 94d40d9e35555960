"""Waits for something that nobody announces, with a deadline."""

import asyncio
from collections.abc import Awaitable, Callable
from inspect import isawaitable


async def until(condition: Callable[[], bool | Awaitable[bool]], *, within_s: float = 60.0) -> None:
    """Return as soon as the condition holds; fail where it does not in time."""
    async with asyncio.timeout(within_s):
        while True:
            holds = condition()
            if await holds if isawaitable(holds) else holds:
                return
            await asyncio.sleep(0.01)  # the kernel and other processes announce nothing to us
