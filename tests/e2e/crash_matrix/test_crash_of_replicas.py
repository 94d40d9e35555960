"""Two replicas on one PostgreSQL are killed at every boundary, take-over included."""

import os
import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from chaos_figures import record
from drill import (
    PLATFORM_POINTS,
    SLOTS,
    WORKER_POINTS,
    Drill,
    chance,
    note_figures,
)
from postgres import Postgres, postgres
from replica_pair import TAKEN_OVER_S, two_replicas, until_taken_over
from whole_platform import Shared, reachable, until

pytestmark = pytest.mark.e2e

SEEDS, KILLS, JOBS = 4, 50, 250  # kills and jobs of each seed
FENCED = "hivemesh_commits_fenced_total"
TAKE_OVERS = ("takeover.before", "takeover.fenced", "takeover.after")


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    with postgres(options="") as found:
        yield found


@dataclass(slots=True)
class Matrix:
    """Kills of either replica, and how long the other one took to go on."""

    drill: Drill
    server: Postgres
    database: str
    took_s: list[float] = field(default_factory=list)
    refused: int = 0  # replicas that woke and were told that their work is another's

    def kill_at(self, point: str) -> None:
        """Kill the one that is spoken to, let it die again at a point, and start it at last."""
        self._kill()
        self.drill.crash_at(point)
        self._taken_over()
        self._restart_the_other()

    def kill_both_at(self, point: str) -> None:
        """Kill the second replica while it takes over from the first."""
        drill = self.drill
        second = drill.installations[1]
        second.kill()
        drill.kills += 1
        second.start({"HIVEMESH_CRASH_AT": point})
        drill.submit(4, take_s=0.1)
        self._kill()
        assert second.wait(60) == -9
        drill.kills += 1
        drill.restart()
        second.start()

    def sleep(self) -> None:
        """Stop the one that is spoken to, until it was taken over; what it says then is refused."""
        drill = self.drill
        asleep = drill.platform
        before = asleep.metric(FENCED)
        os.kill(asleep.pid, signal.SIGSTOP)
        try:
            drill.kills += 1
            self._taken_over()
            drill.await_runs()
            drill.submit(4)
            drill.await_progress()
        finally:
            os.kill(asleep.pid, signal.SIGCONT)
        until(self._all_live, 60, "the woken replica has joined again")
        until(lambda: reachable(asleep), 60, "the woken replica answers")
        self.refused += asleep.metric(FENCED) > before

    def _all_live(self) -> bool:
        with self.drill.platform.client() as client:
            return {one.state for one in client.replicas()} == {"live"}

    def _kill(self) -> None:
        self.drill.platform.kill()
        self.drill.kills += 1

    def _taken_over(self) -> None:
        took = until_taken_over(self.drill, self.server, self.database)
        self.drill.await_progress()
        self.took_s.append(took)

    def _restart_the_other(self) -> None:
        self.drill.installations.reverse()
        self.drill.restart()


@pytest.fixture
def matrix(tmp_path: Path, shared: Shared, server: Postgres) -> Iterator[Matrix]:
    database = server.new_database()
    with two_replicas(tmp_path, shared, server.address(database)) as drill:
        yield Matrix(drill, server, database)


@pytest.fixture
def replicas(matrix: Matrix) -> Drill:
    return matrix.drill


def strike(matrix: Matrix, chance: random.Random) -> None:
    """One to three kills, somewhere."""
    drill = matrix.drill
    drill.submit(4)
    kind = chance.random()
    if kind < 0.3:
        drill.kill_worker(chance.choice(WORKER_POINTS))
        return
    if chance.random() < 0.5:
        drill.installations.reverse()
    if kind < 0.5:
        matrix.kill_both_at(chance.choice(TAKE_OVERS))
    else:
        name = chance.choice(PLATFORM_POINTS).partition(":")[0]
        matrix.kill_at(f"{name}:{chance.randint(1, 4)}")


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(SEEDS))
def test_two_hundred_kills_of_two_replicas_lose_and_double_nothing(
    matrix: Matrix, seed: int
) -> None:
    """A quarter of them; the seeds together are all."""
    drill, random_ = matrix.drill, chance(seed)
    while drill.kills < KILLS:
        strike(matrix, random_)
    drill.submit(max(JOBS - len(drill.ledger.numbers()), 0))
    verdict = drill.verdict(within_s=300)
    name = f"crash matrix, postgresql and two replicas, seed {seed}"
    note_figures(name, drill, verdict, kills=KILLS, jobs=JOBS)
    slowest = max(matrix.took_s)
    record(f"{name}: taken over", slowest, "s", TAKEN_OVER_S, holds=slowest <= TAKEN_OVER_S)
    assert verdict.faults == ()


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


@pytest.mark.parametrize("times", [1, pytest.param(10, marks=pytest.mark.chaos)])
def test_a_replica_that_wakes_after_its_take_over_commits_nothing(
    matrix: Matrix, times: int
) -> None:
    """The other one is stopped next, so each wakes while the other holds its work."""
    drill = matrix.drill
    for _ in range(times):
        drill.submit(12, take_s=0.2)
        drill.start_run()
        matrix.sleep()
    verdict = drill.verdict(per_kill=SLOTS)
    stale, refused = len(verdict.stale), matrix.refused
    name = "a replica that wakes after its take-over"
    record(f"{name}: first commit refused", refused, "replicas", times, holds=refused == times)
    record(f"{name}: superseded results accepted", stale, "results", 0, holds=not stale)
    slowest = max(matrix.took_s)
    record(f"{name}: taken over", slowest, "s", TAKEN_OVER_S, holds=slowest <= TAKEN_OVER_S)
    assert verdict.faults == ()
    assert refused == times
