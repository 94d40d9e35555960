"""A platform that does not become ready is told with what became of it."""

import sys

import pytest
from hivemesh_platform.cli import lifecycle
from hivemesh_sdk.errors import RemoteError


def failed(monkeypatch, folder, code):
    command = [sys.executable, "-c", f"import os, signal; {code}"]
    monkeypatch.setattr(lifecycle, "_command", lambda *_: command)
    with pytest.raises(RemoteError) as caught:
        lifecycle.start(folder, [])
    return caught.value.problem().detail


def test_one_that_is_killed_is_told_so(monkeypatch, tmp_path):
    said = failed(monkeypatch, tmp_path, "os.kill(os.getpid(), 9)")
    assert "was killed" in said
    assert str(tmp_path / "logs/platform.log") in said


def test_one_that_ends_is_told_so(monkeypatch, tmp_path):
    assert "the platform ended before it was ready" in failed(monkeypatch, tmp_path, "pass")


def test_one_that_is_too_slow_is_stopped_and_told_so(monkeypatch, tmp_path):
    monkeypatch.setattr(lifecycle, "START_TIMEOUT_S", 0.5)
    assert "was not ready after" in failed(monkeypatch, tmp_path, "signal.pause()")
