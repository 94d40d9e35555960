"""Every command explains itself and refuses bad input in the one form."""

import importlib
import json
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from hivemesh_platform.cli import failures, job_batch, output, session, worker
from hivemesh_platform.cli.completion import command_lines, command_words, script
from hivemesh_platform.cli.main import COMMANDS, GROUPS, build
from hivemesh_sdk.contracts.problems import CATALOGUE, FieldProblem, problem
from hivemesh_sdk.errors import ConfigurationError, RemoteError, RetryableError
from hivemesh_sdk.failures import FAILURE, UNAVAILABLE, document_of, show
from hivemesh_sdk.safeio.pairs import parse_pairs, parse_value

ROOT = Path(__file__).parents[3]
ALL = [(command, verb) for command, verbs in command_words().items() for verb in (verbs or [""])]


def run(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["hivemesh", *words])
    code = failures.run_guarded(
        lambda: build(list(words))(list(words), prog_name="hivemesh", standalone_mode=False)
    )
    seen = capsys.readouterr()
    return code, seen.out, seen.err


@pytest.mark.parametrize(("command", "verb"), ALL)
def test_help_of_every_command_has_an_example(monkeypatch, capsys, command, verb):
    code, out, _ = run(monkeypatch, capsys, command, *([verb] if verb else []), "--help")
    assert code == 0
    assert "Example" in out


def test_every_command_prints_json_but_those_whose_text_is_the_answer():
    pages = (ROOT / "docs/reference/cli.md").read_text().split("\n## hivemesh ")[1:]
    assert len(pages) == len(command_lines())
    without = {page.partition("\n")[0] for page in pages if "--output" not in page}
    # a process, a script for a shell, and pages for people
    assert without == {"serve", "completion show", "help"}


@pytest.mark.parametrize("size", [1, 7, 64])
def test_results_of_a_batch_are_lines_or_one_array(monkeypatch, capsysbinary, size):
    lines = b'{"id": "job_1"}\n{"id": "job_2"}\n'
    blocks = [lines[at : at + size] for at in range(0, len(lines), size)]
    client = SimpleNamespace(batch_lines=lambda _: iter(blocks))
    monkeypatch.setattr(session, "client", lambda _: nullcontext(client))
    job_batch.results("batch_1")
    assert capsysbinary.readouterr().out == lines
    job_batch.results("batch_1", "json")
    assert [one["id"] for one in json.loads(capsysbinary.readouterr().out)] == ["job_1", "job_2"]


def test_a_restart_tells_how_many_are_replaced_and_how_they_are_followed(monkeypatch, capsys):
    client = SimpleNamespace(restart=lambda _: SimpleNamespace(wanted=2))
    monkeypatch.setattr(session, "client", lambda _: nullcontext(client))
    worker.restart("echo")
    assert capsys.readouterr().out == (
        "echo: 2 instances are replaced, one after the other; `hivemesh worker list` follows them\n"
    )


@pytest.mark.parametrize("name", sorted(GROUPS))
def test_help_of_every_group_has_an_example(monkeypatch, capsys, name):
    code, out, _ = run(monkeypatch, capsys, name, "--help")
    assert code == 0
    assert f"Examples:  hivemesh {name} " in out


@pytest.mark.parametrize("name", sorted(GROUPS))
def test_group_help_imports_neither_server_nor_engine(name):
    module = importlib.import_module(GROUPS[name][0])
    source = module.__file__
    assert source is not None
    heavy = ("fastapi", "dbos", "sqlalchemy", "uvicorn")
    with open(source) as file:  # noqa: PTH123 - a module's own source
        lines = [line for line in file if line.startswith(("import ", "from "))]
    assert not [line for line in lines if any(word in line for word in heavy)]


def test_unknown_command_is_a_usage_error_with_a_hint(monkeypatch, capsys):
    code, _, err = run(monkeypatch, capsys, "wroker")
    assert code == failures.USAGE
    assert "wroker" in err
    assert "--help" in err


def test_platform_that_does_not_run_is_unavailable_with_the_command_that_starts_it(
    monkeypatch, capsys, tmp_path
):
    code, _, err = run(monkeypatch, capsys, "status", "--state", str(tmp_path))
    assert code == UNAVAILABLE
    assert "HM-1605" in err
    assert "hivemesh up" in err


def test_json_output_of_an_error_is_the_problem_document(monkeypatch, capsys, tmp_path):
    _, out, _ = run(monkeypatch, capsys, "status", "--state", str(tmp_path), "-o", "json")
    assert json.loads(out)["code"] == "HM-1605"


def test_error_shows_code_cause_place_and_fix(capsys):
    errors = [FieldProblem(pointer="/steps/a", message="names itself")]
    document = problem("pipeline-invalid", "a cycle", errors=errors)
    assert show(document_of(RemoteError(document)), as_json=False) == failures.USAGE
    err = capsys.readouterr().err
    assert "error[HM-1401]" in err
    assert "why: a cycle" in err
    assert "at /steps/a: names itself" in err
    assert "fix: " in err


