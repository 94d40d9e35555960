"""The database server is killed while a run is under way: nothing is lost, and nobody is needed."""

import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial

import pytest
from chaos_figures import record
from drill import EFFECTS, Drill, drill_of
from hivemesh_sdk.contracts.api import RunState
from hivemesh_sdk.errors import HivemeshError
from mail import submit, write_mbox
from postgres import Postgres, postgres
from whole_platform import Installation, until

pytestmark = pytest.mark.e2e

MESSAGES, LONG = 3000, 20_000
MINUTES, PAUSES_S = 10, (5, 40)
SLOTS = 4  # jobs that run at once, each of which a lost commit may have run again
BATCHES = ("execution.batch_records=50", "execution.in_flight_batches=4")


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    with postgres(options="") as found:  # fsync stays on: it is killed
        yield found


def started(install, server: Postgres) -> Installation:
    address = server.address(server.new_database())
    installation = install(*BATCHES, f"database.url={address}")
    installation.start()
    return installation


def killed_while(
    installation: Installation, server: Postgres, run: str, kills: int, chance: random.Random
) -> int:
    """Kill the server so often, each time when the run has come further; how often it was."""
    for number in range(kills):
        done = batches(installation, run)
        if done is None:
            return number
        come = partial(has_come, installation, run, done + chance.randint(1, 8))
        until(come, 120, "the run goes on")
        server.kill()
        server.start()
    return kills


def has_come(installation: Installation, run: str, wanted: int) -> bool:
    """Whether so many batches have ended, or the run has."""
    found = batches(installation, run)
    return found is None or found >= wanted


def batches(installation: Installation, run: str) -> int | None:
    """How many batches have ended; None where the run has."""
    try:
        view = installation.run(run)
    except HivemeshError:
        return 0  # nobody answers reads while the server is away for long
    return None if view.state.ended else sum(node.batches_done for node in view.nodes)


def check(installation: Installation, run: str, messages: int) -> None:
    ended = installation.until_ended(run, within_s=300)
    assert ended.state is RunState.COMPLETED, ended
    with installation.client() as client:
        lines = b"".join(client.output(run, "messages")).splitlines()
    seen = Counter(json.loads(line)["id"] for line in lines)
    assert (len(seen), seen.total(), max(seen.values())) == (messages, messages, 1)


def test_a_database_that_is_killed_three_times_loses_nothing(install, server, tmp_path) -> None:
    installation = started(install, server)
    run = submit(installation, write_mbox(tmp_path / "mail.mbox", MESSAGES))
    chance = random.Random(4)  # noqa: S311 - drills must repeat
    assert killed_while(installation, server, run, 3, chance) == 3
    check(installation, run, MESSAGES)


def test_database_and_platform_killed_together_lose_nothing(install, server, tmp_path) -> None:
    installation = started(install, server)
    run = submit(installation, write_mbox(tmp_path / "mail.mbox", MESSAGES))
    until(partial(has_come, installation, run, 1), 60, "the run has begun")
    server.kill()
    installation.kill()
    server.start()
    installation.start()
    check(installation, run, MESSAGES)


@pytest.mark.chaos
def test_a_database_that_is_killed_twenty_times_loses_nothing(install, server, tmp_path) -> None:
    installation = started(install, server)
    chance = random.Random(11)  # noqa: S311 - drills must repeat
    mbox = write_mbox(tmp_path / "mail.mbox", LONG)
    kills = 0
    while kills < 20:
        run = submit(installation, mbox)
        kills += killed_while(installation, server, run, 20 - kills, chance)
        check(installation, run, LONG)
    name = "nothing lost: PostgreSQL killed in runs over 20,000 messages"
    record(name, kills, "kills", 20, holds=True)


def work_until(drill: Drill, moment: float) -> None:
    """Submit jobs without a pause, and a run that goes on after the moment."""
    while time.monotonic() < moment:
        drill.submit(4, take_s=0.02)
        drill.await_progress()
    drill.start_run()


@pytest.mark.chaos
def test_a_database_killed_for_ten_minutes_loses_nothing_and_needs_nobody(
    install, server, tmp_path
) -> None:
    address = server.address(server.new_database())
    platform = install(*BATCHES, f"database.url={address}", workers=[EFFECTS])
    drill, chance = drill_of(tmp_path / "drill", platform), random.Random(5)  # noqa: S311 - drills must repeat
    drill.restart()
    slowest, end = 0.0, time.monotonic() + MINUTES * 60
    while time.monotonic() < end:
        work_until(drill, time.monotonic() + chance.uniform(*PAUSES_S))
        server.kill()
        drill.submit(2)
        server.start()
        drill.kills += 1
        began = time.monotonic()
        drill.await_progress(within_s=120)
        slowest = max(slowest, time.monotonic() - began)
        drill.await_runs()
    verdict = drill.verdict(within_s=300, per_kill=SLOTS)
    name = "nothing lost: PostgreSQL killed every 5-40 s for 10 minutes"
    record(f"{name}: kills", drill.kills, "kills", 10, holds=drill.kills >= 10)
    record(f"{name}: jobs", verdict.jobs, "jobs", 1000, holds=verdict.jobs >= 1000)
    record(f"{name}: lost", len(verdict.lost), "jobs", 0, holds=not verdict.lost)
    repeats = verdict.repeats / drill.kills
    record(f"{name}: repeats per kill", repeats, "effects", SLOTS, holds=repeats <= SLOTS)
    record(f"{name}: work moves again", slowest, "s", 5, holds=slowest <= 5)
    assert verdict.faults == ()
    assert platform.process is not None
    assert platform.process.poll() is None
