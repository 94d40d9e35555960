"""Counts failed enrolments and refused tokens per address; successes are never limited."""

from collections import OrderedDict, deque

from hivemesh_sdk.clock import Clock
from hivemesh_sdk.errors import RetryableError

from hivemesh_platform.trust.model import EnrolmentRateLimitedError

LIMIT = 5
WINDOW_S = 60.0
ADDRESSES = 10_000  # beyond that the oldest is forgotten, so that memory stays bounded


class FailureLimit:
    """Five failures of one address within 60 s, then 60 s of 429 for its further failures."""

    def __init__(
        self,
        clock: Clock,
        *,
        what: str = "failed enrolments",
        error: type[RetryableError] = EnrolmentRateLimitedError,
    ) -> None:
        self._clock = clock
        self._what = what
        self._error = error
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def add(self, address: str) -> None:
        """Count a failure.

        Raises:
            RetryableError: of the given class; there were too many just now.
        """
        now = self._clock.monotonic()
        times = self._failures.setdefault(address, deque(maxlen=LIMIT))
        self._failures.move_to_end(address)
        if len(self._failures) > ADDRESSES:
            self._failures.popitem(last=False)
        burst = len(times) == LIMIT and times[-1] - times[0] < WINDOW_S
        if burst and now - times[-1] < WINDOW_S:
            wait = times[-1] + WINDOW_S - now
            message = f"more than {LIMIT} {self._what} in {WINDOW_S:g} s"
            raise self._error(message, delay_s=max(1.0, wait))
        times.append(now)
