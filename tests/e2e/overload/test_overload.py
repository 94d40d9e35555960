"""Ten times more is asked than can be done: it goes on at its capacity and says no to the rest at once.

In short: `plugin-sdk/tests/transport/test_server_limits.py`.
"""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from chaos_figures import record
from drill import EFFECTS, Drill, drill_of
from open_loop import Answer, Callers, closed_loop, open_loop
from whole_platform import Shared, installed

pytestmark = [pytest.mark.e2e, pytest.mark.chaos]

TAKES_S, SLOTS = 4.0, 4
CAPACITY = SLOTS / TAKES_S  # jobs a second
TIMES, SECONDS = 10, 600.0
PLACES = 12  # of which people may fill nine, one of them with a worker that waits for news
BESIDE = 8
NAME = "overload, 10 times the capacity for ten minutes"


@pytest.fixture
def drill(tmp_path: Path, shared: Shared) -> Iterator[Drill]:
    settings = (f"api.max_requests={PLACES}",)
    with installed(tmp_path / "one", shared, *settings, workers=[EFFECTS]) as platform:
        platform.start()
        platform.until_live()
        yield drill_of(tmp_path, platform)


@dataclass(slots=True)
class Watched:
    """What was seen of the platform while it was overloaded."""

    health_s: list[float] = field(default_factory=list)
    rss: list[int] = field(default_factory=list)
    refused: int = 0

    async def watch(self, callers: Callers, pid: int) -> None:
        """Ask for its health and look at its memory twice a second, until cancelled."""
        process = psutil.Process(pid)
        while True:
            answer = await callers.ask(0, "GET", "/v1/health")
            self.health_s.append(answer.took_s)
            self.refused += answer.status != 200
            self.rss.append(process.memory_info().rss)
            await asyncio.sleep(0.5)


def work(drill: Drill, first: int):
    """The body of a request: a job that is waited for."""

    def body(number: int) -> object:
        one = {"folder": str(drill.ledger.folder), "number": first + number, "take_s": TAKES_S}
        options = {"company": first + number}
        return {"capability": "effect.write@1", "input": one, "options": options, "wait_s": 20.0}

    return body


def note(drill: Drill, first: int, answers: list[Answer]) -> list[Answer]:
    """Write down what was accepted; returns the answers that hold a job."""
    accepted = [one for one in answers if one.status < 300]
    for one in accepted:
        drill.ledger.accept(first + one.number, json.loads(one.body)["id"])
    return accepted


async def overloaded(drill: Drill) -> tuple[list[Answer], list[Answer], float, Watched]:
    callers, watchers = Callers.of(drill.platform), Callers.of(drill.platform)
    path, watched = "/v1/jobs", Watched()
    alone = note(
        drill, 0, await closed_loop(callers, path, work(drill, 0), callers_at_once=1, count=3)
    )
    began = time.monotonic()
    some = await closed_loop(
        callers, path, work(drill, 1000), callers_at_once=BESIDE, count=4 * BESIDE
    )
    peak = len(note(drill, 1000, some)) / (time.monotonic() - began)
    watching = asyncio.create_task(watched.watch(watchers, drill.platform.pid))
    try:
        rate = TIMES * CAPACITY
        answers = await open_loop(callers, path, work(drill, 10_000), rate=rate, seconds=SECONDS)
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
    await callers.close()
    await watchers.close()
    return alone, answers, peak, watched


def p99(answers: list[Answer]) -> float:
    times = sorted(one.took_s for one in answers)
    return times[int(len(times) * 0.99) - 1]


def unanswered(drill: Drill) -> int:
    """How often the worker was refused or not answered: processes go before people."""
    log = (drill.platform.state / "logs" / "worker-effects.log").read_text().splitlines()
    found = (json.loads(line) for line in log if "standing_changed" in line)
    return sum(one["now"] in {"refused", "alone"} for one in found)


def test_what_is_too_much_is_refused_at_once_and_the_rest_goes_on_as_before(drill: Drill) -> None:
    before = {one.id for one in drill.platform.instances("effects")}
    alone, answers, peak, watched = asyncio.run(overloaded(drill))
    accepted = note(drill, 10_000, answers)
    refused = [one for one in answers if one.status >= 300]
    for one in refused:
        assert one.status in {429, 503}
        assert int(one.headers["retry-after"]) >= 1
        assert one.headers["content-type"] == "application/problem+json"
    assert refused
    assert not watched.refused
    assert {one.id for one in drill.platform.instances("effects")} == before
    assert drill.verdict().faults == ()
    goodput = len(accepted) / SECONDS / peak
    slower = p99(accepted) / p99(alone)
    no_s, health_s = p99(refused), max(watched.health_s)
    grown = (max(watched.rss) - watched.rss[0]) / 2**20
    record(f"{NAME}: goodput, of the peak", goodput, "", 0.9, holds=goodput >= 0.9)
    record(f"{NAME}: p99 of what is accepted, of unloaded", slower, "x", 3, holds=slower <= 3)
    record(f"{NAME}: p99 until a refusal", no_s, "s", 0.1, holds=no_s <= 0.1)
    record(f"{NAME}: longest answer of health", health_s, "s", 0.1, holds=health_s <= 0.1)
    record(f"{NAME}: memory grown by", grown, "MiB", 64, holds=grown <= 64)
    missed = unanswered(drill)
    record(f"{NAME}: times that a worker was not heard", missed, "times", 0, holds=not missed)
    asked = watched.refused
    record(f"{NAME}: questions of health refused", asked, "requests", 0, holds=not asked)
    assert goodput >= 0.5  # 0.9 on a machine of one's own
    assert grown <= 64
