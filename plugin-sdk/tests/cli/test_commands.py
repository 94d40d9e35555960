"""The `hivemesh-worker` command: what it prints, where, and its exit codes."""

import io
import json
import os
from pathlib import Path

import pytest
from hivemesh_sdk.cli import main
from hivemesh_sdk.lifecycle.health import Health, HealthFile

WORKERS = Path(__file__).parents[1] / "testing"
TEXT = WORKERS / "text-worker"
BROKEN = WORKERS / "broken-worker"
POEM = TEXT / "tests" / "data" / "poem.txt"


def feed(monkeypatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def test_version_names_sdk_and_protocol(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert (stop.value.code, capsys.readouterr().out) == (0, "hivemesh-sdk 0.1.0, protocol 1\n")


@pytest.mark.parametrize("command", ["run", "check", "call", "conformance", "health", "schema"])
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert "usage: hivemesh-worker " + command in capsys.readouterr().out


def test_a_wrong_command_line_is_usage(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["dance"])
    assert stop.value.code == 2
    assert "fix: hivemesh-worker --help" in capsys.readouterr().err


def test_check_numbers_its_findings(capsys):
    assert main(["check", str(TEXT)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "  1 ✓ plugin.yaml describes text 1.2.3"
    assert "  4 ✓ text.read@1 (source, process) is as declared" in lines


def test_check_fails_where_plugin_yaml_and_code_differ(tmp_path, capsys):
    text = (TEXT / "plugin.yaml").read_text()
    text = text.replace("text.upper@1, kind: call", "text.upper@1, kind: map")
    text = text.replace("text.measure@1", "text.gauge@1")
    (tmp_path / "plugin.yaml").write_text(text)
    (tmp_path / "src").symlink_to(TEXT / "src")
    assert main(["check", str(tmp_path), "-o", "json"]) == 1
    errors = [one for one in json.loads(capsys.readouterr().out) if one["level"] == "error"]
    assert [one["what"] for one in errors] == [
        "text.gauge@1 is declared in plugin.yaml and not defined in the code",
        "text.measure@1 is defined in the code and not declared in plugin.yaml",
        "text.upper@1: kind is 'map' in plugin.yaml and 'call' in the code",
    ]
    assert all(one["fix"] for one in errors)


def test_check_names_the_place_where_a_schema_differs(tmp_path, capsys):
    schema = "{type: object, properties: {longest: {type: string}}}"
    text = (TEXT / "plugin.yaml").read_text()
    text = text.replace(
        "text.measure@1, kind: map", f"text.measure@1, kind: map, options: {schema}"
    )
    (tmp_path / "plugin.yaml").write_text(text)
    (tmp_path / "src").symlink_to(TEXT / "src")
    assert main(["check", str(tmp_path)]) == 1
    assert "the schema of options differs from the code at /" in capsys.readouterr().out


def test_an_invalid_manifest_is_told_with_code_place_and_fix(tmp_path, capsys):
    (tmp_path / "plugin.yaml").write_text((TEXT / "plugin.yaml").read_text() + "labls: {}\n")
    assert main(["check", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error[HM-1309]: the manifest is not valid\nwhy: ")
    assert "at /labls: unknown key 'labls'; did you mean 'labels'?" in error
    assert "\nfix: " in error


def test_a_missing_worker_is_not_found(tmp_path, capsys):
    assert main(["check", str(tmp_path)]) == 3
    assert "error[HM-1003]" in capsys.readouterr().err


def test_call_prints_records_and_tells_rejected_ones_apart(capfdbinary):
    code = main(["call", "text.read@1", "--worker", str(TEXT), "--with", f"file={POEM}"])
    out, err = capfdbinary.readouterr()
    assert code == 6
    assert [json.loads(line)["text"] for line in out.splitlines()][:3] == ["one", "two", "three"]
    assert err.splitlines()[0] == b"rejected[empty-line] at 2"


def test_call_reads_records_from_standard_input(monkeypatch, capfdbinary):
    feed(monkeypatch, '{"no": 1, "text": "abc"}\n')
    command = ["call", "text.measure@1", "--worker", str(TEXT), "--input", "-"]
    assert main([*command, "--with", "longest=5"]) == 0
    assert json.loads(capfdbinary.readouterr().out) == {"no": 1, "length": 3}


def test_call_reads_records_from_a_file(tmp_path, capfdbinary):
    (tmp_path / "in.ndjson").write_text('{"no":1,"length":3}\n{"no":2,"length":4}\n')
    command = ["call", "text.total@1", "--worker", str(TEXT)]
    assert main([*command, "--input", str(tmp_path / "in.ndjson")]) == 0
    assert json.loads(capfdbinary.readouterr().out) == {"total": 7}


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (["text.nothing@1"], 3, "HM-1201"),
        (["text.measure@1", "--with", "longst=1"], 2, "HM-1214"),
        (["text.measure@1", "--with", "longest"], 2, "HM-1610"),
        (["text.read@1", "--with", "file=nowhere.txt"], 2, "HM-1607"),
        (["text.measure@1", "--input", "nowhere.ndjson"], 2, "HM-1607"),
        (["text.upper@1"], 2, "HM-1215"),
    ],
)
def test_what_call_refuses_has_a_code(arguments, code, problem, monkeypatch, capsys):
    feed(monkeypatch, "{}\n")
    if "measure" in arguments[0] and "--input" not in arguments:
        arguments = [*arguments, "--input", "-"]
    assert main(["call", *arguments, "--worker", str(TEXT), "-o", "json"]) == code
    out, err = capsys.readouterr()
    assert json.loads(out)["code"] == problem
    assert f"error[{problem}]" in err


def test_schema_prints_what_the_annotations_say(capsys):
    assert main(["schema", "text.measure@1", "--worker", str(TEXT)]) == 0
    schemas = json.loads(capsys.readouterr().out)
    assert schemas["options"]["properties"]["longest"]["default"] == 80


def test_schema_of_an_unknown_capability_is_not_found(capsys):
    assert main(["schema", "text.nothing@1", "--worker", str(TEXT)]) == 3


def test_health_of_a_worker_that_does_not_run_is_not_found(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main(["health", "text"]) == 3


@pytest.mark.parametrize(("state", "code"), [("live", 0), ("starting", 1)])
def test_health_is_an_exit_code(state, code, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    HealthFile.of("text").beat(Health(worker="text", instance="i1", pid=os.getpid(), state=state))
    assert main(["health", "-o", "json"]) == code
    assert json.loads(capsys.readouterr().out)["state"] == state


def test_run_without_its_environment_names_what_is_missing(monkeypatch, capsys):
    for name in [name for name in os.environ if name.startswith("HIVEMESH_")]:
        monkeypatch.delenv(name)
    assert main(["run", str(TEXT)]) == 2
    assert "HIVEMESH_TOKEN_FD" in capsys.readouterr().err


def test_conformance_without_pytest_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert main(["conformance"]) == 2
    assert "fix: in a checkout: make install; elsewhere: pip install" in capsys.readouterr().err


@pytest.mark.integration
def test_conformance_finds_the_laws_that_a_worker_breaks(tmp_path, capsys):
    report = tmp_path / "report.xml"
    assert main(["conformance", str(BROKEN), "-o", "json", "--junit", str(report)]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [one["rule"] for one in found["results"] if one["outcome"] == "failed"] == [
        "a source goes on from each of its checkpoints",
        "a reducer gives the same result for every partition",
    ]
    assert report.read_text().count("<failure") == 2
