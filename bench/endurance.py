"""Mixed load for a while: what grows, and how fast at the most.

Slopes are those of Theil and Sen with the 95 % bound of Sen's method, over the second part of the
time; in the first the installation warms up. Rows that retention keeps are subtracted: they are
meant to grow.
"""

import json
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

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
MINUTES, QUICK = 30.0, 3.0
TEXT = "x" * 100


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
    with noop.running() as client:
        errors, load = _loaded(client, length, found)
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
    return "", ""


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


def _loaded(client: Client, length: float, found: dict[str, Samples]) -> tuple[int, int]:
    """Jobs alone, jobs in batches and runs, in turn; sample between them."""
    platform = psutil.Process(client.status().pid)
    fronts = [psutil.Process(one.pid) for one in client.worker("noop").instances]
    family = {"platform": platform, "worker": fronts[0]}
    started = sampled = time.monotonic()
    errors = jobs = turn = 0
    while (now := time.monotonic()) - started < length:
        errors += _turn(client, turn)
        jobs += 200 + 5
        turn += 1
        if now - sampled >= SAMPLE_S:
            sampled = now
            for name, process in family.items():
                _sample(process, name, now - started, found)
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


def _sample(process: psutil.Process, name: str, at: float, found: dict[str, Samples]) -> None:
    with process.oneshot():
        for what, value in (
            ("RSS", process.memory_info().rss / MIB),
            ("descriptors", float(process.num_fds())),
            ("threads", float(process.num_threads())),
        ):
            found.setdefault(f"{name}, {what}", Samples()).add(at, value)
