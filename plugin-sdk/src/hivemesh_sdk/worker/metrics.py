"""Every metric of a worker, declared once; counted in plain cells, rendered at the scrape.

A cell costs a tenth of a library's counter, and the library is imported by the first scrape.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from prometheus_client.core import Metric

BUCKETS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 300.0, 1800.0)

GAUGES = {
    "hivemesh_worker_executors": "Executor processes",
    "hivemesh_worker_kept_bytes": "Bytes of ended executions that nobody has acknowledged",
    "hivemesh_worker_draining": "Whether the worker takes no new steps",
    "hivemesh_worker_policy_version": "Version of the policy that the worker decides by",
    "hivemesh_worker_policy_stale": "Whether nobody has confirmed that policy for 15 minutes",
    "hivemesh_worker_uptime_seconds": "Seconds since the worker began to serve",
    "hivemesh_worker_memory_bytes": "Resident bytes of the worker and its executors",
}
TOTALS = {
    "hivemesh_worker_executor_crashes": "Executors that died by themselves",
    "hivemesh_worker_memory_kills": "Executors ended because the worker held too much memory",
    "hivemesh_worker_inline_blocked": "Times that inline code held a loop over 100 ms",
    "hivemesh_worker_policies_refused": "Policy documents that were changed on the way, or older",
}


class StepMetrics:
    """Counts the steps of one capability."""

    __slots__ = ("buckets", "failures", "refusals", "seconds", "starts")

    def __init__(self) -> None:
        self.starts = 0
        self.failures = 0
        self.refusals = 0
        self.seconds = 0.0
        self.buckets = [0] * (len(BUCKETS) + 1)

    def ended(self, seconds: float, *, failed: bool) -> None:
        """A step has ended; its code may still be stopping."""
        self.seconds += seconds
        self.buckets[bisect_left(BUCKETS, seconds)] += 1
        if failed:
            self.failures += 1

    def refused(self) -> None:
        """A step was refused for want of a slot."""
        self.refusals += 1


class Reading(NamedTuple):
    """One capability at the moment of a scrape."""

    capability: str
    slots: int
    active: int
    steps: StepMetrics


def render(
    readings: Sequence[Reading],
    gauges: Mapping[str, float],
    totals: Mapping[str, int],
    refusals: Mapping[str, int],
) -> bytes:
    """The text that Prometheus reads; `gauges` and `totals` are named in the tables above.

    `refusals` counts requests that were not allowed, by reason.
    """
    from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415 - see above

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(readings, gauges, totals, refusals))
    return generate_latest(registry)


class _Collector:
    def __init__(
        self,
        readings: Sequence[Reading],
        gauges: Mapping[str, float],
        totals: Mapping[str, int],
        refusals: Mapping[str, int],
    ) -> None:
        self._refusals = refusals
        self._readings = readings
        self._gauges = gauges
        self._totals = totals

    def collect(self) -> Iterator["Metric"]:
        """What the library asks for at a scrape."""
        from prometheus_client.core import (  # noqa: PLC0415 - see above
            CounterMetricFamily,
            GaugeMetricFamily,
        )

        for name, text in GAUGES.items():
            yield GaugeMetricFamily(name, text, value=self._gauges[name])
        for name, text in TOTALS.items():
            yield CounterMetricFamily(name, text, value=self._totals[name])
        refused = CounterMetricFamily(
            "hivemesh_worker_access_refused",
            "Requests for steps that ticket or policy did not allow",
            labels=["reason"],
        )
        for reason in sorted(self._refusals):
            refused.add_metric([reason], self._refusals[reason])
        yield refused
        yield from self._by_capability()

    def _by_capability(self) -> Iterator["Metric"]:
        from prometheus_client.core import (  # noqa: PLC0415 - see above
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        labels = ["capability"]
        slots = GaugeMetricFamily("hivemesh_worker_slots", "Slots", labels=labels)
        active = GaugeMetricFamily("hivemesh_worker_slots_active", "Slots in use", labels=labels)
        starts = CounterMetricFamily("hivemesh_worker_steps_started", "Steps begun", labels=labels)
        failures = CounterMetricFamily(
            "hivemesh_worker_steps_failed", "Steps that ended with a problem", labels=labels
        )
        refusals = CounterMetricFamily(
            "hivemesh_worker_steps_refused", "Steps refused for want of a slot", labels=labels
        )
        seconds = HistogramMetricFamily(
            "hivemesh_worker_step_seconds", "Duration of steps", labels=labels
        )
        for reading in self._readings:
            label = [reading.capability]
            slots.add_metric(label, reading.slots)
            active.add_metric(label, reading.active)
            starts.add_metric(label, reading.steps.starts)
            failures.add_metric(label, reading.steps.failures)
            refusals.add_metric(label, reading.steps.refusals)
            seconds.add_metric(label, _cumulated(reading.steps.buckets), reading.steps.seconds)
        yield from (slots, active, starts, failures, refusals, seconds)


def _cumulated(counts: Sequence[int]) -> list[tuple[str, float]]:
    bounds = [*map(str, BUCKETS), "+Inf"]
    total = 0
    rows: list[tuple[str, float]] = []
    for bound, count in zip(bounds, counts, strict=True):
        total += count
        rows.append((bound, total))
    return rows
