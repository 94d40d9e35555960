"""Which instances are slower, or fail more, than the others that serve the same capability.

Pure; times are those of a monotonic clock. An instance is a circuit per capability: `closed` takes
steps, `open` takes none, `half-open` takes one, the probe, which decides. Never more than half of
the instances of a capability are out.
"""

from bisect import bisect_left
from collections import defaultdict, deque
from dataclasses import dataclass, field
from enum import StrEnum
from math import log
from statistics import median_low

HALF = 2
LONGEST_S = 300.0
SILENT = "it answered no question about its steps"
MANY = 100  # instances: of more, looks come less often, so that they cost the same


class Circuit(StrEnum):
    """Whether an instance takes steps of a capability."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """When an instance is taken out, and when it is tried again."""

    factor: float = 3.0  # times slower than the median of the others; 0: never for its time
    least_s: float = 0.03  # that a step takes longer; below it nobody would notice
    failures: int = 5  # in a row, while the others mostly succeed; 0: never for failures
    share: float = 0.5  # of the last `volume` and more that failed, while the others mostly succeed
    volume: int = 10  # in `window_s`, before a share says anything
    few: float = 0.02  # of its steps: where fewer fail nobody is out, however well others do
    by_chance: float = 1e-4  # that its part of all failures is as large as that: less is no chance
    half_life: int = 400  # steps, after which one counts half for such parts
    stalled: float = 10.0  # times longer than any of the others' steps, and none ends meanwhile
    stalled_s: float = 2.0  # at least
    slow_share: float = 0.375  # of its slots' time that goes to steps as the others have none
    slow_steps: int = 5
    samples: int = 3  # of an instance, before anything is said of it
    remembered: int = 8
    kept: int = 32  # of the steps that slow slots among quick ones are told by
    window_s: float = 30.0
    look_s: float = 0.25
    first_s: float = 10.0  # out for this long, twice as long each time that it soon is out again
    longest_s: float = LONGEST_S


@dataclass(frozen=True, slots=True)
class Standing:
    """How an instance stands with a capability, for people."""

    circuit: Circuit
    reason: str = ""
    probe_in_s: float = 0.0

    def __str__(self) -> str:
        probe = f", probe in {self.probe_in_s:.0f} s" if self.circuit is Circuit.OPEN else ""
        return f"{self.circuit}: {self.reason}{probe}" if self.reason else self.circuit


@dataclass(slots=True)
class _Step:
    key: tuple[str, str]  # instance, capability
    records: int
    began: float


@dataclass(slots=True)
class _Sample:
    at: float
    each: float  # seconds a record
    records: int


@dataclass(slots=True)
class _Tally:
    """How many steps have ended and failed; those before the last ones count for less."""

    ended: float = 0.0
    failed: float = 0.0

    def count(self, half_life: int, *, failed: bool) -> None:
        """Another step has ended."""
        left = 0.5 ** (1 / half_life)
        self.ended, self.failed = self.ended * left + 1.0, self.failed * left + failed


@dataclass(slots=True)
class _One:
    """What is known of one instance and one capability."""

    samples: deque[_Sample]
    failed: deque[tuple[float, bool]]  # when, and whether it did
    tally: _Tally = field(default_factory=_Tally)
    silent: bool = False  # it answered no question about its steps
    circuit: Circuit = Circuit.CLOSED
    reason: str = ""
    since: float = 0.0
    failed_at: float = float("-inf")
    out_s: float = 0.0
    running: dict[int, _Step] = field(default_factory=dict)


class Outliers:
    """Follows the steps of all instances; `look` says whose circuit has changed."""

    def __init__(self, rule: Rule | None = None) -> None:
        self._rule = rule or Rule()
        self._steps: dict[int, _Step] = {}
        self._of: defaultdict[str, dict[str, _One]] = defaultdict(dict)  # by capability, instance
        self._touched: set[str] = set()
        self._changed: set[tuple[str, str]] = set()  # by probes, since the last look
        self._looked = float("-inf")
        self.ejections = 0

    def began(self, number: int, instance: str, capability: str, records: int, now: float) -> None:
        """A step was placed; `records` is 0 where its length says nothing of the instance."""
        one = self._one(instance, capability)
        step = _Step((instance, capability), records, now)
        self._steps[number] = one.running[number] = step

    def ended(self, number: int, *, ok: bool | None, now: float) -> None:
        """A step has ended well, badly, or (None) in a way that says nothing."""
        step = self._steps.pop(number, None)
        if step is None:
            return
        instance, capability = step.key
        one = self._of[capability].get(instance)
        if one is None or one.running.pop(number, None) is None:
            return
        self._touched.add(capability)
        if ok is None or one.circuit is Circuit.OPEN:
            return
        if one.circuit is Circuit.HALF_OPEN:
            if step.began >= one.since:
                self._probed(one, instance, capability, step, ok=ok, now=now)
            return
        one.failed.append((now, not ok))
        one.tally.count(self._rule.half_life, failed=not ok)
        if not ok:
            one.failed_at = now
        if ok and step.records:
            each = (now - step.began) / step.records
            one.samples.append(_Sample(now, each, step.records))

    def silent(self, instance: str, capability: str) -> None:
        """The instance has answered no question about its steps: no more of them, until a probe.

        Of one that is out, or that a probe tries, the probe decides.
        """
        one = self._of[capability].get(instance)
        if one is not None and one.circuit is Circuit.CLOSED:
            one.silent = True
            self._touched.add(capability)

    def know(self, instance: str, capabilities: frozenset[str]) -> None:
        """The instance serves these: it counts for the half that stays, busy or not."""
        for capability in capabilities:
            self._one(instance, capability)

    def forget(self, instance: str) -> None:
        """The instance is gone."""
        for ones in self._of.values():
            ones.pop(instance, None)

    def look(self, now: float) -> set[tuple[str, str]]:
        """Decide anew; returns (instance, capability) of every circuit that has changed."""
        most = max(map(len, self._of.values()), default=0)
        if now - self._looked < self._rule.look_s * max(1.0, most / MANY):
            return set()
        self._looked = now
        changed, self._changed = self._changed, set()
        for capability, ones in self._of.items():
            busy = capability in self._touched or any(
                one.running or one.circuit is not Circuit.CLOSED for one in ones.values()
            )
            if busy:
                changed |= {(one, capability) for one in self._look(ones, now)}
        self._touched.clear()
        return changed

    def allowed(self, instance: str, capability: str) -> int | None:
        """How many steps at a time the instance may be given; None where nothing limits it."""
        one = self._of.get(capability, {}).get(instance)
        if one is None or one.circuit is Circuit.CLOSED:
            return None
        return 1 if one.circuit is Circuit.HALF_OPEN else 0

    def standing(self, instance: str, capability: str, now: float) -> Standing:
        """How an instance stands with a capability."""
        one = self._of.get(capability, {}).get(instance)
        if one is None or one.circuit is Circuit.CLOSED:
            return Standing(Circuit.CLOSED)
        left = one.since + one.out_s - now if one.circuit is Circuit.OPEN else 0.0
        return Standing(one.circuit, one.reason, max(0.0, left))

    def out(self) -> dict[str, list[str]]:
        """The instances whose circuit is not closed, by capability."""
        found = {
            capability: sorted(
                name for name, one in ones.items() if one.circuit is not Circuit.CLOSED
            )
            for capability, ones in self._of.items()
        }
        return {capability: names for capability, names in found.items() if names}

    def _one(self, instance: str, capability: str) -> _One:
        ones = self._of[capability]
        if instance not in ones:
            rule = self._rule
            ended = max(1, rule.failures, rule.kept, rule.volume)
            ones[instance] = _One(deque(maxlen=rule.kept), deque(maxlen=ended))
        return ones[instance]

    def _look(self, ones: dict[str, _One], now: float) -> set[str]:
        changed: set[str] = set()
        typical = self._typical(ones, now)
        for name, one in ones.items():
            if one.circuit is Circuit.OPEN and now >= one.since + one.out_s:
                one.circuit, one.since = Circuit.HALF_OPEN, now
                changed.add(name)
            elif one.circuit is Circuit.HALF_OPEN:
                other = typical.of_others(name)
                late = [
                    step
                    for step in one.running.values()
                    if step.began >= one.since and self._is_late(step, other, now)
                ]
                if late:
                    self._open(one, "its probe takes too long", now)
                    changed.add(name)
        out = sum(one.circuit is not Circuit.CLOSED for one in ones.values())
        suspects = {
            name: reason
            for name, one in ones.items()
            if one.circuit is Circuit.CLOSED and (reason := self._why(name, ones, typical, now))
        }
        for name, reason in sorted(suspects.items()):
            if (out + 1) * HALF > len(ones):
                break
            self._open(ones[name], reason, now)
            out += 1
            changed.add(name)
        return changed

    def _typical(self, ones: dict[str, _One], now: float) -> "_Typical":
        """Seconds a record of each instance that has enough to show."""
        since = now - self._rule.window_s
        found: dict[str, float] = {}
        counts: dict[str, int] = {}
        longest: dict[str, float] = {}
        for name, one in ones.items():
            if one.circuit is Circuit.CLOSED:
                times = [sample.each for sample in one.samples if sample.at >= since]
                last = times[-self._rule.remembered :]
                if len(last) >= self._rule.samples:
                    found[name] = median_low(last)
                    counts[name], longest[name] = len(times), max(times)
        typical = _Typical(found, counts, longest)
        if any(one.failed_at >= since for one in ones.values()):
            tallies = [one.tally for one in ones.values() if one.circuit is Circuit.CLOSED]
            typical.all_failed = sum(tally.failed for tally in tallies)
            typical.all_ended = sum(tally.ended for tally in tallies)
            typical.failed = sum(bad for one in ones.values() for _, bad in one.failed)
            typical.ended = sum(len(one.failed) for one in ones.values())
        return typical

    def _why(self, name: str, ones: dict[str, _One], typical: "_Typical", now: float) -> str:
        one = ones[name]
        if one.silent and self._rule.failures:
            return SILENT
        if wrong := self._failing(name, ones, typical, now) or self._stalled(
            one, name, typical, now
        ):
            return wrong
        other = typical.of_others(name)
        if other is None or not self._rule.factor:
            return ""
        since = now - self._rule.window_s
        times = [(sample.each, sample.records) for sample in self._last(one, since)]
        late = [step for step in one.running.values() if self._is_late(step, other, now)]
        times += [((now - step.began) / step.records, step.records) for step in late]
        times = times[-self._rule.remembered :]
        if len(times) < self._rule.samples:
            return ""
        each, records = sorted(times)[len(times) // 4]  # nearly all of them are that slow
        if not self._is_slow(each, records, other) or each <= self._long(name, ones, since):
            return self._some_slow(name, ones, typical, now)
        return f"{each / max(other, 1e-9):.1f} times slower than the others"

    def _last(self, one: _One, since: float) -> list[_Sample]:
        """The last steps alone: an instance is as slow as it is now."""
        last = list(one.samples)[-self._rule.remembered :]
        return [sample for sample in last if sample.at >= since]

    def _is_slow(self, each: float, records: int, other: float) -> bool:
        return each >= self._rule.factor * other and (each - other) * records >= self._rule.least_s

    def _some_slow(self, name: str, ones: dict[str, _One], typical: "_Typical", now: float) -> str:
        """Where some slots of an instance are slow, most of its steps end on the others of them.

        What counts is the time that goes to steps which take longer than any of the others'.
        """
        since = now - self._rule.window_s
        other = typical.of_others(name) or 0.0
        one, (most, longest) = ones[name], typical.longest_of_others(name)
        if most < self._rule.kept // HALF:
            return ""
        bound = max(longest, self._rule.factor * other)
        if typical.longest(name) <= bound:  # at most what still runs is slow
            began = sum(now - step.began > bound * step.records for step in one.running.values())
            if began < self._rule.slow_steps:
                return ""
        times = [(s.each, s.records) for s in one.samples if s.at >= since]
        running = [step for step in one.running.values() if step.records]
        times += [((now - step.began) / step.records, step.records) for step in running]
        slow = [
            each * records
            for each, records in times
            if each > longest and self._is_slow(each, records, other)
        ]
        spent = sum(each * records for each, records in times)
        if len(slow) < self._rule.slow_steps or sum(slow) < self._rule.slow_share * spent:
            return ""
        return f"{100 * sum(slow) / spent:.0f} % of its time goes to steps slower than any of the others"

    def _long(self, name: str, ones: dict[str, _One], since: float) -> float:
        """What is long for the others: where inputs differ, a few long ones are no slow instance."""
        times = sorted(
            sample.each
            for key, one in ones.items()
            if key != name and one.circuit is Circuit.CLOSED
            for sample in one.samples
            if sample.at >= since
        )
        return times[(len(times) - 1) * 9 // 10]

    def _failing(self, name: str, ones: dict[str, _One], typical: "_Typical", now: float) -> str:
        """Why an instance is out for what fails there, and not at the others."""
        rule, since = self._rule, now - self._rule.window_s
        if not rule.failures or ones[name].failed_at < since:
            return ""
        own = [bad for _, bad in ones[name].failed]
        lately = [bad for at, bad in ones[name].failed if at >= since]
        if len(own) >= rule.failures and all(own[-rule.failures :]):
            reason, share = f"its last {rule.failures} steps failed", 1.0
        elif len(lately) >= rule.volume and sum(lately) >= rule.share * len(lately):
            share = sum(lately) / len(lately)
            reason = f"{sum(lately)} of its last {len(lately)} steps failed"
        else:
            return self._failing_often(ones[name].tally, typical)
        failed, ended = typical.failed - sum(own), typical.ended - len(own)
        return reason if ended and failed * HALF < share * ended else ""

    def _failing_often(self, own: _Tally, typical: "_Typical") -> str:
        """Where only some steps fail, but far more of them there than at the others.

        Were it the inputs, each failure would fall on an instance with the instance's part of all
        steps; how likely a part as large as this one is then is at most Chernoff's bound.
        """
        failed, ended = typical.all_failed, typical.all_ended
        if own.failed < self._rule.few * own.ended or not 0.0 < own.ended < ended:
            return ""
        part, fair = own.failed / failed, own.ended / ended
        if part <= fair or failed * _divergence(part, fair) < -log(self._rule.by_chance):
            return ""
        return (
            f"{100 * own.failed / own.ended:.0f} % of its steps fail, far more than at the others"
        )

    def _stalled(self, one: _One, name: str, typical: "_Typical", now: float) -> str:
        """Where all that runs is far too long, and nothing has ended since."""
        steps, (_, longest) = one.running.values(), typical.longest_of_others(name)
        if len(steps) < HALF or not longest or not self._rule.factor:
            return ""
        if not all(
            step.records
            and now - step.began
            > max(self._rule.stalled * longest * step.records, self._rule.stalled_s)
            for step in steps
        ):
            return ""
        if one.failed and one.failed[-1][0] > max(step.began for step in steps):
            return ""
        return f"none of its {len(steps)} steps ends"

    def _is_late(self, step: _Step, other: float | None, now: float) -> bool:
        if other is None or not step.records or not self._rule.factor:
            return False
        usual = other * step.records
        return now - step.began > max(self._rule.factor * usual, usual + self._rule.least_s)

    def _probed(
        self, one: _One, instance: str, capability: str, step: _Step, *, ok: bool, now: float
    ) -> None:
        other = self._typical(self._of[capability], now).of_others(instance)
        if not ok:
            self._open(one, "its probe failed", now)
            self._changed.add((instance, capability))
        elif self._is_late(step, other, now):
            self._open(one, "its probe took too long", now)
            self._changed.add((instance, capability))
        else:
            one.circuit, one.since, one.reason = Circuit.CLOSED, now, ""
            self._changed.add((instance, capability))

    def _open(self, one: _One, reason: str, now: float) -> None:
        if one.circuit is Circuit.CLOSED:
            self.ejections += 1
            if now - one.since > self._rule.window_s:  # well for long enough: from the first again
                one.out_s = 0.0
        one.circuit, one.reason, one.since = Circuit.OPEN, reason, now
        one.out_s = min(self._rule.longest_s, one.out_s * 2 or self._rule.first_s)
        one.samples.clear()
        one.failed.clear()
        one.tally, one.silent = _Tally(), False


class _Typical:
    """The usual seconds a record of several instances, and how many of their steps failed."""

    failed = ended = 0  # where any has failed lately
    all_failed = all_ended = 0.0  # as tallies have it

    def __init__(
        self, of: dict[str, float], counts: dict[str, int], longest: dict[str, float]
    ) -> None:
        self._of = of
        self._ordered = sorted(of.values())
        self._counts, self._steps = counts, sum(counts.values())
        self._long = longest
        self._longest = sorted((each, name) for name, each in longest.items())[-HALF:]

    def longest(self, name: str) -> float:
        """What the longest step of one took for a record."""
        return self._long.get(name, 0.0)

    def longest_of_others(self, name: str) -> tuple[int, float]:
        """How many steps of the others are known, and what the longest of them took for a record."""
        others = [each for each, of in self._longest if of != name]
        return self._steps - self._counts.get(name, 0), max(others, default=0.0)

    def of_others(self, name: str) -> float | None:
        """The lower median of all but one; None where there is no other."""
        own, ordered = self._of.get(name), self._ordered
        left = len(ordered) - (own is not None)
        if left == 0:
            return None
        middle = (left - 1) // 2
        if own is not None and bisect_left(ordered, own) <= middle:
            middle += 1
        return ordered[middle]


def _divergence(part: float, fair: float) -> float:
    """How far a part of all is from the fair one (Kullback-Leibler, of two outcomes)."""
    rest = (1.0 - part) * log((1.0 - part) / (1.0 - fair)) if part < 1.0 else 0.0
    return part * log(part / fair) + rest
