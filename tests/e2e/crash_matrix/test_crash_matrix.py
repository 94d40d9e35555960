"""At every boundary the platform or a worker is killed; a history checker decides what was lost."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from drill import (
    EFFECTS,
    PLATFORM_POINTS,
    SETTINGS,
    SLOTS,
    WORKER_POINTS,
    Drill,
    chance,
    drill_of,
    note_figures,
)
from postgres import Postgres, postgres
from whole_platform import Shared, group_of, installed, signal_all

pytestmark = pytest.mark.e2e

SEEDS, KILLS, JOBS = 4, 50, 250  # kills and jobs of each seed
TOGETHER = 1  # of jobs under way in company when the platform was killed: the one that ran
DATABASES = ("sqlite", "postgresql")
Make = Callable[[str], Drill]


@pytest.fixture(scope="session")
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


@pytest.mark.parametrize("kind", DATABASES)
def test_a_kill_at_any_boundary_loses_and_doubles_nothing(make: Make, kind: str) -> None:
    drill = make(kind)
    for point in PLATFORM_POINTS:
        drill.crash_at(point)
    drill.restart()
    for die in WORKER_POINTS:
        drill.kill_worker(die)
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
            drill.kill_worker(random.choice(WORKER_POINTS))
            continue
        name = random.choice(PLATFORM_POINTS).partition(":")[0]
        drill.platform.kill()
        drill.kills += 1
        drill.crash_at(f"{name}:{random.randint(1, 4)}")
        drill.restart()
    drill.submit(max(JOBS - len(drill.ledger.numbers()), 0))
    verdict = drill.verdict(within_s=300)
    name = f"crash matrix, {kind}, seed {seed}"
    note_figures(name, drill, verdict, kills=KILLS, jobs=JOBS)
    assert verdict.faults == ()


def test_a_database_that_is_killed_and_comes_back_loses_nothing(
    make: Make, server: Postgres
) -> None:
    drill = make("postgresql")
    drill.restart()
    for _ in range(2):
        drill.submit(20, take_s=0.02)
        drill.start_run()
        server.kill()
        with ThreadPoolExecutor(1) as beside:
            started = beside.submit(server.start)
            drill.submit(3)
            started.result()
        drill.kills += 1
        drill.await_progress()
    verdict = drill.verdict(per_kill=SLOTS)
    assert verdict.faults == ()


@pytest.mark.chaos
def test_a_platform_that_is_stopped_while_its_database_is_away_ends_and_loses_nothing(
    make: Make, server: Postgres
) -> None:
    drill = make("postgresql")
    drill.restart()
    drill.submit(8, take_s=0.1)
    server.kill()
    try:
        assert drill.platform.process is not None
        drill.platform.process.terminate()
        assert drill.platform.wait() == 0, drill.platform.log()
    finally:
        server.start()
    assert "not_signed_off" in drill.platform.log()
    drill.kills += 1
    drill.restart()
    assert drill.verdict(per_kill=SLOTS).faults == ()


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
