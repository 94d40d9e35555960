"""A platform that is not the one of the working folder: told of, found, and named in what is advised."""

import pytest
from hivemesh_platform.cli import failures, session
from hivemesh_platform.cli.main import build
from hivemesh_sdk.client import Client
from hivemesh_sdk.errors import RemoteError
from hivemesh_sdk.failures import UNAVAILABLE, USAGE


def typed(line):
    return session.take_remote(line.split())


@pytest.mark.parametrize(
    ("line", "rest", "further"),
    [
        ("up -d --state /s", "up -d --state /s", "down --state /s"),
        ("up --state=/s -d", "up --state=/s -d", "down --state /s"),
        ("run list", "run list", "down"),
        ("run list --server https://h:1", "run list", "down --server https://h:1"),
    ],
)
def test_what_is_advised_reaches_the_same_platform(line, rest, further):
    assert typed(line) == rest.split()
    assert session.here("down") == further


def test_a_folder_with_blanks_is_quoted():
    session.take_remote(["up", "--state", "/my state"])
    assert session.here("hivemesh down --purge") == "hivemesh down --purge --state '/my state'"


def test_an_option_without_its_value_is_left_to_the_command():
    assert typed("up --state") == ["up", "--state"]


def test_where_no_platform_was_started_the_ways_to_another_are_named(tmp_path):
    with pytest.raises(RemoteError) as caught:
        Client.from_state(tmp_path)
    remedy = caught.value.document.remedy
    assert "--state" in remedy
    assert "HIVEMESH_STATE__FOLDER" in remedy
    assert "hivemesh up" in remedy


def test_down_says_where_it_looked(capsys, tmp_path):
    words = ["down", "--state", str(tmp_path)]
    code = failures.run_guarded(
        lambda: build(words)(words, prog_name="hivemesh", standalone_mode=False)
    )
    assert code == 0
    assert f"nothing was running on {tmp_path}" in capsys.readouterr().err


BROKEN = "api: {port: many}"


@pytest.fixture
def project(monkeypatch, tmp_path):
    """A project whose settings somebody has broken, with nothing running."""
    (tmp_path / "hivemesh.yaml").write_text(BROKEN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HIVEMESH_STATE__FOLDER", raising=False)
    return tmp_path


def said(capsys, line):
    words = line.split()
    code = failures.run_guarded(
        lambda: build(words)(words, prog_name="hivemesh", standalone_mode=False)
    )
    seen = capsys.readouterr()
    return code, seen.out, seen.err


def test_broken_settings_stop_nobody_from_looking_and_stopping(capsys, project):
    code, _, err = said(capsys, "down")
    assert (code, str(project / ".hivemesh") in err) == (0, True)
    code, _, err = said(capsys, "worker list")
    assert (code, "HM-1605" in err) == (UNAVAILABLE, True)


def test_broken_settings_delete_no_state_folder_that_they_may_have_meant(capsys, project):
    code, _, err = said(capsys, "down --purge --yes")
    assert (code, "HM-1601" in err) == (USAGE, True)


def test_broken_settings_are_a_finding_and_shown(capsys, project):
    code, out, _ = said(capsys, "doctor --pre")
    assert (code, "✗ the settings are valid: api.port" in out) == (1, True)
    code, out, err = said(capsys, "config show api --origin")
    assert (code, "api.port" in out, "api.port" in err) == (USAGE, True, True)
