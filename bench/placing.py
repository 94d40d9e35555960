"""What people and the queue wait for: a choice among 1,000 instances, and the API beside 10,000 jobs."""

import asyncio
import sys
import time
from collections.abc import Callable, Iterator

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
    """What people and programs ask for, idle and while 10,000 jobs run; each kind for itself."""
    with jobs.running() as client:
        known = client.call("small.nothing@1", 0).id
        idle = _asked(client, known, 50 if quick else 200)
        busy: dict[str, list[float]] = {}
        batch = client.submit_batch("small.compute@1", [2] * jobs.MANY)
        while client.batch(batch.id).open:
            for name, spent in _asked(client, known, 5).items():
                busy.setdefault(name, []).extend(spent)
    command = "bench/run.py api"
    for name, spent in idle.items():
        title = f"API, {name}"
        rest, loaded = _p95(spent), _p95(busy[name])
        goal = "<= 10" if name == "submit" else ""
        yield figure(f"{title}, p95, idle", rest * 1000, "ms", goal, command=command)
        yield figure(f"{title}, p95 beside jobs", loaded * 1000, "ms", "<= 50", command=command)
    every = [one for spent in idle.values() for one in spent]
    beside = [one for spent in busy.values() for one in spent]
    times = _p95(beside) / _p95(every)
    yield figure("API p95 beside 10,000 jobs, times idle", times, "x", "<= 2", command=command)


def _asked(client: Client, known: str, times: int) -> dict[str, list[float]]:
    """The seconds of each answer, the kinds in turn."""
    kinds: dict[str, Callable[[], object]] = {
        "status": client.status,
        "list": lambda: client.jobs(limit=20),
        "show": lambda: client.run(known),
        "submit": lambda: client.submit("small.nothing@1", 1, priority=10),
    }
    spent: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(times):
        for name, ask in kinds.items():
            began = time.perf_counter()
            ask()
            spent[name].append(time.perf_counter() - began)
    return spent


def _p95(spent: list[float]) -> float:
    return sorted(spent)[int(len(spent) * 0.95)]
