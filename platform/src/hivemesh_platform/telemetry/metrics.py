"""Every metric of the platform. Labels are bounded: worker names and closed sets, never ids.

Totals that something else counts already (the database, the execution's counters) are read at the
scrape; the rest is counted where it happens.
"""

import collections
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
DENIAL_KINDS = ("eviction", "ban", "quarantine")
_SECONDS = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 300.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Totals as they stand at a scrape; each mapping is from the label's value to the number."""

    jobs_completed: Mapping[str, int] = field(default_factory=dict)  # by kind: run or job
    jobs_failed: Mapping[str, int] = field(default_factory=dict)
    jobs: Mapping[str, int] = field(default_factory=dict)  # by state
    jobs_pending: Mapping[str, int] = field(default_factory=dict)  # high, background
    processed_bytes: Mapping[str, int] = field(default_factory=dict)  # by worker
    processed_records: Mapping[str, int] = field(default_factory=dict)  # by worker
    repeated: Mapping[str, int] = field(default_factory=dict)  # by reason: lost or failed
    restarts: Mapping[str, int] = field(default_factory=dict)  # by worker
    tickets_refused: Mapping[str, int] = field(default_factory=dict)  # by reason
    stale: int = 0
    fenced: int = 0
    taken_over: int = 0
    audit_records: int = 0
    audit_refused: int = 0
    audit_dropped: int = 0
    audit_checkpoint_failures: int = 0
    ejected: Mapping[str, int] = field(default_factory=dict)  # by capability
    ejections: int = 0
    removed: Mapping[str, int] = field(default_factory=dict)  # by retention, by kind
    writer_cpu_s: float = 0.0
    transactions_repeated: Mapping[str, int] = field(default_factory=dict)  # by reason
    tasks: int = 0


class Metrics:
    """The metrics of one platform process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.totals = Totals()
        self.registry.register(_TotalsCollector(self))
        self._workers_active = Gauge(
            "hivemesh_workers_active",
            "Live instances per worker.",
            ("worker",),
            registry=self.registry,
        )
        self._worker_health = Gauge(
            "hivemesh_worker_health",
            "Share of the wanted instances of a worker that are live, 0 to 1.",
            ("worker",),
            registry=self.registry,
        )
        self.processing_time = Histogram(
            "hivemesh_processing_seconds",
            "Time of one attempt of a batch or job, from its placement to its end.",
            ("worker", "outcome"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._denials = Gauge(
            "hivemesh_denials",
            "Certificates, identities and packages that are refused, by kind; quarantine is theft.",
            ("kind",),
            registry=self.registry,
        )
        self.peers_refused = Counter(
            "hivemesh_peers_refused",
            "Connections and requests that were refused, by reason.",
            ("reason",),
            registry=self.registry,
        )

    def denials(self, kinds: Iterable[str]) -> None:
        """Set how many denials of each kind there are."""
        counted = collections.Counter(kinds)
        for kind in DENIAL_KINDS:
            self._denials.labels(kind).set(counted[kind])

    def worker(self, name: str, *, live: int, wanted: int) -> None:
        """Set the figures of one worker."""
        self._workers_active.labels(name).set(live)
        self._worker_health.labels(name).set(min(1.0, live / wanted) if wanted else 1.0)

    def text(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self.registry)


class _TotalsCollector(Collector):
    """Shows the totals of the moment as counters."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        totals = self._metrics.totals
        yield _family(
            "hivemesh_jobs_completed",
            "Runs and jobs that ended well.",
            "kind",
            totals.jobs_completed,
        )
        yield _family(
            "hivemesh_jobs_failed", "Runs and jobs that failed.", "kind", totals.jobs_failed
        )
        yield _family(
            "hivemesh_data_processed_bytes",
            "Bytes of the batches that a worker's steps brought and that were recorded.",
            "worker",
            totals.processed_bytes,
        )
        yield _family(
            "hivemesh_data_processed_records",
            "Records of the batches that a worker's steps brought and that were recorded.",
            "worker",
            totals.processed_records,
        )
        yield _family(
            "hivemesh_attempts_repeated",
            "Attempts that had to be repeated, by reason.",
            "reason",
            totals.repeated,
        )
        yield _family(
            "hivemesh_worker_restarts",
            "Processes that the supervisor had to start again.",
            "worker",
            totals.restarts,
        )
        yield _family(
            "hivemesh_tickets_refused",
            "Requests of workers that their ticket did not allow.",
            "reason",
            totals.tickets_refused,
        )
        yield _family(
            "hivemesh_retention_removed",
            "What was removed as it had ended long ago, by kind.",
            "kind",
            totals.removed,
        )
        yield _family(
            "hivemesh_database_transactions_repeated",
            "Transactions that lost against others and were run again, by reason.",
            "reason",
            totals.transactions_repeated,
        )
        for name, text, number in (
            (
                "hivemesh_stale_refused",
                "Results of superseded attempts that were refused.",
                totals.stale,
            ),
            (
                "hivemesh_commits_fenced",
                "Commits of this replica that were refused, as it had been declared dead.",
                totals.fenced,
            ),
            (
                "hivemesh_replicas_taken_over",
                "Replicas whose work this one has taken over.",
                totals.taken_over,
            ),
            (
                "hivemesh_instance_ejections",
                "Times that an instance was slower or failed more than the others and was left out.",
                totals.ejections,
            ),
            ("hivemesh_audit_records", "Records written to the audit trail.", totals.audit_records),
            (
                "hivemesh_audit_refused",
                "Security actions that were refused because they could not be written down.",
                totals.audit_refused,
            ),
            (
                "hivemesh_audit_dropped",
                "Events of the data plane that could not be written down.",
                totals.audit_dropped,
            ),
            (
                "hivemesh_audit_checkpoint_failures",
                "Checkpoints that one of the two places did not take; they are repeated.",
                totals.audit_checkpoint_failures,
            ),
        ):
            single = CounterMetricFamily(name, text)
            single.add_metric([], number)
            yield single
        yield _gauge(
            "hivemesh_instances_ejected",
            "Instances that get no steps, or a probe, as they are slower or fail more than others.",
            "capability",
            totals.ejected,
        )
        writer = CounterMetricFamily(
            "hivemesh_database_writer_cpu_seconds", "CPU seconds of the database's writer."
        )
        writer.add_metric([], totals.writer_cpu_s)
        yield writer
        yield _gauge("hivemesh_jobs", "Jobs that are kept, by state.", "state", totals.jobs)
        yield _gauge(
            "hivemesh_jobs_pending",
            "Jobs that wait to be placed: `high` with a priority above 5, `background` the others.",
            "queue",
            totals.jobs_pending,
        )
        tasks = GaugeMetricFamily(
            "hivemesh_event_loop_tasks", "Tasks of the event loop that have not ended."
        )
        tasks.add_metric([], totals.tasks)
        yield tasks


def _family(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    return _filled(CounterMetricFamily(name, text, labels=[label]), values)


def _gauge(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    return _filled(GaugeMetricFamily(name, text, labels=[label]), values)


def _filled(family: CounterMetricFamily | GaugeMetricFamily, values: Mapping[str, int]) -> Metric:
    for value, number in values.items():
        family.add_metric([value], number)
    return family
