"""Jobs that take seconds: how much of a worker's time the queue takes for itself."""

import time
from collections.abc import Iterator

import jobs
from rows import Row, figure

COMMAND = "bench/run.py slow"
SECONDS = 3.0
NODES = 5


def measure(*, quick: bool) -> Iterator[Row]:
    """Jobs of three seconds that wait and do not compute, on one slot and on five."""
    with jobs.running() as client:
        client.call("small.nothing@1", 0)
        for slots, capability in ((1, "small.wait_alone@1"), (NODES, "small.wait@1")):
            count = slots * (3 if quick else 10)
            began = time.perf_counter()
            batch = client.submit_batch(capability, [SECONDS] * count)
            while client.batch(batch.id).open:
                time.sleep(0.02)
            spent = time.perf_counter() - began
            least = SECONDS * count / slots
            title = f"jobs of 3 s, {slots} at a time"
            rate = 60 * count / spent
            goal = ">= 10" if slots == 1 else ">= 50"
            yield figure(title, rate, "jobs/min", goal, command=COMMAND)
            extra = 100 * (spent - least) / least
            yield figure(f"{title}, overhead", extra, "%", "<= 5", command=COMMAND)
