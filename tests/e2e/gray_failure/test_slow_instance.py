"""Equal instances share equally; one that is slow, fails or hangs is left out until it is well again."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pytest
from chaos_figures import record
from hivemesh_sdk.client import Client
from hivemesh_sdk.contracts.api import InstanceView, RunView
from whole_platform import ROOT, Installation, Shared, installed, until

pytestmark = pytest.mark.e2e

GAUGE = ROOT / "tests" / "support" / "workers" / "gauge"
INSTANCES = 4
CAPABILITY = "gauge.take@1"
OUT_S, SLOWER = 10.0, 1.5  # until it is left out, and the p99 of the others afterwards
MOST = 30  # of 100 jobs, at one of four equal instances
IDLE_S = 5.0  # after which a step that neither sends nor computes is given to another
MOVED_S = IDLE_S + 10.0  # until a job has ended whose first step hung
SOON_S = 2.0  # what has not ended by then is waited for later, beside the others
FAILURES = 12  # by which it is told from chance; a busy machine takes longer to come to so many


@dataclass(slots=True)
class Fleet:
    """Four instances, the file that names a gray one, and the jobs so far in their order."""

    platform: Installation
    gray: Path
    jobs: list[str] = field(default_factory=list)
    most_out: int = 0

    def submit(self, count: int) -> list[str]:
        """Submit jobs, and wait until they have ended well."""
        new = self.send(count)
        self.await_ends(new)
        return new

    def send(self, count: int) -> list[str]:
        """Submit jobs that do not travel together."""
        new: list[str] = []
        with self.platform.client() as client:
            for _ in range(count):
                number = len(self.jobs) + len(new)
                new.append(self._call(client, number, wait_s=0.0).id)
                if number % 10 == 0:
                    self.out()
        self.jobs += new
        return new

    def took(self, count: int) -> dict[str, float]:
        """The seconds that jobs take of which one waits for the other, unless that hangs."""
        took: dict[str, float] = {}
        hang: list[str] = []
        with self.platform.client() as client:
            for number in range(count):
                began = time.monotonic()
                job = self._call(client, -1 - number, wait_s=SOON_S)
                took[job.id] = time.monotonic() - began
                if not job.state.ended:
                    hang.append(job.id)
        self.await_ends(hang)
        return took | self.seconds(hang)

    def seconds(self, jobs: list[str]) -> dict[str, float]:
        """From being accepted to its end, of each job that has ended."""
        with self.platform.client() as client:
            views = [client.run(job) for job in jobs]
        return {
            one.id: (
                datetime.fromisoformat(str(one.ended_at)) - datetime.fromisoformat(one.created_at)
            ).total_seconds()
            for one in views
        }

    def had(self, instance: InstanceView, jobs: Iterable[str]) -> set[str]:
        """Those of the jobs that had a step at an instance."""
        with self.platform.client() as client:
            return {
                job
                for job in jobs
                if any(one.instance == instance.id for one in client.attempts(job))
            }

    def _call(self, client: Client, number: int, *, wait_s: float) -> RunView:
        options = {"company": number, "gray": str(self.gray)}
        return client.call(
            CAPABILITY, {"number": number}, options, wait_s=wait_s, idle_timeout_s=IDLE_S
        )

    def await_ends(self, jobs: list[str]) -> None:
        """Wait until jobs have ended well."""
        open_ = set(jobs)
        with self.platform.client() as client:

            def ended() -> bool:
                self.out()
                open_.difference_update([one for one in open_ if client.run(one).state.ended])
                return not open_

            until(ended, 120, "all jobs ended")
            assert {client.run(one).state.value for one in jobs} <= {"completed"}

    def failures(self, instance: InstanceView, jobs: list[str]) -> int:
        """How many of the jobs' steps have failed at an instance."""
        with self.platform.client() as client:
            tried = (one for job in jobs for one in client.attempts(job))
            return sum(one.instance == instance.id and one.outcome == "failed" for one in tried)

    def break_(self, instance: InstanceView, wrong: str) -> None:
        """Tell an instance what is wrong with it."""
        self.gray.write_text(f"{instance.pid} {wrong}")

    def await_return(self, instance: InstanceView) -> None:
        """Let it be well again, and wait until it takes its part."""
        self.gray.unlink()

        def is_back() -> bool:
            self.submit(2 * INSTANCES)
            return instance.id not in self.out()

        until(is_back, 120, "a probe was quick")
        assert self.most_out <= INSTANCES // 2
        assert self.taken(self.submit(40))[instance.id] > 0

    def out(self) -> dict[str, str]:
        """How the circuits stand that are not closed, by instance."""
        circuits = {
            one.id: one.circuits[CAPABILITY]
            for one in self.platform.instances("gauge")
            if CAPABILITY in one.circuits
        }
        self.most_out = max(self.most_out, len(circuits))
        return circuits

    def taken(self, jobs: list[str]) -> Counter[str]:
        """How many of the jobs each instance had, by their attempts."""
        with self.platform.client() as client:
            return Counter(one.instance for job in jobs for one in client.attempts(job))


