"""`hivemesh config validate` and `hivemesh doctor` say what a start would refuse."""

import json

import pytest
from hivemesh_platform.cli import doctor, failures
from hivemesh_platform.cli.main import build
from hivemesh_sdk.safeio.yaml import parse_yaml

WRONG = """
mode: production
database: {url: "mysql://db/hivemesh"}
execution: {rates: {all: fast}}
"""


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))

    def ran(text, *words):
        (tmp_path / "hivemesh.yaml").write_text(text)
        monkeypatch.setattr("sys.argv", ["hivemesh", *words])
        code = failures.run_guarded(
            lambda: build(words)([*words], prog_name="hivemesh", standalone_mode=False)
        )
        seen = capsys.readouterr()
        return code, seen.out, seen.err

    return ran


def test_each_refusal_is_told_with_code_and_remedy(run):
    code, _, err = run(WRONG, "config", "validate")
    assert code == failures.USAGE
    assert err.count("error[HM-") == err.count("\nfix: ") == 3


def test_programs_get_one_document_that_names_all(run):
    _, out, _ = run(WRONG, "config", "validate", "-o", "json")
    errors = json.loads(out)["errors"]
    pointers = ["/trust/passphrase", "/database/url", "/execution/rates/all"]
    assert [one["pointer"] for one in errors] == pointers
    assert all(one["code"].startswith("HM-") for one in errors)


@pytest.mark.parametrize("text", [WRONG, "mode: production"])
def test_both_formats_for_programs_have_the_same_document(run, text):
    code, out, _ = run(text, "config", "validate", "-o", "json")
    as_yaml = run(text, "config", "validate", "-o", "yaml")
    assert code == as_yaml[0] == failures.USAGE
    assert parse_yaml(as_yaml[1].encode()) == json.loads(out)


def test_a_folder_that_is_not_there_is_a_warning(run):
    code, out, err = run("workers: {folders: [elsewhere]}", "config", "validate")
    assert (code, "are valid" in out, "elsewhere is not there" in err) == (0, True, True)


def test_the_doctor_finds_the_same(run):
    code, out, _ = run(WRONG + "workers: {folders: [elsewhere]}", "doctor", "--pre", "-o", "json")
    found = [one for one in json.loads(out) if one["section"] in {"settings", "database"}]
    assert code == 1
    assert [one["check"] for one in found] == [
        "trust.passphrase can be used",
        "database.url can be used",
        "execution.rates.all can be used",
        "workers.folders are there",
    ]
    assert all(one["fix"] and one["docs"] for one in found)
    assert doctor.MARKS[found[-1]["verdict"]] == "!"
