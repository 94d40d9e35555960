"""What people and the queue wait for: a choice among 1,000 instances, and the API beside 10,000 jobs."""

import asyncio
import sys
import time
from collections.abc import Iterator

import jobs
from corpus import ROOT
from hivemesh_platform.execution.ports import Choice, Outcome, Requirement
from hivemesh_platform.registry.embedded import EmbeddedDirectory
from hivemesh_platform.routing.model import Weights
from hivemesh_platform.routing.service import RoutingService
from hivemesh_sdk.client import Client
from hivemesh_sdk.testing.clock import ManualClock
from rows import Row, figure

sys.path.append(str(ROOT / "tests" / "support"))

COMMAND = "bench/run.py routing"
INSTANCES = 1000
HELD = 500


def routing(*, quick: bool) -> Iterator[Row]:
    """One choice, with what is kept to explain it."""
    spent = sorted(asyncio.run(_choices(2000 if quick else 20_000)))
    for name, place in (("p50", 0.5), ("p95", 0.95)):
        value = spent[int(len(spent) * place)] * 1e6
        title = f"choice among 1,000 instances, {name}"
        yield figure(title, value, "us", "<= 50", command=COMMAND)


async def _choices(count: int) -> list[float]:
    from registry_support import instance

    clock = ManualClock()
    directory = EmbeddedDirectory(clock)
    for number in range(INSTANCES):
        await directory.put(instance(clock, f"i{number}"))
    service = RoutingService(directory, clock, Weights())
    wanted = Requirement(capability="echo.say@1", records=1)
    held: list[Choice] = []
    spent = []
    for _ in range(count):
        clock.advance(0.001)
        began = time.perf_counter()
        choice = service.choose(wanted)
        spent.append(time.perf_counter() - began)
        assert isinstance(choice, Choice)
        held.append(choice)
        if len(held) > HELD:
            service.report(held.pop(0), Outcome.COMPLETED, 0.0)
    return spent


def api(*, quick: bool) -> Iterator[Row]:
    """Status and retention, which read no long list, idle and while 10,000 jobs run."""
    with jobs.running() as client:
        client.call("small.nothing@1", 0)
        idle = _p95(_asked(client, 100 if quick else 300))
        batch = client.submit_batch("small.compute@1", [2] * jobs.MANY)
        busy = []
        while client.batch(batch.id).open:
            busy += _asked(client, 10)
        loaded = _p95(busy)
    command = "bench/run.py api"
    yield figure("API p95, idle", idle * 1000, "ms", "", command=command)
    yield figure("API p95 while 10,000 jobs run", loaded * 1000, "ms", "<= 50", command=command)
    yield figure("API p95 beside jobs, times idle", loaded / idle, "x", "<= 2", command=command)


def _asked(client: Client, times: int) -> list[float]:
    spent = []
    for number in range(times):
        began = time.perf_counter()
        if number % 2:
            client.status()
        else:
            client.retention()
        spent.append(time.perf_counter() - began)
    return spent


def _p95(spent: list[float]) -> float:
    return sorted(spent)[int(len(spent) * 0.95)]