def p99(seconds: Iterable[float]) -> float:
    """Of a hundred or more."""
    ordered = sorted(seconds)
    return ordered[int(len(ordered) * 0.99) - 1]


@contextmanager
def four(shared: Shared, folder: Path) -> Iterator[Fleet]:
    settings = (f'workers.instances={{"gauge": {INSTANCES}}}', "routing.ejected_s=5")
    with installed(folder / "one", shared, *settings, workers=[GAUGE]) as platform:
        platform.start()
        platform.until_live()
        fleet = Fleet(platform, folder / "gray")
        fleet.submit(2 * INSTANCES * 2)  # each has served its first
        until(lambda: not fleet.out(), 60, "all circuits closed")
        fleet.most_out = 0
        yield fleet


@pytest.mark.recorded
def test_equal_instances_take_equal_shares(shared: Shared, tmp_path: Path) -> None:
    """Exactly equal where they are equally quick (the board's tests); here some wait for a CPU."""
    with four(shared, tmp_path) as fleet:
        taken = fleet.taken(fleet.submit(100))
        most = max(taken.values())
        record("equal instances: largest share", most, "%", MOST, holds=most <= MOST)
        assert len(taken) >= INSTANCES - 1, taken


def test_a_slow_instance_is_left_out_and_comes_back_when_it_is_quick(
    shared: Shared, tmp_path: Path
) -> None:
    with four(shared, tmp_path) as fleet:
        slow = fleet.platform.instances("gauge")[0]
        fleet.break_(slow, "slow")
        jobs = fleet.submit(200)
        later = fleet.taken(jobs[100:])
        assert slow.id in fleet.out()
        assert fleet.platform.metric("hivemesh_instance_ejections_total") >= 1
        assert later[slow.id] <= 100 // INSTANCES // 2, later
        assert (
            f"{slow.id}: {CAPABILITY}"
            in fleet.platform.run_command("worker", "show", "gauge").stdout
        )
        assert slow.id in fleet.platform.run_command("status").stdout
        fleet.await_return(slow)


@pytest.mark.chaos
@pytest.mark.parametrize("wrong", ["slow", "fails", "stalls"])
def test_a_gray_instance_is_left_out_within_seconds_and_comes_back(
    shared: Shared, tmp_path: Path, wrong: str
) -> None:
    """It is slow, one step in twenty fails, or what it accepts it never answers; nothing is lost."""
    with four(shared, tmp_path) as fleet:
        gray = fleet.platform.instances("gauge")[0]
        well = p99(fleet.took(100).values())
        fleet.break_(gray, wrong)
        began, jobs = time.monotonic(), list[str]()

        def is_out() -> bool:
            jobs.extend(fleet.send(20))
            return gray.id in fleet.out()

        until(is_out, 600, "it is left out")
        took_s = time.monotonic() - began
        record(f"gray failure, {wrong}: left out", took_s, "s", OUT_S, holds=took_s <= OUT_S)
        failures = fleet.failures(gray, jobs)
        note = f"gray failure, {wrong}: steps that failed before"
        record(note, failures, "steps", FAILURES, holds=failures <= FAILURES)
        fleet.await_ends(jobs)
        took = fleet.took(200)
        if wrong == "stalls":  # a step that hangs there keeps its job, not the others
            moved = fleet.seconds(sorted(fleet.had(gray, jobs)))
            hung = {job: took.pop(job) for job in fleet.had(gray, took)}
            longest = max((moved | hung).values())
            note = f"gray failure, {wrong}: longest job that hung there for {IDLE_S:g} s"
            record(note, longest, "s", MOVED_S, holds=longest <= MOVED_S)
        slower = p99(took.values()) / well
        note = f"gray failure, {wrong}: p99 once it is left out, of that before"
        record(note, slower, "x", SLOWER, holds=slower <= SLOWER)
        fleet.await_return(gray)
