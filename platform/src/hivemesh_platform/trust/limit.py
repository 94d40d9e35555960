"""Bounds how many certificates are signed: far above what an installation needs, far below a flood."""

import threading

from hivemesh_sdk.clock import Clock

from hivemesh_platform.trust.model import SigningLimitedError

PER_SECOND = 20.0
BURST = 500


class SignLimit:
    """A bucket of signatures that fills up again by itself."""

    def __init__(self, clock: Clock, *, per_second: float = PER_SECOND, burst: int = BURST) -> None:
        self._clock = clock
        self._per_second = per_second
        self._burst = float(burst)
        self._left = self._burst
        self._at = clock.monotonic()
        self._lock = threading.Lock()

    def take(self) -> None:
        """Take one signature.

        Raises:
            SigningLimitedError: none is left; the error says when there is one.
        """
        with self._lock:
            now = self._clock.monotonic()
            self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
            self._at = now
            if self._left < 1.0:
                message = f"more than {self._per_second:g} certificates per second are asked for"
                wait = (1.0 - self._left) / self._per_second
                raise SigningLimitedError(message, delay_s=max(1.0, wait))
            self._left -= 1.0
