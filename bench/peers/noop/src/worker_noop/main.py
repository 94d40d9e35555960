"""Jobs that do nothing, that compute for 5 ms, that tell the time; records that only pass."""

import time
from collections.abc import Iterator

from hivemesh_sdk import Context, Raw, Record, Worker

worker = Worker()

BUSY_S = 0.005


class Count(Record):
    """How many records of which size."""

    records: int
    text: str = ""


class Item(Record):
    """A record like a short log line."""

    n: int
    text: str


@worker.call("noop.do@1")
def do(number: int) -> int:
    """Do nothing."""
    return number


@worker.call("noop.do_singly@1")
def do_singly(number: int) -> int:
    """Do nothing, on the one executor that serves this."""
    return number


@worker.call("noop.busy@1")
def busy(number: int) -> int:
    """Compute for 5 ms."""
    until = time.thread_time() + BUSY_S
    while time.thread_time() < until:
        pass
    return number


@worker.call("noop.when@1")
def when(number: int) -> float:
    """Tell when the first instruction ran."""
    return time.time()


@worker.source("noop.count@1")
def count(options: Count, start: int | None, context: Context) -> Iterator[tuple[Item, int]]:
    """Count."""
    for n in range(start or 0, options.records):
        yield Item(n, options.text), n + 1


@worker.map("noop.pass@1")
def unchanged(records: list[Raw]) -> list[Raw]:
    """Hand on what came."""
    return records
