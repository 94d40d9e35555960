"""Counts per key in bounded memory, with the same answer however the input was cut and merged.

Up to `limit` keys every count is exact. Beyond that a tally turns into a sketch: the counts go
into a count-min grid, which is a sum and therefore knows no order, and the keys that stay
nameable are those with the smallest rank. A rank is a hash of the *message*, so a key that
occurs often holds a small one and stays; and since the smallest ranks of a whole are among the
smallest of each of its parts, no cut of the input changes which keys stay.
"""

import hashlib
from functools import lru_cache
from heapq import nsmallest

import msgspec

ROWS = 4
WIDTH = 8192  # of n messages a key is overcounted by at most 2.72 n / WIDTH, 98 times in 100
LONGEST_KEY = 254  # RFC 5321 section 4.5.3.1.3: the longest address


class Tally(msgspec.Struct):
    """Occurrences by key. `ranks` holds the smallest rank seen of every key that has a name."""

    limit: int
    total: int = 0
    ranks: dict[str, int] = {}
    counts: dict[str, int] = {}  # exact; empty once the tally is a sketch
    grid: list[int] = []  # ROWS x WIDTH sums; empty while the tally is exact

    @property
    def exact(self) -> bool:
        """Whether every count is exact."""
        return not self.grid

    @property
    def distinct(self) -> int:
        """The number of keys; a lower bound once the tally is no longer exact."""
        return len(self.ranks)

    def add(self, key: str, rank: int, times: int = 1) -> None:
        """Count `key`, met in the message with this rank."""
        key = key[:LONGEST_KEY]
        self.total += times
        known = self.ranks.get(key)
        if known is None or rank < known:
            self.ranks[key] = rank
        if self.grid:
            self._spread(key, times)
        else:
            self.counts[key] = self.counts.get(key, 0) + times
        if len(self.ranks) > 2 * self.limit:
            self.settle()

    def merge(self, other: "Tally") -> None:
        """Take in the other tally's counts; the order of merges does not show in the result."""
        self.total += other.total
        for key, rank in other.ranks.items():
            known = self.ranks.get(key)
            if known is None or rank < known:
                self.ranks[key] = rank
        if other.grid:
            self._become_a_sketch()
            self.grid = [mine + theirs for mine, theirs in zip(self.grid, other.grid, strict=True)]
        for key, times in other.counts.items():
            if self.grid:
                self._spread(key, times)
            else:
                self.counts[key] = self.counts.get(key, 0) + times
        self.settle()

    def settle(self) -> None:
        """Give up exact counts where there are more keys than the limit, and the excess keys."""
        if len(self.ranks) <= self.limit:
            return
        self._become_a_sketch()
        kept = nsmallest(self.limit, self.ranks.items(), key=lambda item: (item[1], item[0]))
        self.ranks = dict(kept)

    def count(self, key: str) -> int:
        """How often `key` occurred; never too small, too large by collisions in a sketch."""
        if not self.grid:
            return self.counts.get(key, 0)
        return min(self.grid[cell] for cell in _cells(key))

    def top(self, number: int) -> list[tuple[str, int]]:
        """The most frequent keys, by count and then by name."""
        counted = ((key, self.count(key)) for key in self.ranks)
        return nsmallest(number, counted, key=lambda item: (-item[1], item[0]))

    def _become_a_sketch(self) -> None:
        if self.grid:
            return
        self.grid = [0] * (ROWS * WIDTH)
        for key, times in self.counts.items():
            self._spread(key, times)
        self.counts = {}

    def _spread(self, key: str, times: int) -> None:
        for cell in _cells(key):
            self.grid[cell] += times


@lru_cache(maxsize=4096)
def _cells(key: str) -> tuple[int, ...]:
    digest = hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=2 * ROWS).digest()
    return tuple(
        row * WIDTH + int.from_bytes(digest[2 * row : 2 * row + 2], "big") % WIDTH
        for row in range(ROWS)
    )
