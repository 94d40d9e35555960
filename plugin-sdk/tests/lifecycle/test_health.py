"""The probe of a container looks at a private file that the worker refreshes."""

import os
import time

import pytest
from hivemesh_sdk.errors import NotFoundError
from hivemesh_sdk.lifecycle.health import Health, HealthFile, judge
from hivemesh_sdk.lifecycle.private import own_path, private_folder


@pytest.fixture
def beat(tmp_path):
    file = HealthFile(tmp_path / "echo.1.health")

    def beat(state: str) -> None:
        file.beat(Health(worker="echo", instance="i1", pid=1, state=state))

    return beat


def test_a_live_worker_is_healthy(tmp_path, beat):
    beat("live")
    assert judge("echo", folder=tmp_path).healthy


def test_a_starting_worker_is_not_yet_healthy(tmp_path, beat):
    beat("starting")
    assert judge("echo", folder=tmp_path).reason == "starting"


def test_a_worker_without_a_beat_for_ten_seconds_is_not_healthy(tmp_path, beat):
    beat("live")
    verdict = judge("echo", folder=tmp_path, now=time.time() + 11)
    assert not verdict.healthy
    assert "no sign of life" in verdict.reason


def test_a_beat_refreshes_the_file_without_writing_it_again(tmp_path, beat):
    beat("live")
    path = tmp_path / "echo.1.health"
    os.utime(path, (0, 0))
    inode = path.stat().st_ino
    beat("live")
    assert path.stat().st_mtime > 0
    assert path.stat().st_ino == inode


def test_the_file_can_be_read_by_its_owner_alone(tmp_path, beat):
    beat("live")
    assert (tmp_path / "echo.1.health").stat().st_mode & 0o077 == 0


def test_a_worker_that_does_not_run_is_not_found(tmp_path):
    with pytest.raises(NotFoundError):
        judge("echo", folder=tmp_path)


def test_the_folder_is_private():
    assert private_folder().stat().st_mode & 0o077 == 0


def test_what_a_dead_process_left_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dead = private_folder() / "echo.4194304.scratch"  # one above the largest pid of the kernel
    dead.mkdir()
    alive = private_folder() / "echo.1.scratch"
    alive.mkdir()
    assert own_path("echo", ".scratch").name == f"echo.{os.getpid()}.scratch"
    assert (dead.exists(), alive.exists()) == (False, True)
