"""The queue: submitting jobs, running small ones, and how soon one starts. By the installed command."""

import json
import os
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from corpus import ROOT, WORK
from hivemesh_sdk.client import Client
from installation import FREE_PORTS, HIVEMESH
from rows import Row, figure

STATE = WORK / "jobs"
FOLDER = ROOT / "bench" / "workers"
COMMAND = "bench/run.py jobs"
MANY = 10_000
CELERY = 350.0  # no-op jobs a second with Redis on this kind of machine: what the goals refer to


def measure(*, quick: bool) -> Iterator[Row]:
    """All figures of the queue."""
    with running() as client:
        yield from _starts(client, 50 if quick else 200)
        yield from _many(client, rounds=1 if quick else 3)
        yield from _computing(client, 500 if quick else 3000)


def _starts(client: Client, count: int) -> Iterator[Row]:
    """From the request to the first instruction of the job, one at a time."""
    spent, whole = [], []
    for number in range(count + 20):
        asked = time.time()
        run = client.call("small.clock@1", number)
        whole.append((time.time() - asked) * 1000)
        spent.append((float(str(run.outputs["result"])) - asked) * 1000)
    spent, whole = sorted(spent[20:]), sorted(whole[20:])
    yield figure("submit to first instruction, p50", statistics.median(spent), "ms", "<= 8")
    yield figure("submit to first instruction, p99", spent[int(count * 0.99) - 1], "ms", "<= 20")
    yield figure(
        "call through the platform until its result, p95", whole[int(count * 0.95) - 1], "ms"
    )


def _many(client: Client, *, rounds: int) -> Iterator[Row]:
    """Jobs that do nothing, all in one request."""
    accepted, rates = [], []
    for _ in range(rounds):
        started = time.perf_counter()
        batch = client.submit_batch("small.nothing@1", range(MANY))
        accepted.append(time.perf_counter() - started)
        rates.append(MANY / _until_ended(client, batch.id, started))
    seconds = statistics.median(accepted)
    rate = statistics.median(rates)
    yield figure("10,000 jobs submitted in one request", seconds, "s", "<= 0.3", command=COMMAND)
    yield figure("no-op jobs, submitted and run", rate, "jobs/s", "", command=COMMAND)
    yield figure("no-op jobs, times Celery + Redis", rate / CELERY, "x", ">= 30", command=COMMAND)


def _computing(client: Client, count: int) -> Iterator[Row]:
    """Jobs of 5 ms of CPU."""
    started = time.perf_counter()
    batch = client.submit_batch("small.compute@1", [5] * count)
    seconds = _until_ended(client, batch.id, started)
    cores = min(2, os.cpu_count() or 1)
    used = count * 0.005 / seconds / cores
    yield figure("5 ms jobs, share of two cores", used, "", ">= 0.7", command=COMMAND)


def _until_ended(client: Client, batch: str, started: float) -> float:
    while client.batch(batch).open:
        time.sleep(0.02)
    spent = time.perf_counter() - started
    states = client.batch(batch).states
    if set(states) != {"completed"}:
        raise RuntimeError(states)
    return spent


@contextmanager
def running(folder: Path = FOLDER) -> Iterator[Client]:
    """An installation of its own with the worker of small jobs, or another one."""
    folders = f"workers.folders={json.dumps([str(folder)])}"
    _command("up", "-d", *FREE_PORTS, "--set", folders)
    try:
        with Client.from_state(STATE) as client:
            while not all(one.live >= one.wanted for one in client.workers()):
                time.sleep(0.2)
            yield client
    finally:
        _command("down")


def _command(*words: str) -> None:
    environment = {**os.environ, "HIVEMESH_STATE__FOLDER": str(STATE)}
    subprocess.run([HIVEMESH, *words], check=True, env=environment, cwd=ROOT, capture_output=True)
