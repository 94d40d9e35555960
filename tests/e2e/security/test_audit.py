"""The audit trail of a running installation: whole after a kill, and what a full disk of it stops."""

import json
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest
from hivemesh_sdk.contracts.api import RunState
from hivemesh_sdk.errors import RemoteError
from mail import submit, write_mbox
from small_disk import fill, small_disk
from whole_platform import ROOT, Installation, Shared, installed, until

pytestmark = pytest.mark.e2e

MESSAGES = 300


@pytest.fixture
def installation(tmp_path: Path, shared: Shared) -> Iterator[Installation]:
    with installed(tmp_path / "i", shared) as found:
        yield found


def refusal(action: Callable[[], object]) -> str:
    """Do it until it is refused: the last page of the file may have room for a few records."""
    for _ in range(40):
        try:
            action()
        except RemoteError as error:
            return error.document.code
    return "never"


def a_note_is_lost(installation: Installation) -> bool:
    """Do what is noted, until the last page of the file is full."""
    with installation.client() as client:
        client.put_artifact(BytesIO(b"noted"))
    return installation.metric("hivemesh_audit_dropped_total") > 0


def test_a_killed_platform_keeps_its_trail(installation: Installation, tmp_path: Path) -> None:
    mbox = write_mbox(tmp_path / "mail.mbox", MESSAGES)
    installation.start()
    installation.until_live()
    run = submit(installation, mbox)
    assert installation.until_ended(run).state is RunState.COMPLETED
    with installation.client() as client:
        assert b"".join(client.output(run, "insights"))
        before = client.audit(limit=1000)
    done = {one.action for one in before}
    assert {"enrolment:create-token", "enrolment:enrol", "run:pipeline", "export:run"} <= done
    assert {one.object for one in before if one.action == "export:run"} == {f"{run}/insights"}
    installation.kill()
    offline = installation.run_command("audit", "verify", "--folder", str(installation.state))
    assert offline.returncode == 0, offline.stderr
    installation.start()
    installation.until_live()
    answer = installation.run_command("audit", "verify")
    assert answer.returncode == 0, answer.stderr
    assert "the trail holds" in answer.stdout
    with installation.client() as client:
        after = client.audit(limit=1000)
    assert after[-len(before) :] == before


def test_the_last_record_cut_off_after_a_kill_is_named_offline_and_after_the_start(
    installation: Installation,
) -> None:
    installation.workers = [ROOT / "workers" / "email-parser"]  # none has work here
    installation.start()
    with installation.client() as client:
        client.join_token("email-parser")
    installation.kill()
    words = ("audit", "verify", "--folder", str(installation.state))
    assert installation.run_command(*words).returncode == 0
    newest = max((installation.state / "audit").glob("*.ndjson"))
    lines = newest.read_bytes().splitlines(keepends=True)
    newest.write_bytes(b"".join(lines[:-1]))
    last = json.loads(lines[-1])["seq"]
    assert f"record {last}: " in installation.run_command(*words).stderr
    installation.start()
    answer = installation.run_command("audit", "verify")
    assert answer.returncode == 1
    assert f"record {last}: " in answer.stderr
    with installation.client() as client:
        (told,) = client.audit({"action": "trail:damaged"})
    assert f"{last} to {last} are missing" in told.reason
    (installation.state / "audit-checkpoints.jws.end").unlink()
    assert installation.run_command(*words).returncode == 1


def test_a_full_disk_of_the_trail_stops_security_actions_alone(
    installation: Installation, tmp_path: Path
) -> None:
    mbox = write_mbox(tmp_path / "mail.mbox", MESSAGES)
    with small_disk(installation.state / "audit", "4m") as disk:
        installation.start()
        installation.until_live()
        ballast = disk / "ballast"
        fill(ballast)
        run = submit(installation, mbox)
        assert installation.until_ended(run).state is RunState.COMPLETED
        with installation.client() as client:
            for refused_action in (
                lambda: client.join_token("email-parser"),
                lambda: client.grant("user", "anna", "admin"),
                lambda: list(client.output(run, "insights")),
                lambda: list(client.export_audit()),
            ):
                assert refusal(refused_action) == "HM-1700"
            assert client.status().ready
            until(lambda: a_note_is_lost(installation), 60, "a note that finds no room")
            ballast.unlink()
            assert b"".join(client.output(run, "insights"))
            told = client.audit({"action": "trail:notes-dropped"})
            assert told
        answer = installation.run_command("audit", "verify")
        assert answer.returncode == 0, answer.stderr
        assert installation.metric("hivemesh_audit_refused_total") == 4
        installation.stop()
