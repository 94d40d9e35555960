"""Jobs beside a batch of which one record kills whatever computes it: what the others lose."""

import statistics
import threading
import time
from collections.abc import Callable, Iterator

import jobs
import psutil
from corpus import ROOT
from hivemesh_sdk.client import Client
from rows import Row, figure

COMMAND = "bench/run.py poison"
FOLDER = ROOT / "tests" / "support" / "workers" / "hostile"
CALLERS = 2  # each asks for its next job when it has its answer
ALONE_S = 8.0
RECORDS, POISON = 1000, 7
PIPELINE = {
    "apiVersion": "hivemesh/v1",
    "kind": "Pipeline",
    "metadata": {"name": "squares", "version": 1},
    "steps": {
        "count": {"use": "hostile.count@1", "with": {"size": RECORDS}},
        "square": {"use": "hostile.square@1", "map": "count", "with": {"number": POISON}},
    },
    "outputs": {"squares": "square"},
}


def measure(*, quick: bool) -> Iterator[Row]:
    """Alone, beside a poisoned batch until it is given up, and alone again, in each round."""
    with jobs.running(FOLDER) as client:
        load = Load()
        front = psutil.Process(client.worker("hostile").instances[0].pid or 0)
        with load:
            load.rate(lambda: time.sleep(ALONE_S))
            ratios, beside, died = [], [], []
            for _ in range(2 if quick else 6):
                before = load.rate(lambda: time.sleep(ALONE_S))
                began, used = time.perf_counter(), _died_s(front)
                beside.append(load.rate(lambda: _poisoned(client)))
                died.append((_died_s(front) - used) / (time.perf_counter() - began))
                after = load.rate(lambda: time.sleep(ALONE_S))
                ratios.append(beside[-1] / statistics.mean((before, after)))
    title = "jobs beside a poisoned batch"
    yield figure(f"{title}, a second", statistics.median(beside), "jobs/s", command=COMMAND)
    yield figure(f"{title}, of alone", statistics.median(ratios), "", ">= 0.95", command=COMMAND)
    share = 100 * statistics.median(died)
    yield figure(f"{title}, CPU of what it kills", share, "% of a core", command=COMMAND)


class Load:
    """Callers that go on until the end of the block."""

    def __init__(self) -> None:
        self._counts = [0] * CALLERS
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=self._call, args=(number,)) for number in range(CALLERS)
        ]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def rate(self, meanwhile: Callable[[], None]) -> float:
        """Jobs a second while something goes on."""
        began, count = time.perf_counter(), sum(self._counts)
        meanwhile()
        return (sum(self._counts) - count) / (time.perf_counter() - began)

    def _call(self, number: int) -> None:
        with Client.from_state(jobs.STATE) as client:
            while not self._ending.is_set():
                client.call("hostile.echo@1", {"n": number})
                self._counts[number] += 1


def _poisoned(client: Client) -> None:
    run = client.start_run(PIPELINE).id
    while not client.run(run).state.ended:
        time.sleep(1.0)  # a question costs as much as a job
    if client.run(run).state.value != "partial":
        raise RuntimeError(client.run(run))


def _died_s(front: psutil.Process) -> float:
    """CPU seconds of the executors that have ended."""
    times = front.cpu_times()
    return times.children_user + times.children_system
