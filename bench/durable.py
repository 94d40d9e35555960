"""Records through a source and a map, stored durably: each batch is on the disk before it counts."""

import time
from collections.abc import Iterator
from datetime import datetime

import noop
from hivemesh_sdk.client import Client
from rows import Row, figure

COMMAND = "make bench (bench/run.py throughput)"
TEXT = "a line of a log that is about as long as most lines of logs are " * 2


def measure(*, quick: bool) -> Iterator[Row]:
    """The rows of this part."""
    records = 200_000 if quick else 1_000_000
    yield from _rows("SQLite", "", records, 100, 200)
    with noop.server() as server:
        if server is not None:
            address = server.address(server.new_database())
            yield from _rows("PostgreSQL", address, records, 80, 150)


def _rows(name: str, database: str, records: int, stored: int, referred: int) -> Iterator[Row]:
    with noop.running(database) as client:
        _rate(client, records // 20, stored=True)
        through = _rate(client, records, stored=True)
        source = _rate(client, records, stored=False)
    title = f"records through a worker, results stored, {name}"
    yield figure(title, through / 1000, "thousand/s", f">= {stored}", command=COMMAND)
    title = f"records of a source, batches by reference, {name}"
    yield figure(title, source / 1000, "thousand/s", f">= {referred}", command=COMMAND)


def _rate(client: Client, records: int, *, stored: bool) -> float:
    """Records a second: of a source and a map behind it, or of a source alone."""
    count = {"use": "noop.count@1", "with": {"records": records, "text": TEXT}}
    steps = {"count": count}
    if stored:
        steps["pass"] = {"use": "noop.pass@1", "map": "count"}
    document = {
        "apiVersion": "hivemesh/v1",
        "kind": "Pipeline",
        "metadata": {"name": "bench-durable", "version": 1},
        "steps": steps,
        "outputs": {"records": "pass" if stored else "count"},
    }
    started = time.time()
    run = client.start_run(document)
    while not (view := client.run(run.id)).state.ended:
        time.sleep(0.2)  # a look costs the platform milliseconds, so there are few
    if view.state.value != "completed" or view.ended_at is None:
        raise RuntimeError(view)
    return records / (datetime.fromisoformat(view.ended_at).timestamp() - started)
