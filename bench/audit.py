"""The audit trail: what a record costs, how many fit into a second, how fast a trail is verified."""

import asyncio
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import corpus
from hivemesh_platform.audit import records
from hivemesh_platform.audit.checkpoints import FileSink
from hivemesh_platform.audit.keys import open_keys
from hivemesh_platform.audit.model import AuditEvent
from hivemesh_platform.audit.trail import AuditLog, open_trail
from hivemesh_platform.audit.verification import verify
from hivemesh_sdk.clock import SystemClock
from rows import Row, figure

COMMAND = "make bench (bench/run.py audit)"
AT_ONCE = 64
ALONE = 200


def measure(*, quick: bool) -> Iterator[Row]:
    """The rows of this part; the disk is that of the checkout."""
    number = 20_000 if quick else 100_000
    yield figure("audit record, CPU of the chain", _chain(), "us", "<= 50", command=COMMAND)
    corpus.WORK.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=corpus.WORK) as place:
        folder = Path(place)
        alone, rate, cpu = asyncio.run(_written(folder, number))
        started = time.perf_counter()
        report = verify(folder / "audit", folder / "elsewhere.jws")
        seconds = time.perf_counter() - started
    assert report.finding is None
    assert report.records == number + ALONE
    yield figure("audit record, alone, until durable, p50", alone, "ms", "<= 10", command=COMMAND)
    title = f"audit records, {AT_ONCE} at once"
    yield figure(title, rate, "records/s", ">= 3000", command=COMMAND)
    yield figure("audit record among many, CPU in all", cpu, "us", "<= 250", command=COMMAND)
    rate = report.records / seconds
    yield figure("audit verification", rate, "records/s", ">= 50000", command=COMMAND)


def _event(number: int) -> AuditEvent:
    return AuditEvent(
        actor="spiffe://bench.hivemesh.internal/user/operator",
        action="run:pipeline",
        target=f"email-insights/{number}",
        rule="run:pipeline/*",
        serial="2f" * 20,
        address="127.0.0.1",
        request_id=f"0badcafe-{number:x}",
        parameters={"archive": "9f" * 32, "limit": 100},
    )


def _chain(number: int = 5000) -> float:
    """CPU of making one record, without writing it."""
    at, prev = SystemClock().now(), records.GENESIS
    started = time.process_time()
    for seq in range(1, number + 1):
        _, prev = records.line(records.members(_event(seq), at, b"k" * 32), seq, prev)
    return 1e6 * (time.process_time() - started) / number


@asynccontextmanager
async def _trail(folder: Path):
    keys = open_keys(folder / "trust", folder / "audit")
    sink = FileSink(folder / "elsewhere.jws")
    async with open_trail(folder / "audit", keys, sink, SystemClock()) as opened:
        yield opened


async def _written(folder: Path, number: int) -> tuple[float, float, float]:
    """Milliseconds of a record alone, records a second at once, microseconds of CPU for each."""
    async with _trail(folder) as trail:
        alone = [await _seconds(trail, one) for one in range(ALONE)]
        numbers = itertools.count()
        started, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(_many(trail, numbers, number) for _ in range(AT_ONCE)))
        spent, cpu = time.perf_counter() - started, time.process_time() - cpu
    return 1000 * statistics.median(alone), number / spent, 1e6 * cpu / number


async def _seconds(trail: AuditLog, number: int) -> float:
    started = time.perf_counter()
    await trail.record(_event(number))
    return time.perf_counter() - started


async def _many(trail: AuditLog, numbers: Iterator[int], last: int) -> None:
    while (number := next(numbers)) < last:
        await trail.record(_event(number))
