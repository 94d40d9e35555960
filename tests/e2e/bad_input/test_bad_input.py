"""What is wrong with an input or a start is said in words, with a code and the remedy."""

import io
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
from hivemesh_sdk.contracts.api import RunState
from hivemesh_sdk.errors import RemoteError
from mail import put, submit, write_mbox
from small_disk import fill, small_disk
from storage_support import write_other_version
from whole_platform import Installation, Shared, installed, until

pytestmark = pytest.mark.e2e

HEAD = b"From a@example.org Thu Jan  1 00:00:00 2020\nFrom: a@example.org\nSubject: one\n"
FULL_DISK_MESSAGES = 3000
FAILED, USAGE, CONFLICT = 1, 2, 5

SMALL = ("execution.batch_records=50", "execution.in_flight_batches=2")

NOT_MAIL = {
    "binary": (bytes(range(256)) * 400, "not-mail"),
    "empty": (b"", "empty-archive"),
}
STRANGE = {
    "deep": HEAD
    + b"".join(
        b'Content-Type: multipart/mixed; boundary="b%d"\n\n--b%d\n' % (level, level)
        for level in range(3000)
    )
    + b"\nthe end\n",
    "many addresses": HEAD
    + b"To: "
    + b",\n ".join(b"u%d@example.org" % number for number in range(20_000))
    + b"\n\nthe body\n",
    "nul": HEAD.replace(b"one", b"o\0ne") + b"\nthe \0 body\n",
}
CYCLE = """
apiVersion: hivemesh/v1
kind: Pipeline
metadata: {name: wrong, version: 1}
steps:
  a: {use: email.classify@1, map: b, with: {types: [spam]}}
  b: {use: email.classify@1, map: a, with: {types: [spam]}}
"""
UNKNOWN = """
apiVersion: hivemesh/v1
kind: Pipeline
metadata: {name: wrong, version: 1}
steps:
  a: {use: email.pars@1}
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, shared: Shared) -> Iterator[Installation]:
    with installed(tmp_path_factory.mktemp("bad"), shared) as found:
        found.start()
        yield found


def run_over(installation: Installation, path: Path) -> "subprocess.CompletedProcess[str]":
    return installation.run_command("pipeline", "run", "email-insights", "-p", f"archive=@{path}")


def check_error(result: "subprocess.CompletedProcess[str]", code: int, *words: str) -> None:
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    for word in ("error[HM-", "fix: ", *words):
        assert word in result.stderr


@pytest.mark.parametrize("name", sorted(NOT_MAIL))
def test_what_is_no_mail_is_named_with_its_remedy(running, tmp_path: Path, name: str) -> None:
    data, slug = NOT_MAIL[name]
    path = tmp_path / "archive"
    path.write_bytes(data)
    result = run_over(running, path)
    assert result.returncode == FAILED
    assert "HM-1215" in result.stdout
    assert slug in result.stdout
    assert "fix: " in result.stdout


def test_a_folder_without_mail_is_no_maildir(running, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("no mail")
    result = run_over(running, tmp_path / "folder")
    assert result.returncode == FAILED
    assert "not-a-maildir" in result.stdout


@pytest.mark.parametrize("name", sorted(STRANGE))
def test_strange_mail_is_parsed_as_well_as_possible(running, tmp_path: Path, name: str) -> None:
    path = tmp_path / "archive"
    path.write_bytes(STRANGE[name])
    run = running.until_ended(submit(running, path))
    assert run.state is RunState.COMPLETED, run
    assert {node.records_out for node in run.nodes if node.name != "insights"} == {1}


@pytest.mark.parametrize("path", ["/nowhere/at/all", "/proc/self/mem"])
def test_an_unreadable_file_is_named(running, path: str) -> None:
    check_error(run_over(running, Path(path)), USAGE, "HM-1607", path)


@pytest.mark.parametrize(
    ("document", "words"),
    [(CYCLE, "a → b → a"), (UNKNOWN, "did you mean 'email.parse@1'?")],
)
def test_an_impossible_pipeline_never_starts(
    running, tmp_path: Path, document: str, words: str
) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(document)
    for command in ("validate", "run"):
        check_error(running.run_command("pipeline", command, str(path)), USAGE, "HM-1401", words)


def test_a_second_up_on_one_state_folder_is_refused(running) -> None:
    result = running.run_command("up", "-d")
    check_error(result, CONFLICT, "HM-1602", str(running.pid), "hivemesh down")


def test_an_unknown_setting_is_refused_with_the_one_that_was_meant(running) -> None:
    result = running.run_command("up", "-d", "--set", "api.prot=1")
    check_error(result, USAGE, "HM-1601", "did you mean 'api.port'?")


def test_a_taken_port_is_named(install) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        result = install().run_command("up", "-d", "--set", f"api.port={port}")
    check_error(result, CONFLICT, "HM-1604", str(port))


def test_a_state_folder_of_another_version_is_left_alone(install) -> None:
    installation = install()
    database = installation.state / "platform.db"
    write_other_version(database)
    before = database.read_bytes()
    result = installation.run_command("up", "-d", "--set", "api.port=0")
    assert result.returncode != 0
    assert "error[HM-1603]" in result.stderr
    assert "fix: " in result.stderr
    assert database.read_bytes() == before


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 MB."""
    with small_disk(tmp_path / "disk", "40m") as found:
        yield found


def test_a_full_disk_delays_a_run_and_loses_nothing(
    disk: Path, tmp_path: Path, shared: Shared
) -> None:
    mbox = write_mbox(tmp_path / "mail.mbox", FULL_DISK_MESSAGES)
    with installed(disk, shared, *SMALL) as installation:
        installation.start()
        installation.until_live()
        with installation.client() as client, mbox.open("rb") as file:
            parameters = put(client, file)
            ballast = disk / "ballast"
            fill(ballast)
            with (
                pytest.raises(RemoteError) as refused,
                (tmp_path / "mail.mbox").open("rb") as again,
            ):
                client.put_artifact(Prefixed(again))
            assert refused.value.document.code == "HM-1504"
            ballast.unlink()
            run = client.start_run("email-insights", parameters).id
            until(lambda: installation.node(run, "parse").records_out, 60, "first batches")
            fill(ballast)
        assert installation.run_command("status").returncode == 0
        assert not installation.run(run).state.ended
        ballast.unlink()
        ended = installation.until_ended(run)
        assert ended.state is RunState.COMPLETED, ended
        assert installation.node(run, "classify").records_out == FULL_DISK_MESSAGES


class Prefixed(io.RawIOBase):
    """Bytes that are not stored yet."""

    def __init__(self, rest: BinaryIO) -> None:
        self._parts = [b"something new\n", rest.read()]

    def read(self, _size: int = -1) -> bytes:
        return self._parts.pop(0) if self._parts else b""
