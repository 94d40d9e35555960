"""Ten times more is submitted than can be done: what is urgent is not late, and the rest is only later.

In short: `tests/platform/execution/test_queue.py`.
"""

import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from chaos_figures import record
from hivemesh_sdk.client import Client
from whole_platform import ROOT, Installation, Shared, installed, until

pytestmark = [pytest.mark.e2e, pytest.mark.chaos]

GAUGE = ROOT / "tests" / "support" / "workers" / "gauge"
CAPABILITY = "gauge.take@1"
LOW, HIGH = 1, 9
CAPACITY = 2 / 0.05  # jobs a second: its slots and what each job takes
TIMES, SECONDS, ALONE = 10, 10, 20
NAME = "overload of the queue, 10 times the capacity"


@pytest.fixture
def platform(tmp_path: Path, shared: Shared) -> Iterator[Installation]:
    with installed(tmp_path / "one", shared, workers=[GAUGE]) as found:
        found.start()
        found.until_live()
        yield found


def urgent(client: Client, number: int) -> float:
    """One job that somebody waits for; the seconds until its end."""
    began = time.monotonic()
    options = {"company": number + 1}
    view = client.call(CAPABILITY, {"number": number}, options, priority=HIGH)
    assert view.state.value == "completed", view
    return time.monotonic() - began


def p95(times: list[float]) -> float:
    return sorted(times)[int(len(times) * 0.95) - 1]


def test_urgent_jobs_pass_those_that_wait_and_all_of_them_end_well(platform: Installation) -> None:
    with platform.client() as client:
        numbers = count()
        alone = [urgent(client, next(numbers)) for _ in range(ALONE)]
        batches: list[str] = []
        beside: list[float] = []
        for second in range(SECONDS):
            values = [{"number": second}] * round(TIMES * CAPACITY)
            batches.append(client.submit_batch(CAPABILITY, values, priority=LOW).id)
            beside += [urgent(client, next(numbers)) for _ in range(5)]
        waiting = sum(client.batch(one).open for one in batches)
        while waiting:
            beside.append(urgent(client, next(numbers)))
            waiting = sum(client.batch(one).open for one in batches)
        states = [client.batch(one).states for one in batches]
    accepted = round(TIMES * CAPACITY)
    assert states == [{"completed": accepted}] * SECONDS
    slower = p95(beside) / p95(alone)
    record(f"{NAME}: accepted and ended", SECONDS * accepted, "jobs", 1, holds=True)
    record(f"{NAME}: urgent jobs meanwhile", len(beside), "jobs", 1, holds=True)
    record(f"{NAME}: p95 of urgent ones, of unloaded", slower, "x", 3, holds=slower <= 3)
    until(lambda: platform.instances("gauge"), 30, "it still serves")
