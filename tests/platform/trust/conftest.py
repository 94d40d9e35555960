"""A database of the present schema per test; the migrations run once."""

import shutil

import pytest
from hivemesh_platform.storage.migrate import ensure_schema


@pytest.fixture(scope="session")
def schema(tmp_path_factory):
    path = tmp_path_factory.mktemp("schema") / "platform.db"
    ensure_schema(path)
    return path


@pytest.fixture
def database_path(schema, tmp_path):
    return shutil.copy(schema, tmp_path / "platform.db")
