"""Two platform processes on one PostgreSQL: work is spread, and goes on when one of them is gone."""

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hivemesh_sdk.contracts.api import ReplicaView, RunState
from mail import submit, write_mbox
from postgres import Postgres, postgres
from whole_platform import Installation, until

pytestmark = pytest.mark.e2e

MESSAGES = 3000
BATCHES = ("execution.batch_records=20", "execution.in_flight_batches=8")
TOLD_AFTER = 5  # heartbeats of a replica, in which each worker has beaten twice
TAKEN_WITHIN_S = 60.0  # eight on a machine that does nothing else; `bench/` measures it


@dataclass(slots=True)
class Replicas:
    """One that supervises the workers, and one that has none of its own."""

    server: Postgres
    database: str
    first: Installation
    second: Installation

    def rows(self, sql: str) -> list[list[str]]:
        """What the database answers."""
        text = self.server.query(sql, password="root-password", database=self.database)
        return [line.split("|") for line in text.splitlines()]

    def held_by(self) -> dict[str, int]:
        """How many rows each replica has ended."""
        sql = "SELECT replica, count(*) FROM work WHERE state = 'completed' GROUP BY replica"
        return {name: int(number) for name, number in self.rows(sql)}

    def beats(self) -> int:
        """Heartbeats of the first replica, one a second."""
        return int(self.rows("SELECT beats FROM replica WHERE id = 'first'")[0][0])

    def seen_from(self, installation: Installation) -> dict[str, ReplicaView]:
        """The replicas as one of them shows them."""
        with installation.client() as client:
            return {one.id: one for one in client.replicas()}


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    """It ends after the replicas: without it they stop by their patience alone."""
    with postgres() as found:
        yield found


@pytest.fixture
def mbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mbox(tmp_path_factory.mktemp("mail") / "mail.mbox", MESSAGES)


@pytest.fixture
def replicas(install, server: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Replicas:
    database, common = server.new_database(), tmp_path_factory.mktemp("common")

    def replica(name: str, *settings: str) -> Installation:
        return install(
            f"database.url={server.address(database)}",
            f"replica.id={name}",
            f"replica.shared_folder={common}",
            *BATCHES,
            *settings,
        )

    found = Replicas(
        server, database, replica("first"), replica("second", "workers.supervise=false")
    )
    found.first.start()
    found.second.start()
    found.first.until_live()
    until(lambda: found.second.instances("email-insights"), 60, "the second knows the instances")
    beats = found.beats() + TOLD_AFTER
    until(lambda: found.beats() > beats, 60, "the workers were told of the second")
    return found


def begun(replicas: Replicas, mbox: Path) -> str:
    """A run of which some batches have gone all the way."""
    run = submit(replicas.first, mbox)
    until(lambda: replicas.first.node(run, "classify").batches_done > 3, 60, "batches done")
    return run


def check(installation: Installation, run: str) -> None:
    """Every message once, whoever has worked on it."""
    view = installation.until_ended(run, within_s=180)
    assert view.state is RunState.COMPLETED, view.problem
    with installation.client() as client:
        lines = b"".join(client.output(run, "messages")).splitlines()
    ids = [json.loads(line)["id"] for line in lines]
    assert (len(ids), len(set(ids))) == (MESSAGES, MESSAGES)


def test_work_is_spread_and_both_show_it(replicas: Replicas, mbox: Path) -> None:
    for at in (replicas.second, replicas.first) * 2:  # who wakes first takes what is free
        run = submit(at, mbox)
        check(replicas.first, run)
        if set(replicas.held_by()) == {"first", "second"}:
            break
    assert set(replicas.held_by()) == {"first", "second"}
    assert replicas.second.run(run).state is RunState.COMPLETED
    for one in (replicas.first, replicas.second):
        assert {name: view.state for name, view in replicas.seen_from(one).items()} == {
            "first": "live", "second": "live",
        }  # fmt: skip
    listed = replicas.second.run_command("replica", "list")
    assert (listed.returncode, "first" in listed.stdout) == (0, True)


def test_a_killed_replica_is_taken_over(replicas: Replicas, mbox: Path) -> None:
    run = begun(replicas, mbox)
    before = replicas.seen_from(replicas.second)
    assert before["first"].leads
    with replicas.first.client() as client:
        client.status()
        replicas.first.kill()
        assert [one.id for one in client.replicas() if one.answers] == ["second"]
    listed = replicas.first.run_command("replica", "list")
    assert (listed.returncode, "second" in listed.stdout) == (0, True), listed.stderr
    until(lambda: replicas.seen_from(replicas.second)["first"].state == "dead", 60, "dead")
    until(lambda: replicas.held_by().get("second", 0) > 4, TAKEN_WITHIN_S, "goes on")
    check(replicas.second, run)
    assert set(replicas.seen_from(replicas.second)["second"].leads) == {
        *before["first"].leads, *before["second"].leads,
    }  # fmt: skip
    replicas.first.start()
    assert replicas.seen_from(replicas.second)["first"].state == "live"


def test_a_stopped_replica_that_wakes_commits_nothing(replicas: Replicas, mbox: Path) -> None:
    run = begun(replicas, mbox)
    epoch = replicas.seen_from(replicas.second)["first"].epoch
    os.kill(replicas.first.pid, signal.SIGSTOP)
    try:
        until(lambda: replicas.seen_from(replicas.second)["first"].state == "dead", 60, "dead")
        count = replicas.held_by().get("second", 0)
        until(lambda: replicas.held_by().get("second", 0) > count, TAKEN_WITHIN_S, "goes on")
    finally:
        os.kill(replicas.first.pid, signal.SIGCONT)
    until(lambda: replicas.seen_from(replicas.second)["first"].state == "live", 60, "is back")
    assert replicas.seen_from(replicas.second)["first"].epoch > epoch + 1
    check(replicas.second, run)
    assert replicas.first.metric("hivemesh_commits_fenced_total") >= 1
    assert replicas.second.metric("hivemesh_replicas_taken_over_total") >= 1


def test_decisions_of_one_replica_hold_at_the_other(replicas: Replicas) -> None:
    with replicas.first.client() as client:
        client.deny("ban", "email-parser", "not wanted any more")
    until(lambda: not replicas.second.instances("email-parser"), 60, "the other refuses it too")
    stored = replicas.first.run_command("secret", "list")
    assert stored.returncode == 0, stored.stderr
