"""What execution counts; telemetry reads it."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class ExecutionCounters:
    """Numbers since the start of the process, and the runs that have not ended."""

    open_runs: set[str] = field(default_factory=set)

    batches_recorded: int = 0
    rows_finished: int = 0
    rows_failed: int = 0
    attempts_failed: int = 0
    attempts_lost: int = 0
    bytes_by_worker: Counter[str] = field(default_factory=Counter)  # recorded batches
    records_by_worker: Counter[str] = field(default_factory=Counter)  # in them
    pauses: int = 0  # rows that found the disk full
    tickets_refused: Counter[str] = field(default_factory=Counter)  # by reason
    stale_results: int = 0  # dropped: the row had gone to a later attempt or reader
    commits_fenced: int = 0  # refused: this replica had been declared dead
    replicas_taken_over: int = 0
