"""The committed schemas are those of the types."""

import json
import re
from pathlib import Path

import pytest
from hivemesh_sdk.contracts.generate import files, write
from hivemesh_sdk.contracts.openapi import worker_openapi

COMMITTED = Path(__file__).parents[3] / "docs" / "reference" / "schemas"
COMMAND = "python -m hivemesh_sdk.contracts.generate docs/reference/schemas"


@pytest.mark.parametrize("name", sorted(files()))
def test_a_committed_schema_is_current(name):
    assert (COMMITTED / name).read_text() == files()[name], f"run: {COMMAND}"


def test_no_schema_is_left_over():
    assert {path.name for path in COMMITTED.glob("*.json")} == set(files()), f"run: {COMMAND}"


def test_writing_removes_what_has_no_type(tmp_path):
    (tmp_path / "gone.schema.json").write_text("{}")
    assert {path.name for path in write(tmp_path)} == {path.name for path in tmp_path.iterdir()}


def test_every_reference_of_the_openapi_document_resolves():
    document = worker_openapi()
    for reference in set(re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(document))):
        found = document
        for part in reference.split("/"):
            found = found[part]
        assert isinstance(found, dict)
