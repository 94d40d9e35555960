"""Mixed load for a while: what grows, and how fast at the most.

Slopes are those of Theil and Sen with the 95 % bound of Sen's method, over the second part of the
time; in the first the installation warms up. Retention keeps what has ended for two minutes, so
rows may not grow but with the jobs of the last two minutes. Not counted: datasets and the audit trail, which it never removes, and
stored files, which wait a day so that no step loses what it has just stored.
"""

import json
import math
import re
import sqlite3
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import noop
import psutil
from hivemesh_sdk.client import Client
from rows import Row, figure

COMMAND = "make bench (bench/run.py soak)"
MIB, HOUR = 1024**2, 3600.0
WARM = 1 / 3  # of the time
SAMPLE_S = 2.0
Z95 = 1.959964
GOAL = "<= 20"
COUNTED = {"descriptors": "<= 10", "threads": "<= 10", "tasks": "<= 10", "rows of a job": "<= 1"}
MINUTES, QUICK = 30.0, 3.0
TEXT = "x" * 100
KEPT_DAYS = 2 / 24 / 60
REMOVED_EVERY_S = 20
KEPT_S = 86_400 * KEPT_DAYS + REMOVED_EVERY_S
RETENTION = (
    *(f"retention.{what}_days={KEPT_DAYS}" for what in ("runs", "jobs", "events")),
    f"retention.every_s={REMOVED_EVERY_S}",
)
ROWS_EVERY_S = 20.0
NOT_COUNTED = ("audit", "dataset", "artifact")  # how the names of such tables start
TASKS = re.compile(r"^hivemesh_event_loop_tasks (\S+)$", re.MULTILINE)


@dataclass(slots=True)
class Samples:
    """One figure over time."""

    times: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, at: float, value: float) -> None:
        """Note a value."""
        self.times.append(at)
        self.values.append(value)

    def after(self, at: float) -> "Samples":
        """What was noted from a time on."""
        start = next((n for n, time_ in enumerate(self.times) if time_ >= at), 0)
        return Samples(self.times[start:], self.values[start:])


def measure(*, quick: bool, minutes: float = 0.0) -> Iterator[Row]:
    """The rows of this part."""
    length = 60 * (minutes or (QUICK if quick else MINUTES))
    found: dict[str, Samples] = {}
    with noop.in_folder(*RETENTION) as (client, state):
        errors, load = _loaded(client, state, length, found)
    for name, samples in found.items():
        kept = samples.after(length * WARM)
        slope, bound = theil_sen(kept.times, kept.values)
        goal, unit = _goal(name)
        title = f"soak of {length / 60:g} min: {name}, growth"
        yield figure(title, slope * HOUR, f"{unit}/h", command=COMMAND)
        title = f"soak of {length / 60:g} min: {name}, growth, 95 % bound"
        yield figure(title, bound * HOUR, f"{unit}/h", goal, command=COMMAND)
    yield figure("soak: jobs and runs that ended wrong", errors, "", "<= 0", command=COMMAND)
    yield figure("soak: jobs", load, "", command=COMMAND)


def _goal(name: str) -> tuple[str, str]:
    if name.endswith("RSS"):
        return GOAL, "MiB"
    return COUNTED.get(name.partition(", ")[2], ""), ""


def theil_sen(times: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """The median of all slopes, and the upper bound of its two-sided 95 % interval."""
    slopes = sorted(
        (b - a) / (t - s)
        for (s, a), (t, b) in combinations(list(zip(times, values, strict=True)), 2)
        if t > s
    )
    number = len(times)
    spread = Z95 * math.sqrt(number * (number - 1) * (2 * number + 5) / 18)
    upper = min(len(slopes) - 1, math.ceil((len(slopes) + spread) / 2))
    return statistics.median(slopes), slopes[upper]


def _loaded(
    client: Client, state: Path, length: float, found: dict[str, Samples]
) -> tuple[int, int]:
    """Jobs alone, jobs in batches and runs, in turn; sample between them."""
    platform = psutil.Process(client.status().pid)
    front = psutil.Process(client.worker("noop").instances[0].pid)
    started = sampled = counted = time.monotonic()
    errors = jobs = turn = 0
    submitted = Samples()
    while (now := time.monotonic()) - started < length:
        errors += _turn(client, turn)
        jobs += 200 + 5
        submitted.add(now, 200 + 5)
        turn += 1
        if now - sampled >= SAMPLE_S:
            sampled = now
            _sample([platform], "platform", now - started, found)
            _sample([front, *front.children(recursive=True)], "worker", now - started, found)
            tasks = TASKS.search(client.metrics())
            if tasks is None:
                raise RuntimeError(TASKS.pattern)
            _note(found, "platform, tasks", now - started, float(tasks[1]))
        if now - counted >= ROWS_EVERY_S:
            counted = now
            kept = sum(submitted.after(now - KEPT_S).values)
            _note(found, "platform, rows of a job", now - started, _rows(state) / kept)
    return errors, jobs


def _turn(client: Client, turn: int) -> int:
    wrong = 0
    batch = client.submit_batch("noop.do@1", range(200))
    for number in range(5):
        wrong += client.call("noop.busy@1", number).state.value != "completed"
    if turn % 5 == 0:
        run = client.start_run(
            {
                "apiVersion": "hivemesh/v1",
                "kind": "Pipeline",
                "metadata": {"name": "soak", "version": 1},
                "steps": {
                    "count": {"use": "noop.count@1", "with": {"records": 5000, "text": TEXT}},
                    "pass": {"use": "noop.pass@1", "map": "count"},
                },
                "outputs": {"records": "pass"},
            }
        )
        for view in client.watch(run.id):
            last = view.state.value
        wrong += last != "completed"
    while client.batch(batch.id).open:
        time.sleep(0.05)
    results = list(client.batch_results(batch.id))
    return wrong + sum(json.dumps(one).count('"completed"') != 1 for one in results)


def _sample(
    family: Sequence[psutil.Process], name: str, at: float, found: dict[str, Samples]
) -> None:
    _note(found, f"{name}, RSS", at, sum(one.memory_info().rss for one in family) / MIB)
    _note(found, f"{name}, descriptors", at, sum(one.num_fds() for one in family))
    _note(found, f"{name}, threads", at, sum(one.num_threads() for one in family))


def _note(found: dict[str, Samples], what: str, at: float, value: float) -> None:
    found.setdefault(what, Samples()).add(at, value)


def _rows(state: Path) -> float:
    """Rows of all tables that retention empties, the durable engine's included."""
    total = 0
    for name in ("platform.db", "engine.db"):
        with closing(sqlite3.connect(f"{(state / name).as_uri()}?mode=ro", uri=True)) as database:
            tables = database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
            for (table,) in tables.fetchall():
                if not table.startswith(NOT_COUNTED):
                    total += database.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0]  # noqa: S608 - a name from the schema
    return float(total)
