"""Every metric of the platform. Labels are bounded: worker names and closed sets, never ids."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 300.0)


class Metrics:
    """The metrics of one platform process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.workers_active = Gauge(
            "hivemesh_workers_active",
            "Live instances per worker.",
            ("worker",),
            registry=self.registry,
        )
        self.worker_health = Gauge(
            "hivemesh_worker_health",
            "Share of the wanted instances of a worker that are live, 0 to 1.",
            ("worker",),
            registry=self.registry,
        )
        self.jobs_completed = Counter(
            "hivemesh_jobs_completed",
            "Runs and jobs that ended well.",
            ("kind",),
            registry=self.registry,
        )
        self.jobs_failed = Counter(
            "hivemesh_jobs_failed",
            "Runs and jobs that failed.",
            ("kind",),
            registry=self.registry,
        )
        self.data_processed_bytes = Counter(
            "hivemesh_data_processed_bytes",
            "Bytes of recorded batches and results.",
            ("worker",),
            registry=self.registry,
        )
        self.processing_time = Histogram(
            "hivemesh_processing_seconds",
            "Time of one attempt of a batch or job, from placement to its record.",
            ("worker",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batches_repeated = Counter(
            "hivemesh_attempts_repeated",
            "Attempts that had to be repeated, by reason.",
            ("reason",),
            registry=self.registry,
        )
        self.stale_refused = Counter(
            "hivemesh_stale_refused",
            "Results and calls of superseded attempts that were refused.",
            registry=self.registry,
        )
        self.peers_refused = Counter(
            "hivemesh_peers_refused",
            "Connections and requests that were refused, by reason.",
            ("reason",),
            registry=self.registry,
        )
        self.worker_restarts = Counter(
            "hivemesh_worker_restarts",
            "Processes that the supervisor had to start again.",
            ("worker",),
            registry=self.registry,
        )

    def worker(self, name: str, *, live: int, wanted: int) -> None:
        """Set the figures of one worker."""
        self.workers_active.labels(name).set(live)
        self.worker_health.labels(name).set(min(1.0, live / wanted) if wanted else 1.0)

    def text(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self.registry)
