"""Whatever is killed, and whenever: the run ends with the dataset and report of a calm one."""

import hashlib
import json
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from chaos_figures import record
from hivemesh_sdk.contracts.api import RunState
from hivemesh_sdk.errors import HivemeshError
from mail import put, submit, write_mbox
from whole_platform import Installation, group_of, signal_all, until

pytestmark = pytest.mark.e2e

MESSAGES = 5000
FIFTY, TEN = 50, 10  # kills in all, kills per seed
SOME = 2000  # enough for three kills
FEW = 1000  # enough for every crash point to be reached
BATCHES = ("execution.batch_records=100", "execution.in_flight_batches=4")
SMALL_BATCHES = ("execution.batch_records=50", "execution.in_flight_batches=4")
WORKERS = ("email-parser", "email-classifier", "email-insights")
POINTS = (
    *("accept.before", "accept.after", "engine.submit", "engine.drain.before"),
    *("claim.after:3", "dispatch.before:4", "dispatch.after:4", "ack.before:2", "ack.after:2"),
    *("record.before:3", "record.after:3", "finish.before:5", "finish.after:5"),
    *("engine.drain.after", "engine.close"),
)
SHORT_POINTS = ("dispatch.after:4", "record.after:3", "finish.before:5")


@dataclass(frozen=True)
class Result:
    """What a run has made: digests of its outputs, and how often each message is in it."""

    messages: str
    insights: str
    report: str
    records: int
    most_often: int


Calm = dict[int, Result]  # by the number of messages


def result_of(installation: Installation, run: str) -> Result:
    with installation.client() as client:
        messages = b"".join(client.output(run, "messages"))
        insights = b"".join(client.output(run, "insights"))
        report = b"".join(client.output(run, "report"))
    seen = Counter(json.loads(line)["id"] for line in messages.splitlines())
    return Result(
        messages=hashlib.sha256(messages).hexdigest(),
        insights=hashlib.sha256(insights).hexdigest(),
        report=hashlib.sha256(report).hexdigest(),
        records=seen.total(),
        most_often=max(seen.values()),
    )


@pytest.fixture(scope="module")
def mbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mbox(tmp_path_factory.mktemp("mail") / "mail.mbox", MESSAGES)


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mbox(tmp_path_factory.mktemp("mail") / "some.mbox", SOME)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mbox(tmp_path_factory.mktemp("mail") / "few.mbox", FEW)


@pytest.fixture(scope="module")
def calm() -> Calm:
    """The results of undisturbed runs, made by the first test that needs one."""
    return {}


def check(installation: Installation, run: str, calm: Calm, mbox: Path, messages: int) -> None:
    ended = installation.until_ended(run)
    assert ended.state is RunState.COMPLETED, ended
    found = result_of(installation, run)
    if messages not in calm:
        undisturbed = submit(installation, mbox)
        assert installation.until_ended(undisturbed).state is RunState.COMPLETED
        calm[messages] = result_of(installation, undisturbed)
        assert calm[messages].records == messages
    assert found.most_often == 1
    assert found == calm[messages]


class Reaper:
    """Kills what chance says, when the run has come as far as chance says."""

    def __init__(self, installation: Installation, seed: int) -> None:
        self._installation = installation
        self._chance = random.Random(seed)  # noqa: S311 - drills must repeat
        self.kills = 0

    def run(self, run: str, kills: int) -> None:
        """Kill so often, or until the run has ended."""
        done = 0
        while self.kills < kills and done is not None:
            done = self._await_moment(run, done)
            if done is not None:
                self._kill()
                self.kills += 1

    def _await_moment(self, run: str, done: int) -> int | None:
        wanted = done + self._chance.randint(1, 6)
        polls = self._chance.randint(0, 10)
        found: list[int | None] = []

        def reached() -> bool:
            nonlocal polls
            view = self._installation.run(run)
            finished = sum(node.batches_done for node in view.nodes)
            found[:] = [None if view.state.ended else finished]
            if view.state.ended:
                return True
            polls -= finished >= wanted
            return polls < 0

        until(reached, 60, f"{wanted} batches of {run}")
        return found[0]

    def _kill(self) -> None:
        victims = self._chance.choice(("platform", "worker", "both"))
        pids: list[int] = []
        if victims != "platform":
            worker = self._chance.choice(WORKERS)
            pids = [
                one for view in self._installation.instances(worker) for one in self._some(view.pid)
            ]
        if victims != "worker":
            self._installation.kill()
        signal_all(pids)
        if victims != "worker":
            self._installation.start()

    def _some(self, pid: int) -> list[int]:
        """The front, an executor, or all of a worker's processes."""
        group = group_of(pid)
        return self._chance.choice(([pid], group[-1:], group))


def test_kills_at_random_moments_change_nothing(install, some: Path, calm) -> None:
    installation = install(*BATCHES)
    installation.start()
    reaper = Reaper(installation, seed=7)
    while reaper.kills < 3:  # a run may end before its third
        run = submit(installation, some)
        reaper.run(run, kills=3)
        check(installation, run, calm, some, SOME)


@pytest.mark.parametrize("point", SHORT_POINTS)
def test_a_crash_at_a_named_point_changes_nothing(install, few: Path, calm, point: str) -> None:
    crash_at(install, few, calm, point)


@pytest.mark.chaos
@pytest.mark.parametrize("point", sorted(set(POINTS) - set(SHORT_POINTS)))
def test_a_crash_at_any_point_changes_nothing(install, few: Path, calm, point: str) -> None:
    crash_at(install, few, calm, point)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(FIFTY // TEN))
def test_fifty_kills_change_nothing(install, mbox: Path, calm, seed: int) -> None:
    installation = install(*BATCHES)
    installation.start()
    reaper = Reaper(installation, seed)
    while reaper.kills < TEN:
        run = submit(installation, mbox)
        reaper.run(run, kills=TEN)
        check(installation, run, calm, mbox, MESSAGES)
    name = f"nothing lost: kills at random moments of runs over 5,000 messages, seed {seed}"
    record(name, reaper.kills, "kills", TEN, holds=True)


def crash_at(install, few: Path, calm, point: str) -> None:
    installation = install(*SMALL_BATCHES)
    installation.start({"HIVEMESH_CRASH_AT": point})
    with installation.client() as client, few.open("rb") as file:
        parameters = put(client, file)
        try:
            run = client.start_run("email-insights", parameters).id
        except HivemeshError:  # it died before it could answer: nothing was promised
            run = ""
    assert installation.wait(120) == -9
    installation.start()
    if not run:
        with installation.client() as client:
            kept = client.runs()
            run = kept[0].id if kept else client.start_run("email-insights", parameters).id
    check(installation, run, calm, few, FEW)
