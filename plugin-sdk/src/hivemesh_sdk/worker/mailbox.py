"""Hands calls from one thread's loop to another's: any number of them costs one wake-up."""

import asyncio
from collections import deque
from collections.abc import Callable


class Mailbox:
    """Calls that wait for their loop."""

    __slots__ = ("_calls", "_loop", "_woken")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: deque[Callable[[], None]] = deque()
        self._woken = False

    def post(self, call: Callable[[], None]) -> None:
        """Run `call` on the loop soon, after all that was posted before."""
        self._calls.append(call)
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self._woken = False  # before the queue is emptied: what comes later wakes again
        calls = self._calls
        while calls:
            calls.popleft()()
