"""`hivemesh state upgrade`: says before what it does, and keeps a whole copy."""

import sqlite3
import subprocess
import sys

import pytest
from hivemesh_platform.cli.main import build
from hivemesh_platform.storage.migrate import HEAD, run_migrations, schema_version

KILLED = """
import os, sqlite3
connection = sqlite3.connect("platform.db", isolation_level=None)
connection.execute("PRAGMA journal_mode=WAL")
connection.execute("CREATE TABLE given AS SELECT 7 AS n")
os.kill(os.getpid(), 9)
"""


def hivemesh(*arguments):
    build(list(arguments))(list(arguments), prog_name="hivemesh", standalone_mode=False)


@pytest.fixture
def old(tmp_path, monkeypatch):
    """A state folder of an older version."""
    monkeypatch.chdir(tmp_path)
    run_migrations(tmp_path / "platform.db", "0008")
    return tmp_path / "platform.db"


def test_a_dry_run_of_an_upgrade_changes_nothing(old, capsys):
    hivemesh("state", "upgrade", "--dry-run", "--state", str(old.parent))
    assert f"from schema 0008 to {HEAD}, with a copy kept beside it" in capsys.readouterr().out
    assert schema_version(old) == "0008"
    assert not list(old.parent.glob("*.bak"))


def test_an_upgrade_keeps_a_copy_and_names_the_way_back(old, capsys):
    hivemesh("state", "upgrade", "--state", str(old.parent))
    assert schema_version(old) == HEAD
    copy = old.with_name("platform.db.0008.bak")
    assert schema_version(copy) == "0008"
    assert copy.stat().st_mode & 0o777 == 0o600
    assert f"; mv {copy} {old})" in capsys.readouterr().out
    hivemesh("state", "upgrade", "--state", str(old.parent))
    assert "nothing to do" in capsys.readouterr().out


def test_the_copy_holds_what_a_killed_platform_committed_last(old):
    subprocess.run([sys.executable, "-c", KILLED], timeout=60, check=False)
    hivemesh("state", "upgrade", "--state", str(old.parent))
    copy = sqlite3.connect(old.with_name("platform.db.0008.bak"))
    assert copy.execute("SELECT n FROM given").fetchall() == [(7,)]
    copy.close()


def test_the_copy_is_whole_and_the_way_back_leads_to_it_while_others_read(old, capsys):
    subprocess.run([sys.executable, "-c", KILLED], timeout=60, check=False)
    reader = sqlite3.connect(f"{old.as_uri()}?mode=ro", uri=True)
    assert reader.execute("SELECT n FROM given").fetchall() == [(7,)]
    hivemesh("state", "upgrade", "--state", str(old.parent))
    reader.close()
    assert schema_version(old) == HEAD
    undo = capsys.readouterr().out.rpartition("(undo: ")[2].strip().removesuffix(")")
    subprocess.run(["/bin/sh", "-c", undo], check=True)  # as a person pastes it
    assert schema_version(old) == "0008"
    back = sqlite3.connect(old)
    assert back.execute("SELECT n FROM given").fetchall() == [(7,)]
    assert back.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    back.close()
