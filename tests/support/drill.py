"""A drill: work is submitted while processes die, and a history is kept that `history.check` judges."""

import json
import random
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from chaos_figures import record
from history import Final, History, Ledger, Verdict, check
from hivemesh_sdk.client import Client
from hivemesh_sdk.contracts.problems import slug_of
from hivemesh_sdk.errors import RemoteError
from whole_platform import ROOT, Installation, until

EFFECTS = ROOT / "tests" / "support" / "workers" / "effects"
GONE = {"platform-unreachable", "database-unreachable", "submit-in-flight"}
PLATFORM_POINTS = (
    *("accept.before", "accept.after:2", "claim.after:2", "dispatch.before:2", "dispatch.after:3"),
    *("ack.before:2", "ack.after:2", "record.before:2", "record.after:2"),
    *("finish.before:3", "finish.after:3"),
)
WORKER_POINTS = ("effect.before", "executor", "effect.after", "reply:0", "reply:0.01")
SETTINGS = ("execution.batch_records=20", "execution.in_flight_batches=4")
SLOTS = 4  # jobs that a worker runs at once
MOVES_S = 5.0  # after a restart
AGAIN_S = 10.0  # from a job's start over the death of its worker to its end
OF_SOURCES = ("ack.", "record.")  # what only a run with a source comes to
COUNTED = 400  # records of one run of the source
PIPELINE = {
    "apiVersion": "hivemesh/v1",
    "kind": "Pipeline",
    "metadata": {"name": "count-and-note", "version": 1},
    "parameters": {},
    "steps": {
        "count": {"use": "effect.count@1", "with": {"count": COUNTED, "pause_every": 50}},
        "note": {"use": "effect.note@1", "map": "count"},
    },
    "outputs": {"numbers": "note"},
}


@dataclass(slots=True)
class Drill:
    """One installation (or several replicas of it), what was submitted, and what was killed."""

    installations: list[Installation]
    ledger: Ledger
    together: bool = False  # let the jobs travel together
    capability: str = "effect.write@1"  # or one that has it called
    kills: int = 0
    slowest_s: float = 0.0  # from a restart until work moved again
    slowest_start_s: float = 0.0  # until the platform was ready
    most_cpu_s: float = 0.0  # that a start took: what it waits for beside it is the machine
    slowest_ready_s: float = 0.0  # from being ready until work moved
    slowest_again_s: float = 0.0  # until a job that had killed its worker ended
    runs: list[str] = field(default_factory=list)
    _next: int = 0
    _pending: dict[int, dict[str, object]] = field(default_factory=dict)

    @property
    def platform(self) -> Installation:
        """The replica that is spoken to."""
        return self.installations[0]

    def submit(self, count: int, **how: object) -> None:
        """Submit new work; what gets no answer is sent again by `resubmit`, under the same key."""
        for _ in range(count):
            self._next += 1
            work = {"folder": str(self.ledger.folder), "number": self._next, **how}
            self._pending[self._next] = work
        self.resubmit()

    def resubmit(self) -> None:
        """Send what nobody has acknowledged yet; stops where the platform is gone."""
        with while_it_lives(), self.platform.client() as client:
            for number, work in list(self._pending.items()):
                key = f"drill-{number}"
                options = {} if self.together else {"company": number}
                job = client.call(self.capability, work, options, wait_s=0.0, idempotency_key=key)
                self.ledger.accept(number, job.id)
                del self._pending[number]

    def start_run(self) -> None:
        """Start a run of source and map; it may be refused by a crash."""
        document = json.loads(json.dumps(PIPELINE))
        folder = self.ledger.folder.parent / "noted"
        (folder / "keyed").mkdir(parents=True, exist_ok=True)
        document["steps"]["note"]["with"] = {"folder": str(folder)}
        with while_it_lives(), self.platform.client() as client:
            self.runs.append(client.start_run(document).id)

    def crash_at(self, point: str) -> None:
        """Start the platform so that it dies at this point, and give it work until it does."""
        if self.platform.try_start({"HIVEMESH_CRASH_AT": point}) == b"ready":
            self.resubmit()
            self._work_until_dead(point)
        self.kills += 1

    def _work_until_dead(self, point: str) -> None:
        process = self.platform.process
        assert process is not None

        def dead() -> bool:
            self.submit(4)
            if point.startswith(OF_SOURCES):
                self.start_run()
            with suppress(subprocess.TimeoutExpired):
                process.wait(4)
            return process.poll() is not None

        until(dead, 40, f"the platform died at {point}")
        assert process.poll() == -9, point

    def kill_worker(self, die: str) -> None:
        """Let a job kill its worker on the way."""
        self.await_runs()  # a source that is killed three times in a row is given up, by rule
        began = time.monotonic()
        self.submit(1, die=die)
        killer = self._next
        self.kills += 1
        self.submit(3)
        self._await_end(killer, 120.0)
        self.slowest_again_s = max(self.slowest_again_s, time.monotonic() - began)
        self.await_progress()

    def restart(self) -> None:
        """Start the platform, and take the time until a job ends."""
        began = time.monotonic()  # of the restart, which is part of it
        self.platform.start()
        ready, used = time.monotonic(), psutil.Process(self.platform.pid).cpu_times()
        self.resubmit()
        self.await_progress()
        moves = time.monotonic()
        self.slowest_s = max(self.slowest_s, moves - began)
        self.slowest_start_s = max(self.slowest_start_s, ready - began)
        self.slowest_ready_s = max(self.slowest_ready_s, moves - ready)
        self.most_cpu_s = max(self.most_cpu_s, used.user + used.system)

    def await_progress(self, within_s: float = 60.0) -> None:
        """Wait until a job that is submitted now has ended."""
        self.submit(1)
        self._await_end(self._next, within_s)

    def _await_end(self, number: int, within_s: float) -> None:
        def accepted() -> bool:
            self.resubmit()
            return number in self.ledger.numbers()

        until(accepted, within_s, f"{number} accepted")
        job = self._job(number)
        until(lambda: self._ended(job), within_s, f"{job} ended")

    def _job(self, number: int) -> str:
        return next(one.job for one in self.history().accepted if one.number == number)

    def _ended(self, job: str) -> bool:
        with while_it_lives(), self.platform.client() as client:
            return client.run(job).state.ended
        return False

    def history(self, finals: Sequence[Final] = ()) -> History:
        """What is written down by now."""
        return self.ledger.history(finals, self.kills)

    def verdict(self, *, within_s: float = 120.0, per_kill: int = 1) -> Verdict:
        """Wait for the end of everything, read every answer twice, and judge."""
        until(lambda: self.resubmit() or not self._pending, within_s, "everything accepted")
        jobs = {one.job for one in self.ledger.history((), 0).accepted}
        open_ = set(jobs)

        def ended() -> bool:
            open_.difference_update([job for job in sorted(open_) if self._ended(job)])
            return not open_

        until(ended, within_s, f"all of {len(jobs)} jobs ended")
        finals: list[Final] = []
        with self.platform.client() as client:
            finals += [final_of(client, job) for job in sorted(jobs) * 2]
        self.await_runs(within_s)
        return check(self.ledger.history(finals, self.kills), per_kill=per_kill)

    def await_runs(self, within_s: float = 120.0) -> None:
        """Wait for the runs' ends; each has each number once."""
        while self.runs:
            run = self.runs.pop()
            ended = self.platform.until_ended(run, within_s=within_s)
            assert ended.state.value == "completed", ended
            with self.platform.client() as client:
                lines = b"".join(client.output(run, "numbers")).splitlines()
            assert sorted(json.loads(line)["n"] for line in lines) == list(range(COUNTED)), run


