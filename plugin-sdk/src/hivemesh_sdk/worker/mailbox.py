"""Hands calls from one thread's loop to another's: all calls of one turn cost one wake-up."""

import asyncio
from collections import deque
from collections.abc import Callable


class Mailbox:
    """Calls from the loop `sender` that wait for the loop `receiver`.

    The wake-up is sent when the sender has done all it can in this turn: the receiver would
    only wait for the interpreter's lock until then.
    """

    __slots__ = ("_calls", "_receiver", "_sender", "_woken")

    def __init__(
        self, sender: asyncio.AbstractEventLoop, receiver: asyncio.AbstractEventLoop
    ) -> None:
        self._sender = sender
        self._receiver = receiver
        self._calls: deque[Callable[[], None]] = deque()
        self._woken = False

    def post(self, call: Callable[[], None]) -> None:
        """Run `call` on the receiver soon, after all that was posted before; for the sender's thread."""
        self._calls.append(call)
        if not self._woken:
            self._woken = True
            self._sender.call_soon(self._wake)

    def post_from_anywhere(self, call: Callable[[], None]) -> None:
        """The same from a thread that is not the sender's."""
        self._calls.append(call)
        self._receiver.call_soon_threadsafe(self._drain)

    def _wake(self) -> None:
        self._receiver.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self._woken = False  # before the queue is emptied: what comes later wakes again
        calls = self._calls
        while calls:
            calls.popleft()()
