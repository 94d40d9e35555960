"""A command asks people only: elsewhere it says what it needs, and changes nothing."""

import io
import sys

import pytest
import typer
from hivemesh_platform.cli import asking
from hivemesh_sdk.errors import RemoteError
from hivemesh_sdk.failures import USAGE, show


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setattr(asking, "_forbidden", False)

    def answering(text):
        monkeypatch.setattr(sys, "stdin", Terminal(text))

    return answering


def test_a_person_who_agrees_goes_on(terminal):
    terminal("y\n")
    asking.confirmed("go on?", yes=False)


def test_a_person_who_declines_changes_nothing_and_that_is_said(terminal, capsys):
    terminal("n\n")
    with pytest.raises(typer.Exit) as ended:
        asking.confirmed("go on?", yes=False)
    assert ended.value.exit_code == 1
    assert "nothing was changed" in capsys.readouterr().err


def test_no_input_never_asks_and_names_yes(terminal, capsys):
    terminal("y\n")
    asking.forbid()
    with pytest.raises(RemoteError) as caught:
        asking.confirmed("go on?", yes=False)
    assert show(caught.value.problem(), as_json=False) == USAGE
    err = capsys.readouterr().err
    assert "error[HM-1611]" in err
    assert "--yes" in err


def test_yes_answers_where_nobody_can_be_asked(terminal):
    terminal("")
    asking.forbid()
    asking.confirmed("go on?", yes=True)


def test_a_pipe_is_nobody(monkeypatch, terminal):
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert not asking.possible()