@pytest.mark.parametrize(
    ("detail", "why"),
    [
        ("/steps/a: names itself", []),
        ("a.yaml is not valid: /steps/a: names itself", ["why: a.yaml is not valid"]),
        ("a cycle", ["why: a cycle"]),
    ],
)
def test_what_is_wrong_is_said_once(capsys, detail, why):
    errors = [FieldProblem(pointer="/steps/a", message="names itself")]
    show(problem("pipeline-invalid", detail, errors=errors), as_json=False)
    lines = capsys.readouterr().err.splitlines()
    assert lines[1:-2] == [*why, "  at /steps/a: names itself"]


def test_the_only_thing_that_is_wrong_is_said_with_its_place(capsys):
    errors = [FieldProblem(pointer="/options/types/0", message="is none of bill, spam")]
    show(problem("options-invalid", "is none of bill, spam", errors=errors), as_json=False)
    lines = capsys.readouterr().err.splitlines()
    assert lines[1:-2] == ["why: /options/types/0: is none of bill, spam"]


def test_an_option_without_its_value_is_a_usage_error(monkeypatch, capsys):
    monkeypatch.setattr(session, "_chosen", {})
    assert session.take_remote(["status", "--server"]) == ["status"]
    code, _, err = run(monkeypatch, capsys, "status")
    assert code == failures.USAGE
    assert "--server needs a value" in err


def test_unexpected_error_shows_no_stack_trace(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["hivemesh"])

    def broken():
        raise ZeroDivisionError

    assert failures.run_guarded(broken) == FAILURE
    assert "Traceback" not in capsys.readouterr().err


def test_interrupted_command_exits_with_130():
    def interrupted():
        raise KeyboardInterrupt

    assert failures.run_guarded(interrupted) == failures.INTERRUPTED


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ('["a"]', ["a"]),
        ("true", True),
        ("plain text", "plain text"),
        ("", ""),
        ("a=b", "a=b"),
    ],
)
def test_value_is_json_where_it_is_json(text, value):
    assert parse_value(text) == value


def test_pair_without_equals_sign_is_refused_by_name():
    with pytest.raises(ConfigurationError) as caught:
        parse_pairs(["types"])
    assert "types" in caught.value.errors[0].message


def test_table_aligns_columns_and_shows_absence_as_a_dash():
    text = output.table(["name", "n"], [["a", output.cell(None)], ["longer", "2"]])
    assert text.splitlines() == ["NAME    N", "a       -", "longer  2"]


@pytest.mark.parametrize("value", ["a\x1b]0;x\x07b", ["\x1b[2J"], {"k": "\x9b2J"}, "\u202egnp.exe"])
def test_what_workers_say_does_not_command_the_terminal(value: object) -> None:
    shown = output.cell(value)
    assert "\ufffd" in shown
    assert not set(shown) & set("\x1b\x07\x9b\u202e")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_command(shell):
    text = script(shell)
    assert all(name in text for name in (*COMMANDS, *GROUPS))
    assert "validate" in text


class Named:
    """A platform in which one object of each kind has a name."""

    def workers(self):
        return [SimpleNamespace(name="email-parser")]

    def capabilities(self):
        return [SimpleNamespace(id="email.parse@1")]

    def batches(self, *, limit):
        return [SimpleNamespace(id=f"batch_of_{limit}")]

    def roles(self):
        raise RetryableError(slug="platform-unreachable")


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        (["worker", "show", ""], ["email-parser"]),
        (["worker", "call", ""], ["email.parse@1"]),
        (["job", "submit", ""], ["email.parse@1"]),
        (["job", "batch", "show", ""], ["batch_of_100"]),
        (["auth", "role", "show", ""], []),
        (["worker", "credential", ""], ["list", "revoke"]),
        (["completion", "install", ""], ["bash", "zsh", "fish"]),
        (["pipeline", "validate", ""], []),
        (["run", "list", ""], []),
        (["worker", "scale", "--"], ["--output", "--state"]),
    ],
)
def test_completion_offers_what_may_stand_there(monkeypatch, capsys, line, offered):
    monkeypatch.setattr(session, "client", lambda _, timeout_s: nullcontext(Named()))
    _, out, _ = run(monkeypatch, capsys, "completion", "words", "--", *line)
    assert out.split() == offered


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--deadline 5y", "--deadline: '5y'"),
        ("--label bad", "--label: 'bad'"),
        ("--require b", "--require: 'b'"),
    ],
)
def test_a_bad_value_is_a_misuse_that_names_its_option(monkeypatch, capsys, options, told):
    code, _, err = run(monkeypatch, capsys, "job", "submit", "a.b@1", *options.split())
    assert (code, "HM-1610" in err, told in err) == (failures.USAGE, True, True)


def test_no_remedy_names_a_field_that_people_do_not_see():
    assert not [
        one.code
        for one in CATALOGUE.values()
        if "`detail`" in one.remedy or "`errors`" in one.remedy
    ]
