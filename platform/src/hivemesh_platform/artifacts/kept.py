"""A large set of digests that takes ten bytes for each: what a sweep has found to be needed."""

from array import array
from bisect import bisect_left
from collections.abc import Iterable
from typing import Self

_FIRST = 3  # hexadecimal digits that choose the bucket
_REST = _FIRST + 16  # those up to here are compared


class KeptDigests:
    """Holds the first 76 bits of each digest.

    Two digests that begin alike are taken for one, so that something may be kept for nothing, and
    nothing is removed that is needed.
    """

    def __init__(self) -> None:
        self._buckets: list[array[int]] = [array("Q") for _ in range(16**_FIRST)]
        self.unknown: set[str] = set()  # folders of which nobody can say what they hold

    def __contains__(self, sha256: str) -> bool:
        bucket, rest = self._place(sha256)
        at = bisect_left(bucket, rest)
        return at < len(bucket) and bucket[at] == rest

    def __len__(self) -> int:
        return sum(map(len, self._buckets))

    def add(self, digests: Iterable[str]) -> Self:
        """Take up digests; again is fine."""
        for sha256 in digests:
            bucket, rest = self._place(sha256)
            at = bisect_left(bucket, rest)
            if at == len(bucket) or bucket[at] != rest:
                bucket.insert(at, rest)
        return self

    def _place(self, sha256: str) -> tuple["array[int]", int]:
        return self._buckets[int(sha256[:_FIRST], 16)], int(sha256[_FIRST:_REST], 16)
