"""The retry budget of each capability: how many repetitions a failing callee has to bear. Pure.

A first attempt earns a fraction of a retry, and a few are free each second. Beyond that a row waits
for its turn; nothing is given up for it.
"""

from dataclasses import dataclass

BURST_S = 10.0  # what is not used is kept for so long


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class RetryBudget:
    """Token buckets by capability; time is given in monotonic seconds."""

    def __init__(self, ratio: float, per_s: float) -> None:
        self._ratio = ratio
        self._per_s = per_s
        self._buckets: dict[str, _Bucket] = {}

    def began(self, capability: str, now: float, count: int = 1) -> None:
        """So many first attempts have begun."""
        bucket = self._filled(capability, now)
        bucket.tokens = min(bucket.tokens + count * self._ratio, self._most)

    def take(self, capability: str, now: float) -> float:
        """Take one retry and return the seconds until it is covered."""
        bucket = self._filled(capability, now)
        bucket.tokens -= 1.0
        return max(0.0, -bucket.tokens / self._per_s)

    @property
    def _most(self) -> float:
        return self._per_s * BURST_S

    def _filled(self, capability: str, now: float) -> _Bucket:
        bucket = self._buckets.get(capability)
        if bucket is None:
            bucket = self._buckets[capability] = _Bucket(self._per_s, now)
        bucket.tokens = min(bucket.tokens + (now - bucket.at) * self._per_s, self._most)
        bucket.at = now
        return bucket
