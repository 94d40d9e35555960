"""Hands calls from one thread's loop to another's: all calls of one turn cost one wake-up."""

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import structlog

_WAKE_UPS = 4096  # as many as may wait are read at once

_log = structlog.get_logger("hivemesh.mailbox")


class Mailbox:
    """Calls from the loop `sender` that wait for the loop `receiver`.

    The wake-up is sent when the sender has done all it can in this turn: the receiver would
    only wait for the interpreter's lock until then. It goes through a socket of our own: the
    kernel then lets the receiver run where the sender is about to sleep, and the receiver makes
    the calls at once instead of in its next turn. That is two thirds of `call_soon_threadsafe`.
    """

    __slots__ = ("_answers", "_calls", "_inlet", "_outlet", "_receiver", "_sender", "_woken")

    def __init__(
        self,
        sender: asyncio.AbstractEventLoop,
        receiver: asyncio.AbstractEventLoop,
        answers: "Mailbox | None" = None,
    ) -> None:
        """Make it on the receiver's thread, or before that runs.

        `answers` is the mailbox of the other direction, where most calls are answered in the turn
        after them: it then needs no turn of its own to wake up this side.
        """
        self._answers = answers
        self._sender = sender
        self._receiver = receiver
        self._calls: deque[Callable[[], None]] = deque()
        self._woken = False
        self._inlet, self._outlet = socket.socketpair()
        self._inlet.settimeout(0)
        self._outlet.settimeout(0)
        receiver.add_reader(self._outlet, self._drain)

    def post(self, call: Callable[[], None]) -> None:
        """Run `call` on the receiver soon, after all that was posted before; for the sender's thread."""
        self._calls.append(call)
        if not self._woken:
            self._woken = True
            self._sender.call_soon(self._wake)

    def await_posts(self) -> None:
        """Wake the receiver behind all that the sender's next turn does by now."""
        if not self._woken:
            self._woken = True
            self._sender.call_soon(self._wake_for_posts)

    def _wake_for_posts(self) -> None:
        if self._calls:
            self._wake()
        else:
            self._woken = False

    def post_from_anywhere(self, call: Callable[[], None]) -> None:
        """The same from a thread that is not the sender's."""
        self._calls.append(call)
        self._wake()

    def close(self) -> None:
        """Make no further call; on the receiver's thread."""
        self._receiver.remove_reader(self._outlet)
        self._inlet.close()
        self._outlet.close()

    def _wake(self) -> None:
        with suppress(OSError):  # full: it is awake anyway; or closed, as this process ends
            self._inlet.send(b"\0")

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            self._outlet.recv(_WAKE_UPS)
        self._woken = False  # before the queue is emptied: what comes later wakes again
        calls = self._calls
        while calls:
            try:
                calls.popleft()()
            except Exception:  # noqa: BLE001 - whatever it is, those behind it are made
                _log.exception("call_failed")
        if self._answers is not None:
            self._answers.await_posts()
