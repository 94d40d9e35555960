"""Examples of a worker: `tests/examples.yaml` and what becomes of it."""

from pathlib import Path

import pytest
from hivemesh_sdk.contracts.artifacts import Artifact
from hivemesh_sdk.errors import ConfigurationError
from hivemesh_sdk.testing.examples import Example, load_examples


def stored(path: Path) -> Artifact:
    return Artifact(sha256="0" * 64, size=1, name=path.name)


@pytest.fixture
def written(tmp_path):
    (tmp_path / "tests").mkdir()

    def write(text: str) -> dict[str, Example]:
        (tmp_path / "tests" / "examples.yaml").write_text(text)
        return load_examples(tmp_path)

    return write


def test_a_worker_without_examples_has_none(tmp_path):
    assert load_examples(tmp_path) == {}


def test_files_become_artifacts_at_every_depth(written):
    examples = written(
        "x.y@1: {options: {one: {$file: a}, more: [{$file: b}], deep: {c: {$file: c}}}}"
    )
    parameters = examples["x.y@1"].parameters(stored)
    assert parameters["one"]["name"] == "a"
    assert parameters["more"][0]["name"] == "b"
    assert parameters["deep"]["c"]["name"] == "c"


def test_records_become_lines_and_a_call_one_document():
    assert Example(input=[{"a": 1}, {"a": 2}]).bodies("map") == [b'{"a":1}\n{"a":2}\n']
    assert Example(input={"a": 1}).bodies("call") == [b'{"a":1}']
    assert Example().bodies("source") == []


def test_a_map_needs_records():
    with pytest.raises(ConfigurationError, match="list of records"):
        Example(input={"a": 1}).bodies("map")


@pytest.mark.parametrize("text", ["[]", "x.y@1: []", "x.y@1: {inputs: []}", "x.y@1: {options: []}"])
def test_another_form_is_refused(written, text):
    if text.endswith("{options: []}"):
        text = "x.y@1: {options: [1]}"
    with pytest.raises(ConfigurationError, match=r"examples\.yaml"):
        written(text)
