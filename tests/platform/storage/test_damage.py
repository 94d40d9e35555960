"""A damaged database file is found before anything starts on it."""

import sqlite3

import pytest
from hivemesh_platform.settings import DatabaseSettings
from hivemesh_platform.storage.damage import refuse_damaged
from hivemesh_platform.storage.errors import DatabaseDamagedError
from hivemesh_platform.storage.opening import place_of
from storage_support import prepare


def test_a_sound_file_is_taken(tmp_path):
    refuse_damaged(prepare(tmp_path / "platform.db"))


def test_a_file_that_is_not_there_yet_is_taken(tmp_path):
    refuse_damaged(tmp_path / "platform.db")


@pytest.mark.parametrize("place", [0, 100, 4096, 20_480])
def test_a_damaged_file_is_refused_with_the_command_that_mends_it(tmp_path, place):
    path = prepare(tmp_path / "platform.db")
    data = bytearray(path.read_bytes())
    data[place : place + 64] = bytes(byte ^ 0xFF for byte in data[place : place + 64])
    path.write_bytes(data)
    with pytest.raises(DatabaseDamagedError) as refused:
        place_of(DatabaseSettings(), tmp_path).ensure_schema()
    assert "cp BACKUP/platform.db" in refused.value.detail


def test_a_file_that_was_cut_is_refused(tmp_path):
    path = prepare(tmp_path / "platform.db")
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(DatabaseDamagedError):
        refuse_damaged(path)


def test_a_sound_table_without_rowid_is_not_taken_for_damaged(tmp_path):
    """SQLite before 3.41 says that it holds a NULL."""
    file = tmp_path / "platform.db"
    connection = sqlite3.connect(file)
    connection.execute(
        """CREATE TABLE one (a TEXT NOT NULL, b INT NOT NULL, c TEXT NOT NULL,
                             PRIMARY KEY (a, c)) WITHOUT ROWID"""
    )
    connection.execute("INSERT INTO one VALUES ('a', 1, 'c')")
    connection.commit()
    connection.close()
    refuse_damaged(file)


def test_damage_behind_many_untrue_lines_is_found(tmp_path):
    """The look at a file ends after 100 lines where it is not told to go on."""
    file = tmp_path / "platform.db"
    connection = sqlite3.connect(file)
    connection.execute(
        """CREATE TABLE one (a INT NOT NULL, b INT NOT NULL CHECK (b >= 0), c TEXT NOT NULL,
                             PRIMARY KEY (a, c)) WITHOUT ROWID"""
    )
    connection.execute("PRAGMA ignore_check_constraints = ON")
    rows = [(number, number if number < 499 else -1, "c") for number in range(500)]
    connection.executemany("INSERT INTO one VALUES (?, ?, ?)", rows)
    connection.commit()
    connection.close()
    with pytest.raises(DatabaseDamagedError) as refused:
        refuse_damaged(file)
    assert "CHECK constraint failed in one" in refused.value.detail
