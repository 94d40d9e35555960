"""What may stand anywhere on the command line, and what `hivemesh help` explains."""

import io
import os
import sys

import pytest
from hivemesh_platform.cli import failures, lifecycle, output
from hivemesh_platform.cli.help import TOPICS
from hivemesh_platform.cli.main import main, take_flags


def run(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["hivemesh", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    seen = capsys.readouterr()
    return ended.value.code, seen.out, seen.err


def test_flags_may_stand_anywhere_but_behind_two_dashes():
    given = ["-q", "worker", "--no-color", "call", "-vv", "--no-input", "--", "-q"]
    words, flags = take_flags(given)
    assert words == ["worker", "call", "--", "-q"]
    assert flags == {"-q", "--no-color", "-vv", "--no-input"}


def test_no_color_is_no_color_of_the_environment(monkeypatch, capsys):
    monkeypatch.setenv("NO_COLOR", "")
    monkeypatch.delenv("NO_COLOR")
    run(monkeypatch, capsys, "help", "output", "--no-color")
    assert os.environ["NO_COLOR"]
    assert not output.colour_allowed()


@pytest.mark.parametrize("flag", ["--quiet", "-q"])
def test_quiet_leaves_data_and_errors(monkeypatch, capsys, tmp_path, flag):
    state = ("--state", str(tmp_path))
    assert run(monkeypatch, capsys, "down", *state)[2]
    assert run(monkeypatch, capsys, "down", *state, flag) == (0, "", "")
    code, out, _ = run(monkeypatch, capsys, "doctor", "--pre", *state, flag)
    assert "Python" in out
    code, _, err = run(monkeypatch, capsys, "status", *state, flag)
    assert code == 7
    assert "HM-1605" in err


@pytest.mark.parametrize("words", [[], ["worker"]])
def test_nothing_asked_for_is_answered_by_the_help_page(monkeypatch, capsys, words):
    code, out, err = run(monkeypatch, capsys, *words)
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: {' '.join(['hivemesh', *words])} ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Usage: hivemesh [OPTIONS]"),
        (["run"], "Usage: hivemesh run [OPTIONS]"),
        (["run", "show"], "Usage: hivemesh run show"),
        (["hm-1605"], "fix: start it with `hivemesh up`"),
        *[([name], text) for name, text in TOPICS.items()],
    ],
)
def test_help_explains_commands_codes_and_topics(monkeypatch, capsys, words, said):
    code, out, _ = run(monkeypatch, capsys, "help", *words)
    assert code == 0
    assert said in out


@pytest.mark.parametrize(
    ("word", "hint"), [("outptu", "did you mean 'output'"), ("HM-9999", "errors.md")]
)
def test_help_of_what_is_not_there_names_what_is(monkeypatch, capsys, word, hint):
    code, _, err = run(monkeypatch, capsys, "help", word)
    assert code == failures.USAGE
    assert "error[HM-1610]" in err
    assert hint in err


def test_purge_asks_before_anything_is_stopped(monkeypatch, capsys, tmp_path):
    def stopped(_folder):
        raise AssertionError

    monkeypatch.setattr(lifecycle, "stop", stopped)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))  # a pipe is nobody
    code, _, err = run(monkeypatch, capsys, "down", "--purge", "--state", str(tmp_path))
    assert code == failures.USAGE
    assert "--yes" in err
    assert tmp_path.exists()


def test_purge_deletes_what_it_was_told_to(monkeypatch, capsys, tmp_path):
    state = tmp_path / "state"
    state.mkdir()
    code, _, _ = run(monkeypatch, capsys, "down", "--purge", "--yes", "--state", str(state))
    assert code == 0
    assert not state.exists()


@pytest.mark.parametrize("made", [{"platform.db"}, {"lock", "trust", "logs"}, {"lock", "operator"}])
def test_purge_deletes_a_state_folder(monkeypatch, capsys, tmp_path, made):
    for name in made:
        (tmp_path / "state" / name).mkdir(parents=True)
    code, _, _ = run(
        monkeypatch, capsys, "down", "--purge", "-y", "--state", str(tmp_path / "state")
    )
    assert code == 0
    assert not (tmp_path / "state").exists()


def test_purge_deletes_nothing_that_no_platform_has_made(monkeypatch, capsys, tmp_path):
    (tmp_path / "thesis.txt").write_text("twelve years")
    code, _, err = run(monkeypatch, capsys, "down", "--purge", "--yes", "--state", str(tmp_path))
    assert code == failures.USAGE
    assert "is no state folder" in err
    assert (tmp_path / "thesis.txt").exists()


def test_a_platform_elsewhere_is_neither_stopped_nor_purged_here(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("HIVEMESH_SERVER", "https://elsewhere.example:8443")
    code, _, err = run(monkeypatch, capsys, "down", "--state", str(tmp_path))
    assert code == failures.USAGE
    assert "leave --server out to stop the one here" in err
