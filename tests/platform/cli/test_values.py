"""Documents that people name on the command line."""

import pytest
from hivemesh_platform.cli.values import read_json, read_lines
from hivemesh_sdk.errors import ConfigurationError


@pytest.mark.parametrize("given", ['{"text": "a"}', "[1]", '"a"', '{"text": "' + 5000 * "a" + '"}'])
@pytest.mark.parametrize(("read", "option"), [(read_json, "--input"), (read_lines, "--file")])
def test_a_document_in_place_of_its_file_says_how_to_give_it(given, read, option):
    with pytest.raises(ConfigurationError) as refused:
        read(given, option)
    assert refused.value.slug == "command-misused"
    assert refused.value.remedy.endswith(f"| hivemesh … {option} -")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_json(str(tmp_path / "input.json"), "--input")


def test_a_file_may_have_any_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "{1}.json").write_text("7")
    assert read_json("{1}.json", "--input") == 7
