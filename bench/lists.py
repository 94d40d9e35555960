"""Pages of long lists through the API: 100,000 runs, jobs, jobs of a batch, events, dead letters."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import noop
from hivemesh_platform.settings import DatabaseSettings
from hivemesh_platform.storage.database import Database
from hivemesh_platform.storage.opening import open_database, place_of
from hivemesh_platform.storage.transaction import Transaction, Value
from hivemesh_sdk.client import Client
from rows import Row, figure

COMMAND = "bench/run.py lists"
COUNT = 100_000
CHUNK = 5000
RARE = 20_000  # one of so many has a name, label or submitter of its own
STATES = ("completed",) * 97 + ("failed", "cancelled", "failed")
BEGAN_MS = 1_000_000  # before now

_RUN = """INSERT INTO run (id, pipeline, version, document, parameters, labels, submitter, state,
          created_at, ended_at) VALUES (?, ?, 1, '{"outputs":{}}', '{}', ?, ?, ?, ?, ?)"""
_NODE = """INSERT INTO node (run, name, position, capability, kind, upstream, options, labels,
           submitter, max_retries, retry_base_s, deadline_ms, idle_timeout_ms, state)
           VALUES (?, 'only', 0, 'noop.count@1', 'source', '', '{}', '{}', '', 3, 1, 0, 0, ?)"""
_LABEL = "INSERT INTO run_label (name, value, run) VALUES ('team', ?, ?)"
_JOB = """INSERT INTO work (run, node, seq, kind, capability, submitter, rank, state, created_at,
          ended_at, output, spec) VALUES (?, 'job', 0, 'call', ?, ?, 1, ?, ?, ?, ?, ?)"""
_EVENT = "INSERT INTO run_event (run, no, at, type) VALUES (?, ?, ?, 'batch_ended')"
_ATTEMPT = """INSERT INTO attempt (run, node, seq, attempt, instance, worker, started_at, ended_at,
              outcome) VALUES (?, 'job', 0, 1, ?, 'noop', ?, ?, 'completed')"""
_LETTER = """INSERT INTO dead_letter (id, run, node, seq, kind, capability, submitter, input, spec,
             problem, cause, attempts, data_class, output_class, created_at)
             VALUES (?, ?, 'job', 0, 'call', ?, ?, '[]', '{}',
             '{"type":"about:blank","title":"t","status":500,"detail":"d","code":"HM-1401"}',
             'refused', 4, 'internal', 'internal', ?)"""


def measure(*, quick: bool) -> Iterator[Row]:
    """The rows of this part."""
    rounds = 10 if quick else 40
    yield from _rows("SQLite", "", rounds)
    with noop.server() as server:
        if server is not None:
            yield from _rows("PostgreSQL", server.address(server.new_database()), rounds)


def _rows(name: str, database: str, rounds: int) -> Iterator[Row]:
    with noop.running(database) as client:
        first = time.time_ns() // 1_000_000 - BEGAN_MS
        asyncio.run(_fill(client, database, first))
        floor = _p95([_read(client, "/v1/health") for _ in range(100)]) * 1000
        yield figure(f"an answer without a list, p95, {name}", floor, "ms", command=COMMAND)
        for title, path in _lists(first).items():
            _read(client, path)
            value = _p95([_read(client, path) for _ in range(rounds)]) * 1000
            yield figure(f"{title}, p95, {name}", value, "ms", "<= 100", command=COMMAND)


def _lists(first: int) -> dict[str, str]:
    """What is asked for."""
    log, middle = f"/v1/runs/{_id('run', first, 0)}/events", COUNT // 2
    return {
        "runs": "/v1/runs",
        "runs, in the middle": f"/v1/runs?after={_id('run', first, middle)}",
        "runs that failed": "/v1/runs?state=failed",
        "runs that were cancelled": "/v1/runs?state=cancelled",
        "runs that wait: none": "/v1/runs?state=waiting",
        "runs of a rare pipeline": "/v1/runs?pipeline=rare",
        "runs of a pipeline that there is not": "/v1/runs?pipeline=none",
        "runs of a rare submitter": "/v1/runs?submitter=rare",
        "runs with a rare label": "/v1/runs?label=team%3Drare",
        "runs and jobs of a rare name": "/v1/runs?name=rare",
        "jobs": "/v1/jobs",
        "jobs, in the middle": f"/v1/jobs?after={_id('job', first, middle)}",
        "jobs that failed": "/v1/jobs?state=failed",
        "jobs that were cancelled": "/v1/jobs?state=cancelled",
        "jobs that are queued: none": "/v1/jobs?state=queued",
        "jobs of a rare capability": "/v1/jobs?capability=rare",
        "jobs of a capability that there is not": "/v1/jobs?capability=none",
        "jobs of a rare submitter": "/v1/jobs?submitter=rare",
        "jobs of a submitter of one batch": "/v1/jobs?submitter=many",
        "jobs of a submitter of one batch that failed": "/v1/jobs?submitter=many&state=failed",
        "jobs with a rare label": "/v1/jobs?label=team%3Drare",
        "attempts at an instance": "/v1/attempts?instance=usual",
        "attempts at an instance, the oldest": f"/v1/attempts?instance=usual&after={first + 300}:1:a.b.0",
        "attempts at a rare instance": "/v1/attempts?instance=rare",
        "events of one run": f"{log}?wait=0",
        "events of one run, the last": f"{log}?wait=0&after={COUNT - 100}",
        "dead letters": "/v1/dead-letters",
        "dead letters of a rare capability": "/v1/dead-letters?capability=rare",
        "dead letters of one job": f"/v1/dead-letters?run={_id('job', first, RARE)}",
        "dead letters that were discarded: none": "/v1/dead-letters?state=discarded",
    }


def _read(client: Client, path: str) -> float:
    began = time.perf_counter()
    client._read("GET", path)  # noqa: SLF001 - the page as it comes, without views of it
    return time.perf_counter() - began


def _p95(spent: Sequence[float]) -> float:
    return sorted(spent)[int(len(spent) * 0.95)]


async def _fill(client: Client, address: str, first: int) -> None:
    """Write rows as if that many runs and jobs had ended."""
    settings = DatabaseSettings(url=address)
    place = place_of(settings, Path(client.status().state_folder))
    domain = client.whoami().id.rpartition("/user/")[0]
    async with open_database(settings, place) as database:
        for begin in range(0, COUNT, CHUNK):
            await _fill_some(database, domain, first, range(begin, begin + CHUNK))
        await database.write(lambda tx: tx.send("ANALYZE"))  # as PostgreSQL does it in a minute


async def _fill_some(database: Database, domain: str, first: int, numbers: range) -> None:
    runs: list[tuple[Value, ...]] = []
    jobs: list[tuple[Value, ...]] = []
    letters: list[tuple[Value, ...]] = []
    labels: list[tuple[Value, ...]] = []
    attempts: list[tuple[Value, ...]] = []
    for n in numbers:
        name, at, state = ("rare" if n % RARE == 0 else "usual"), first + n * 10, STATES[n % 100]
        who, run, job = f"{domain}/user/{name}", _id("run", first, n), _id("job", first, n)
        labels += [(name, run), (name, job)]
        runs.append((run, name, f'{{"team":"{name}"}}', who, state, at, at + 5))
        jobs.append((job, name, who, state, at + 1, at + 5, '{"value":"1"}', "{}"))
        attempts.append((job, name, at + 2, at + 5))
        letters.append((_id("dl", first, n), job, name, who, at))
    stem, many = _id("job", first, COUNT), (first + COUNT * 10, first + COUNT * 10)
    jobs += [
        (f"{stem}-{n + 1:06d}", "usual", f"{domain}/user/many", STATES[n % 100], *many, None, "{}")
        for n in numbers
    ]
    log = [(_id("run", first, 0), n + 1, first + n) for n in numbers]
    nodes = [(row[0], row[4]) for row in runs]

    def write(tx: Transaction) -> None:
        for sql, rows in (
            (_RUN, runs), (_NODE, nodes), (_LABEL, labels), (_JOB, jobs), (_EVENT, log),
            (_LETTER, letters), (_ATTEMPT, attempts),
        ):  # fmt: skip
            tx.execute_many(sql, rows)

    await database.write(write)


def _id(kind: str, first: int, number: int) -> str:
    return f"{kind}_{first + number * 10:012x}7{number:019x}"
