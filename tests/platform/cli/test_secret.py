"""`hivemesh secret`: a value comes by file, input or prompt, and is printed by --reveal alone."""

import io
import sys

import pytest
from hivemesh_platform.cli import secret, session
from hivemesh_platform.cli.failures import run_guarded
from hivemesh_platform.cli.main import build
from hivemesh_sdk.contracts.secrets_api import SecretValueView, SecretView

VALUE = "correct horse\nbattery"


def view(path, **changes):
    return SecretView(
        path=path, version=2, versions=2, created_at="2026-01-02T10:00:00+00:00", deleted=False
    ).model_copy(update=changes)


class Client:
    def __init__(self):
        self.sent = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def set_secret(self, path, value):
        self.sent.append(("set", path, value))
        return view(path)

    def rotate_secret(self, path, value):
        self.sent.append(("rotate", path, value))
        return view(path)

    def delete_secret(self, path):
        return view(path, deleted=True)

    def restore_secret(self, path):
        return view(path)

    def secret(self, path):
        return view(path)

    def secrets(self, prefix):
        return [view("a.b"), view("a.c", deleted=True)]

    def reveal_secret(self, path, version):
        return SecretValueView(path=path, version=version or 2, value=VALUE)


@pytest.fixture
def client(monkeypatch):
    found = Client()
    monkeypatch.setattr(session, "client", lambda *_: found)
    return found


def run(*words):
    arguments = ["secret", *words]
    return run_guarded(
        lambda: build(arguments)(arguments, prog_name="hivemesh", standalone_mode=False),
        trace=False,
    )


def standard_input(monkeypatch, data, *, terminal=False):
    stream = io.TextIOWrapper(io.BytesIO(data))
    stream.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stdin", stream)


@pytest.mark.parametrize("verb", ["set", "rotate"])
@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"one\n", "one"),
        (b"one\r\n", "one"),
        (b"one", "one"),
        (b"a\nb\n\n", "a\nb\n"),
        (b" x ", " x "),
    ],
)
def test_a_value_by_file_or_input_loses_one_line_end(  # noqa: PLR0913, PLR0917 - fixtures
    client, monkeypatch, tmp_path, capsys, verb, data, value
):
    file = tmp_path / "value"
    file.write_bytes(data)
    assert run(verb, "a.b", "--file", str(file)) == 0
    standard_input(monkeypatch, data)
    assert run(verb, "a.b") == 0
    standard_input(monkeypatch, data, terminal=True)
    assert run(verb, "a.b", "--file", "-") == 0
    assert client.sent == [(verb, "a.b", value)] * 3
    assert value.strip() not in capsys.readouterr().out.replace("a.b", "")


def test_at_a_terminal_it_is_asked_for_twice_and_not_shown(client, monkeypatch):
    asked = []

    def prompt(text, **options):
        asked.append((text, options))
        return "typed"

    monkeypatch.setattr(secret.typer, "prompt", prompt)
    standard_input(monkeypatch, b"", terminal=True)
    assert run("set", "a.b") == 0
    assert client.sent == [("set", "a.b", "typed")]
    assert asked == [("value of a.b", {"hide_input": True, "confirmation_prompt": True})]


@pytest.mark.parametrize("words", [("set", "a.b", "value"), ("set", "a.b", "--value", "value")])
def test_no_value_is_taken_from_the_command_line(client, words):
    assert run(*words) == 2
    assert client.sent == []


def test_what_is_no_text_is_refused_with_the_remedy(client, tmp_path, capsys):
    file = tmp_path / "value"
    file.write_bytes(b"\xff\xfe")
    assert run("set", "a.b", "--file", str(file)) == 2
    assert "base64" in capsys.readouterr().err
    assert run("set", "a.b", "--file", str(tmp_path / "none")) == 2


def test_only_a_reveal_prints_the_value_as_it_is(client, capsys):
    assert run("get", "a.b") == 0
    assert run("list") == 0
    assert "battery" not in capsys.readouterr().out
    assert run("get", "a.b", "--reveal") == 0
    assert capsys.readouterr().out == VALUE


def test_a_list_is_readable_and_machine_readable(client, capsys):
    assert run("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["NAME", "VERSION", "KEPT", "STORED", "DELETED"]
    assert run("list", "-o", "name") == 0
    assert capsys.readouterr().out == "a.b\na.c\n"


def test_a_deleted_secret_is_told_as_that(client, capsys):
    assert run("delete", "a.b") == 0
    assert capsys.readouterr().out.startswith("a.b: deleted")
    assert run("delete", "a.b", "--undo") == 0
    assert capsys.readouterr().out.startswith("a.b: version 2")
