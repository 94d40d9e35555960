"""Ended executions until they are acknowledged, and what is left of them then; all of it bounded."""

from collections import OrderedDict
from collections.abc import Sequence

from hivemesh_sdk.worker.execution import UNARY, Execution


class Kept:
    """Two queues in order of their end: what is over the bound is dropped, unary results first.

    A dropped result costs one repeated attempt and never a wrong one.
    """

    def __init__(self, seconds: float, size: int) -> None:
        self._seconds = seconds
        self._limit = size
        self._size = 0
        # ordered dicts: the first of a plain dict is found in linear time once others were removed
        self._unary: OrderedDict[Execution, int] = OrderedDict()
        self._others: OrderedDict[Execution, int] = OrderedDict()

    @property
    def size(self) -> int:
        """Bytes held, with a flat rate for each entry."""
        return self._size

    def add(self, execution: Execution, size: int) -> Sequence[Execution]:
        """Hold an execution that has just ended; returns those that have to go for it."""
        queue = self._unary if execution.kind in UNARY else self._others
        queue[execution] = size
        self._size += size
        return () if self._size <= self._limit else self._drop()

    def _drop(self) -> list[Execution]:
        dropped = []
        while self._size > self._limit:
            execution, size = (self._unary or self._others).popitem(last=False)
            self._size -= size
            dropped.append(execution)
        return dropped

    def shrink(self, execution: Execution, size: int) -> None:
        """So many bytes of it were acknowledged."""
        queue = self._unary if execution.kind in UNARY else self._others
        if execution in queue:
            queue[execution] -= size
            self._size -= size

    def discard(self, execution: Execution) -> None:
        """Hold it no longer."""
        queue = self._unary if execution.kind in UNARY else self._others
        self._size -= queue.pop(execution, 0)

    def expired(self, now: float) -> list[Execution]:
        """Those that are kept for too long; they stay until discarded."""
        found = []
        for queue in (self._unary, self._others):
            for execution in queue:
                if now - execution.event_at < self._seconds:
                    break
                found.append(execution)
        return found


class Settled:
    """What is left of acknowledged results: whether a request on their key is the one they answered.

    Two generations: with each `most` / 2, or after half the time, the older one is dropped. Keys and
    bodies are numbers of 64 bits, made with a key of this process: some 160 bytes for each.
    """

    def __init__(self, seconds: float, most: int) -> None:
        self._seconds = seconds / 2
        self._most = most // 2
        self._new: dict[int, tuple[int, int]] = {}
        self._old: dict[int, tuple[int, int]] = {}
        self._since = 0.0  # of the new ones

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._new) + len(self._old)

    def add(self, execution: Execution, now: float) -> None:
        """Its result was acknowledged."""
        if len(self._new) >= self._most:
            self._turn(now)
        self._new[hash(execution.key)] = (execution.attempt, _body(execution.fingerprint))

    def find(self, key: str, fingerprint: tuple[str, ...]) -> tuple[int, bool] | None:
        """The attempt that was answered under a key, and whether it had this body."""
        name = hash(key)
        found = self._new.get(name) or self._old.get(name)
        return None if found is None else (found[0], found[1] == _body(fingerprint))

    def tick(self, now: float) -> None:
        """Let time pass."""
        if now - self._since >= self._seconds:
            self._turn(now)

    def _turn(self, now: float) -> None:
        self._old, self._new = self._new, {}
        self._since = now


def _body(fingerprint: tuple[str, ...]) -> int:
    """All but which lines of the input were meant: another part is no other body."""
    return hash(fingerprint[1:])
