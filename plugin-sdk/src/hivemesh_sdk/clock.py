"""Time as an injected dependency, so that expiry and deadlines are tested without waiting."""

import time
from datetime import UTC, datetime
from functools import partial
from typing import Protocol


class Clock(Protocol):
    """Two clocks: wall time for certificates, monotonic time for everything else."""

    def now(self) -> datetime:
        """Wall time, aware, in UTC."""
        ...

    def timestamp(self) -> float:
        """The same in seconds since 1970."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back, stands still while a laptop sleeps."""
        ...


class SystemClock:
    """The machine's clocks."""

    __slots__ = ()

    # Plain functions of C, as all are asked in every call.
    now = staticmethod(partial(datetime.now, UTC))
    timestamp = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
