"""Schema versions: made from nothing, refused when another version's."""

import sqlite3

import pytest
from hivemesh_platform.storage import migrate
from hivemesh_platform.storage.errors import StateIncompatibleError
from hivemesh_platform.storage.opening import FILE

TABLES = {
    "artifact",
    "attempt",
    "batch",
    "dataset",
    "dataset_part",
    "node",
    "orphan_job",
    "pipeline",
    "queue_clock",
    "queue_share",
    "rejected",
    "run",
    "run_event",
    "source",
    "step_artifact",
    "work",
}


def query(path, sql):
    connection = sqlite3.connect(path)
    try:
        with connection:
            return connection.execute(sql).fetchall()
    finally:
        connection.close()


@pytest.fixture
def database(tmp_path):
    path = tmp_path / FILE
    migrate.ensure_schema(path)
    return path


def test_the_schema_is_made_from_nothing(database):
    names = {name for (name,) in query(database, "SELECT name FROM sqlite_master")}
    assert names >= TABLES
    assert migrate.schema_version(database) == migrate.HEAD


def test_every_table_has_a_tenant(database):
    for table in TABLES:
        columns = {row[1] for row in query(database, f"PRAGMA table_info({table})")}
        assert "tenant" in columns, table


def test_the_newest_migration_is_the_head():
    assert migrate.known_versions()[-1] == migrate.HEAD


def test_a_current_schema_is_accepted(database):
    migrate.ensure_schema(database)


def test_a_schema_of_an_unknown_version_is_refused_with_the_remedy(database):
    query(database, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StateIncompatibleError, match="'9999'") as refused:
        migrate.ensure_schema(database)
    assert refused.value.problem().code == "HM-1603"
    with pytest.raises(StateIncompatibleError):
        migrate.upgrade(database)


def test_a_file_that_is_no_database_is_refused(tmp_path):
    path = tmp_path / FILE
    path.write_text("not a database, but long enough to have a header of its own kind\n" * 20)
    with pytest.raises(StateIncompatibleError, match="restore it"):
        migrate.ensure_schema(path)


def test_a_foreign_database_is_refused(tmp_path):
    path = tmp_path / FILE
    query(path, "CREATE TABLE other (a)")
    with pytest.raises(StateIncompatibleError, match="no database of this platform"):
        migrate.ensure_schema(path)


@pytest.mark.integration
def test_a_process_of_its_own_makes_the_schema_of_a_new_file(tmp_path):
    migrate.make_apart(tmp_path / FILE)
    assert migrate.schema_version(tmp_path / FILE) == migrate.HEAD


def test_what_is_there_is_left_as_it_is(tmp_path):
    path = tmp_path / FILE
    path.touch()
    migrate.make_apart(path)
    assert path.stat().st_size == 0


@pytest.mark.integration
def test_what_cannot_be_made_apart_is_left_to_who_says_why(tmp_path):
    migrate.make_apart(tmp_path / "missing" / FILE)
    assert list(tmp_path.iterdir()) == []
