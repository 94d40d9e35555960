"""A clock that only moves when a test says so."""

from datetime import UTC, datetime, timedelta


class ManualClock:
    """Starts at the machine's wall time (OpenSSL looks at that one) and then stands still."""

    def __init__(self, start: datetime | None = None) -> None:
        self._now = start or datetime.now(UTC)
        self._monotonic = 1000.0

    def now(self) -> datetime:
        """Wall time, aware, in UTC."""
        return self._now

    def timestamp(self) -> float:
        """The same in seconds since 1970."""
        return self._now.timestamp()

    def monotonic(self) -> float:
        """Seconds, moved by `advance` only."""
        return self._monotonic

    def advance(self, delta: timedelta | float) -> None:
        """Move both clocks forward, as ordinary time does."""
        seconds = delta.total_seconds() if isinstance(delta, timedelta) else delta
        self._monotonic += seconds
        self._now += timedelta(seconds=seconds)

    def jump(self, delta: timedelta) -> None:
        """Move wall time alone, as a slept laptop or a corrected clock does."""
        self._now += delta
