"""Documents that people name on the command line."""

import pytest
from hivemesh_platform.cli.values import read_json
from hivemesh_sdk.errors import ConfigurationError


@pytest.mark.parametrize("given", ['{"text": "a"}', "[1]", '"a"', '{"text": "' + 5000 * "a" + '"}'])
def test_a_document_in_place_of_its_file_says_how_to_give_it(given):
    with pytest.raises(ConfigurationError) as refused:
        read_json(given)
    assert refused.value.slug == "command-misused"
    assert "--input -" in refused.value.remedy


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_json(str(tmp_path / "input.json"))


def test_a_file_may_have_any_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "{1}.json").write_text("7")
    assert read_json("{1}.json") == 7
