"""At every boundary the platform or a worker is killed; a history checker decides what was lost."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from chaos_figures import record
from drill import EFFECTS, Drill, chance, drill_of
from history import Verdict
from postgres import Postgres, postgres
from whole_platform import Installation, Shared, group_of, installed, reachable, signal_all, until

pytestmark = pytest.mark.e2e

SETTINGS = ("execution.batch_records=20", "execution.in_flight_batches=4")
PLATFORM_POINTS = (
    *("accept.before", "accept.after:2", "claim.after:2", "dispatch.before:2", "dispatch.after:3"),
    *("ack.before:2", "ack.after:2", "record.before:2", "record.after:2"),
    *("finish.before:3", "finish.after:3"),
)
WORKER_POINTS = ("effect.before", "executor", "effect.after", "reply:0", "reply:0.01")
SEEDS, KILLS, JOBS = 4, 50, 250  # kills and jobs of each seed
MOVES_S = 5.0
SLOTS = 4
BEATS = 3  # a replica sees the other by its own, and tells the worker at the next
TOGETHER = 1  # of jobs under way in company when the platform was killed: the one that ran
DATABASES = ("sqlite", "postgresql")
Make = Callable[[str], Drill]


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres(options="") as found:
        yield found


@pytest.fixture
def make(tmp_path: Path, shared: Shared, request: pytest.FixtureRequest) -> Iterator[Make]:
    """Make the drill of one installation on a kind of database."""
    with ExitStack() as stack:

        def drill(kind: str) -> Drill:
            settings = list(SETTINGS)
            if kind == "postgresql":
                server: Postgres = request.getfixturevalue("server")
                settings.append(f"database.url={server.address(server.new_database())}")
            folder = tmp_path / "installation"
            one = stack.enter_context(installed(folder, shared, *settings, workers=[EFFECTS]))
            return drill_of(tmp_path, one)

        yield drill


def kill_worker(drill: Drill, die: str) -> None:
    """Let a job kill its worker on the way."""
    drill.await_runs()  # a source that is killed three times in a row is given up, by rule
    drill.submit(1, die=die)
    drill.kills += 1
    drill.submit(3)
    drill.await_progress()


@pytest.mark.parametrize("kind", DATABASES)
def test_a_kill_at_any_boundary_loses_and_doubles_nothing(make: Make, kind: str) -> None:
    drill = make(kind)
    for point in PLATFORM_POINTS:
        drill.crash_at(point)
    drill.restart()
    for die in WORKER_POINTS:
        kill_worker(drill, die)
    verdict = drill.verdict()
    assert verdict.faults == ()
    assert drill.kills == len(PLATFORM_POINTS) + len(WORKER_POINTS)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("kind", DATABASES)
def test_two_hundred_kills_lose_and_double_nothing(make: Make, kind: str, seed: int) -> None:
    """A quarter of them; the seeds together are all."""
    drill, random = make(kind), chance(seed)
    drill.restart()
    while drill.kills < KILLS:
        drill.submit(4)
        if random.random() < 0.5:
            kill_worker(drill, random.choice(WORKER_POINTS))
            continue
        name = random.choice(PLATFORM_POINTS).partition(":")[0]
        drill.platform.kill()
        drill.kills += 1
        drill.crash_at(f"{name}:{random.randint(1, 4)}")
        drill.restart()
    drill.submit(max(JOBS - len(drill.ledger.numbers()), 0))
    verdict = drill.verdict(within_s=300)
    note_figures(f"crash matrix, {kind}, seed {seed}", drill, verdict)
    assert verdict.faults == ()


def note_figures(name: str, drill: Drill, verdict: Verdict) -> None:
    lost, doubled, stale = (
        len(found) for found in (verdict.lost, verdict.duplicates, verdict.stale)
    )
    repeats, slowest = verdict.repeats / drill.kills, drill.slowest_s
    record(f"{name}: kills", drill.kills, "kills", KILLS, holds=drill.kills >= KILLS)
    record(f"{name}: jobs", verdict.jobs, "jobs", JOBS, holds=verdict.jobs >= JOBS)
    record(f"{name}: lost", lost, "jobs", 0, holds=not lost)
    record(f"{name}: doubled keyed effects", doubled, "effects", 0, holds=not doubled)
    record(f"{name}: stale results", stale, "results", 0, holds=not stale)
    record(f"{name}: repeats per kill", repeats, "effects", 1, holds=repeats <= 1)
    record(f"{name}: work moves again", slowest, "s", MOVES_S, holds=slowest <= MOVES_S)


def test_a_database_that_is_killed_and_comes_back_loses_nothing(
    make: Make, server: Postgres
) -> None:
    drill = make("postgresql")
    drill.restart()
    for _ in range(2):
        drill.submit(20, take_s=0.02)
        drill.start_run()
        server.kill()
        drill.submit(3)
        server.start()
        drill.kills += 1
        drill.await_progress()
    verdict = drill.verdict(per_kill=SLOTS)
    assert verdict.faults == ()


def test_a_worker_that_dies_in_all_its_slots_repeats_no_keyed_effect(make: Make) -> None:
    drill = make("sqlite")
    drill.restart()
    drill.submit(8, take_s=0.3)
    for one in drill.platform.instances("effects"):
        signal_all(group_of(one.pid))
    drill.kills += 1
    verdict = drill.verdict(per_kill=SLOTS)
    assert verdict.faults == ()


@pytest.mark.parametrize(
    "point",
    [
        "dispatch.after",
        pytest.param("finish.before", marks=pytest.mark.chaos),
        pytest.param("finish.after", marks=pytest.mark.chaos),
    ],
)
def test_jobs_that_travel_together_are_kept_and_counted_alone(make: Make, point: str) -> None:
    drill = make("sqlite")
    drill.together = True
    drill.crash_at(f"{point}:2")
    drill.restart()
    verdict = drill.verdict(per_kill=TOGETHER)
    assert verdict.faults == ()


def knows_of_two(platform: Installation) -> None:
    """Wait until the worker has been told of both replicas: by answers to heartbeats."""
    beats = 0
    age = 0.0

    def told() -> bool:
        nonlocal beats, age
        before, age = age, platform.instances("effects")[0].heartbeat_age_s
        beats += age < before
        return beats >= BEATS

    until(told, 30, "heartbeats")


@pytest.fixture
def replicas(tmp_path: Path, shared: Shared, server: Postgres) -> Iterator[Drill]:
    """Two replicas on one database; the first runs the workers."""
    database = server.address(server.new_database())
    with ExitStack() as stack:
        found = []
        for name, more in (("p1", ()), ("p2", ("workers.supervise=false",))):
            settings = (
                f"database.url={database}",
                f"replica.id={name}",
                f"replica.shared_folder={tmp_path / 'common'}",
                *SETTINGS,
                *more,
            )
            one = installed(tmp_path / name, shared, *settings, workers=[EFFECTS])
            found.append(stack.enter_context(one))
            found[-1].start()
        found[0].until_live()
        knows_of_two(found[0])
        yield drill_of(tmp_path, *found)


def test_another_replica_takes_over_what_a_killed_one_held(replicas: Drill) -> None:
    first, second = replicas.installations
    replicas.submit(12, take_s=0.2)
    replicas.start_run()
    first.kill()
    replicas.kills += 1
    replicas.installations.reverse()
    replicas.submit(4)
    replicas.await_progress()
    verdict = replicas.verdict(per_kill=SLOTS)
    assert verdict.faults == ()
    assert second.run(max(one.job for one in replicas.history().accepted)).state.ended


def test_a_replica_that_wakes_after_its_take_over_commits_nothing(replicas: Drill) -> None:
    first, _ = replicas.installations
    replicas.submit(12, take_s=0.2)
    replicas.start_run()
    os.kill(first.pid, signal.SIGSTOP)
    try:
        replicas.kills += 1
        replicas.installations.reverse()
        replicas.await_runs()
        replicas.submit(4)
        replicas.await_progress()
    finally:
        os.kill(first.pid, signal.SIGCONT)
    verdict = replicas.verdict(per_kill=SLOTS)
    assert verdict.faults == ()
    until(lambda: reachable(first), 30, "the woken replica answers")
