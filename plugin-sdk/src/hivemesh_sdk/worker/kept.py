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
        self._unary: OrderedDict[Execution, tuple[float, int]] = OrderedDict()
        self._others: OrderedDict[Execution, tuple[float, int]] = OrderedDict()

    @property
    def size(self) -> int:
        """Bytes held, with a flat rate for each entry."""
        return self._size

    def add(self, execution: Execution, now: float, size: int) -> None:
        """Hold an execution."""
        queue = self._unary if execution.kind in UNARY else self._others
        queue[execution] = (now, size)
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
            since, held = queue[execution]
            queue[execution] = (since, held - size)
            self._size -= size

    def discard(self, execution: Execution) -> None:
        """Hold it no longer."""
        held = self._unary.pop(execution, None) or self._others.pop(execution, None)
        if held is not None:
            self._size -= held[1]

    def expired(self, now: float) -> list[Execution]:
        """Those that are kept for too long; they stay until discarded."""
        found = []
        for queue in (self._unary, self._others):
            for execution, (since, _) in queue.items():
                if now - since < self._seconds:
                    break
                found.append(execution)
        return found