@contextmanager
def while_it_lives() -> Iterator[None]:
    """Go on where the platform (or its database) is gone; what it refuses is an error."""
    try:
        yield
    except RemoteError as error:
        if slug_of(error.document) not in GONE:
            raise


def note_figures(name: str, drill: Drill, verdict: Verdict, *, kills: int, jobs: int) -> None:
    """Write down what a long drill has shown."""
    lost, doubled, stale = (
        len(found) for found in (verdict.lost, verdict.duplicates, verdict.stale)
    )
    repeats, slowest = verdict.repeats / drill.kills, drill.slowest_s
    record(f"{name}: kills", drill.kills, "kills", kills, holds=drill.kills >= kills)
    record(f"{name}: jobs", verdict.jobs, "jobs", jobs, holds=verdict.jobs >= jobs)
    record(f"{name}: lost", lost, "jobs", 0, holds=not lost)
    record(f"{name}: doubled keyed effects", doubled, "effects", 0, holds=not doubled)
    record(f"{name}: stale results", stale, "results", 0, holds=not stale)
    record(f"{name}: repeats per kill", repeats, "effects", 1, holds=repeats <= 1)
    record(f"{name}: work moves again", slowest, "s", MOVES_S, holds=slowest <= MOVES_S)
    ready = drill.slowest_start_s
    record(f"{name}: the platform is ready", ready, "s", MOVES_S, holds=ready <= MOVES_S)
    cpu, after = drill.most_cpu_s, drill.slowest_ready_s
    record(f"{name}: CPU of a start", cpu, "s", MOVES_S / 2, holds=cpu <= MOVES_S / 2)
    record(f"{name}: from ready until work moves", after, "s", MOVES_S, holds=after <= MOVES_S)
    if again := drill.slowest_again_s:
        what = f"{name}: a step that killed its worker ended"
        record(what, again, "s", AGAIN_S, holds=again <= AGAIN_S)


def final_of(client: Client, job: str) -> Final:
    """The platform's answer for a job."""
    view = client.run(job)
    execution = ""
    if view.state.value == "completed":
        execution = json.loads(b"".join(client.output(job, "result")))["execution"]
    return Final(job, view.state.value, execution)


def chance(seed: int) -> random.Random:
    """What decides in a drill that must repeat."""
    return random.Random(seed)  # noqa: S311 - drills must repeat


def drill_of(folder: Path, *installations: Installation) -> Drill:
    """A drill with an empty ledger."""
    return Drill(list(installations), Ledger.create(folder / "ledger"))
