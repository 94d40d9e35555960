"""Which instance answers more slowly than the others that serve the same capability. Pure."""

from collections import defaultdict, deque
from statistics import median_low

FACTOR = 3.0  # times slower than the median of the others
LEAST_S = 0.03  # and slower by this; below it nobody would notice
SAMPLES = 3  # of an instance, before anything is said of it
REMEMBERED = 8
WINDOW_S = 30.0

_Samples = deque[tuple[float, float]]  # when it ended, seconds


class Latencies:
    """The last answers of each instance, by capability."""

    def __init__(self) -> None:
        self._of: defaultdict[str, dict[str, _Samples]] = defaultdict(dict)

    def took(
        self, capability: str, instance: str, seconds: float, now: float, least: int = SAMPLES
    ) -> bool:
        """Keep how long an answer took; says whether the instance is slow by now.

        Nearly all of its last answers are, and it has `least` of them: where inputs differ, one
        that is long says nothing.
        """
        ones = self._of[capability]
        samples = ones.get(instance)
        if samples is None:
            samples = ones[instance] = deque(maxlen=REMEMBERED)
        samples.append((now, seconds))
        if seconds < LEAST_S or len(ones) == 1:
            return False
        own = _lately(samples, now)
        each = sorted(own)[len(own) // 4]
        others = {name: _lately(one, now) for name, one in ones.items() if name != instance}
        usual = [median_low(times) for times in others.values() if len(times) >= SAMPLES]
        if len(own) < least or not usual:
            return False
        middle = median_low(usual)
        if each < FACTOR * middle or each - middle < LEAST_S:
            return False
        longest = sorted(seconds for times in others.values() for seconds in times)
        return each > longest[(len(longest) - 1) * 9 // 10]

    def forget(self, instance: str) -> None:
        """What is known of it does not count any more."""
        for ones in self._of.values():
            ones.pop(instance, None)

    def keep(self, present: set[str]) -> None:
        """Forget those that are gone."""
        for ones in self._of.values():
            for instance in ones.keys() - present:
                del ones[instance]


def _lately(samples: _Samples, now: float) -> list[float]:
    return [seconds for at, seconds in samples if at >= now - WINDOW_S]
