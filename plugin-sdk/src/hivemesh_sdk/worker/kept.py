"""Ended executions that nobody has acknowledged yet, bounded in time and in bytes."""

from collections import OrderedDict

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

    def add(self, execution: Execution, size: int) -> None:
        """Hold an execution that has just ended."""
        queue = self._unary if execution.kind in UNARY else self._others
        queue[execution] = size
        self._size += size

    def surplus(self) -> Execution | None:
        """The execution that has to go because the bound is exceeded."""
        if self._size <= self._limit:
            return None
        return next(iter(self._unary), None) or next(iter(self._others))

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
