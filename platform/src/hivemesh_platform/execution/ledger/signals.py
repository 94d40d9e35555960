"""Wakes those who wait for something to change; what has changed they read from the ledger."""

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

REMEMBERED = 10_000  # runs whose last change is known; the others count as unchanged


class Signal:
    """Wakes one waiter; a signal given before the wait is not lost."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def give(self) -> None:
        """Wake the waiter, or the next one to come."""
        self._event.set()

    @property
    def given(self) -> bool:
        """Whether a wait would return at once."""
        return self._event.is_set()

    async def wait(self, timeout_s: float) -> None:
        """Return at the next signal or after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return
        finally:
            self._event.clear()


def ends_of(run: str) -> str:
    """What to listen to for the ends of nodes alone: batches change a run far more often."""
    return f"{run}/ends"


class RunSignals:
    """Wakes all who wait for a change of one run or job, and numbers the changes.

    `first` is a number that grows from start to start of the platform (milliseconds since 1970),
    so that a number from before a restart is never above one from after it.
    """

    def __init__(self, first: int = 1) -> None:
        self._first = self._last = first
        self._changes: OrderedDict[str, int] = OrderedDict()
        self._listeners: defaultdict[str, set[Signal]] = defaultdict(set)
        self._untold: dict[str, bool] = {}
        self.shared = False  # whether other replicas are to be told
        self.told = Signal()

    def give(self, run: str) -> None:
        """The run has changed."""
        if self.shared:
            self._untold.setdefault(run, False)
            self.told.give()
        self.hear(run)

    def hear(self, run: str) -> None:
        """The run has changed, here or at another replica."""
        self._last += 1
        self._changes[run] = self._last
        self._changes.move_to_end(run)
        if len(self._changes) > REMEMBERED:
            self._changes.popitem(last=False)
        if self._listeners:
            self._wake(run)

    def give_end(self, run: str) -> None:
        """A node of the run, or the run itself, has ended."""
        if self.shared:
            self._untold[run] = True
            self.told.give()
        self.hear_end(run)

    def hear_end(self, run: str) -> None:
        """A node of the run has ended, here or at another replica."""
        self.hear(run)
        if self._listeners:
            self._wake(ends_of(run))

    def _wake(self, name: str) -> None:
        for listener in self._listeners.get(name, ()):
            listener.give()

    def untold(self) -> dict[str, bool]:
        """The runs that have changed here since the last call, and whether nodes have ended."""
        untold, self._untold = self._untold, {}
        return untold

    def give_all(self) -> None:
        """All runs that somebody follows may have changed."""
        for run in tuple(self._listeners):
            self.hear(run)

    def version(self, run: str) -> int:
        """Return the number of the run's last change."""
        return self._changes.get(run, self._first)

    @contextmanager
    def listen(self, run: str) -> Iterator[Signal]:
        """Listen from now on: read after this, then wait, and no change is missed."""
        signal = Signal()
        listeners = self._listeners[run]
        listeners.add(signal)
        try:
            yield signal
        finally:
            listeners.discard(signal)
            if not listeners:
                self._listeners.pop(run, None)
