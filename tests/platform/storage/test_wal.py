"""Commits that went with the log of a killed platform are missed; nothing else is taken for that."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys

import pytest
from hivemesh_platform.settings import DatabaseSettings
from hivemesh_platform.storage import wal
from hivemesh_platform.storage.damage import set_aside
from hivemesh_platform.storage.errors import DatabaseDamagedError
from hivemesh_platform.storage.migrate import schema_version
from hivemesh_platform.storage.opening import open_database, place_of
from hivemesh_platform.storage.wal import lost
from storage_support import prepare

WRITE = """
import asyncio, os, sys
from pathlib import Path
from hivemesh_platform.settings import DatabaseSettings
from hivemesh_platform.storage.opening import open_database, place_of

async def main(ends):
    place = place_of(DatabaseSettings(), Path("."))
    place.ensure_schema()
    async with open_database(DatabaseSettings(), place) as database:
        await database.write(lambda tx: tx.execute("CREATE TABLE given (n INTEGER, t TEXT)"))
        for number in range(6):
            row = number, "a" * 3000
            await database.write(lambda tx: tx.execute("INSERT INTO given VALUES (?, ?)", row))
        if ends == "stored":
            await asyncio.to_thread(store)
        if ends != "in order":
            os.kill(os.getpid(), 9)

def store():
    import sqlite3
    connection = sqlite3.connect("platform.db")
    print(connection.execute("PRAGMA wal_checkpoint").fetchone())
    connection.close()

asyncio.run(main(sys.argv[1]))
"""
GIVEN = [(number,) for number in range(6)]


def write(folder, ends):
    """Six commits by a process that ends as told."""
    prepare(folder / "platform.db")
    command = [sys.executable, "-c", WRITE, ends]
    ended = subprocess.run(command, cwd=folder, timeout=60, check=False)
    assert ended.returncode == (0 if ends == "in order" else -signal.SIGKILL)


@pytest.fixture(scope="module")
def once_killed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    write(folder, "killed")
    return folder


@pytest.fixture
def killed(once_killed, tmp_path):
    """The state folder of a platform that was killed after six commits."""
    folder = tmp_path / "state"
    shutil.copytree(once_killed, folder)
    return folder


def given(file):
    connection = sqlite3.connect(file)
    try:
        return connection.execute("SELECT n FROM given ORDER BY n").fetchall()
    finally:
        connection.close()


def start(folder):
    place_of(DatabaseSettings(), folder).ensure_schema()


def refused(folder):
    with pytest.raises(DatabaseDamagedError) as error:
        start(folder)
    return error.value.detail


def test_a_killed_platform_starts_with_all_that_was_committed(killed):
    start(killed)
    assert given(killed / "platform.db") == GIVEN


def test_no_start_without_the_log_until_it_is_put_back(killed, tmp_path):
    log = killed / "platform.db-wal"
    log.rename(tmp_path / "kept")
    assert "platform.db-wal is gone, and with it what was committed last" in refused(killed)
    with pytest.raises(DatabaseDamagedError):
        schema_version(killed / "platform.db")  # as `hivemesh doctor` and `state show` ask
    assert f"go on without: rm -f {log} {killed / 'platform.db-shm'}" in refused(killed)
    (tmp_path / "kept").rename(log)
    start(killed)
    assert given(killed / "platform.db") == GIVEN


def test_whoever_goes_on_without_it_does_so_by_the_command_that_is_named(killed):
    (killed / "platform.db-wal").unlink()
    command = refused(killed).rpartition("go on without: ")[2]
    subprocess.run(["/bin/sh", "-c", command], check=True)  # as a person pastes it
    start(killed)


def test_no_start_with_a_log_that_was_cut(killed):
    log = killed / "platform.db-wal"
    size = log.stat().st_size
    for cut in (1, 4096, size // 2, size - 100, size - 10, size):
        os.truncate(log, size - cut)
        assert "platform.db-wal is damaged" in refused(killed)


def test_no_start_with_a_flipped_bit_in_the_log(killed):
    log = killed / "platform.db-wal"
    sound = log.read_bytes()
    frame = 32 + 24 + 4096
    # the places in the header and in the frames at which SQLite looks at what it reads
    for place in (0, 9, 17, 25, 31, 32, 37, 41, 49, 56, frame + 3, len(sound) // 2, len(sound) - 1):
        data = bytearray(sound)
        data[place] ^= 0x10
        log.write_bytes(data)
        assert "platform.db-wal is damaged" in refused(killed), place


def test_of_a_long_log_only_the_heads_of_its_frames_are_read(killed, monkeypatch):
    monkeypatch.setattr(wal, "_SUMMED_BYTES", 4096)
    log = killed / "platform.db-wal"
    sound = log.read_bytes()
    frame = 24 + 4096
    assert lost(killed / "platform.db") == ""
    within = bytearray(sound)
    within[32 + 24 + 100] ^= 0x10
    log.write_bytes(within)
    assert lost(killed / "platform.db") == ""  # told in find-the-cause.md
    last = len(sound) - frame
    for place in (0, 9, 17, 25, 32 + 8, 32 + frame + 15, last + 8, last + 16, last + 23):
        data = bytearray(sound)
        data[place] ^= 0x10
        log.write_bytes(data)
        assert "platform.db-wal is damaged" in refused(killed), place
    log.write_bytes(sound[: 2 * frame] + bytes(frame) + sound[3 * frame :])
    assert "platform.db-wal is damaged" in refused(killed)
    log.write_bytes(sound)
    for cut in (1, 4095, 4096, 4100, frame, len(sound) // 2, len(sound) - 10, len(sound)):
        os.truncate(log, len(sound) - cut)
        assert "platform.db-wal is damaged" in refused(killed), cut
    log.unlink()
    assert "platform.db-wal is gone" in refused(killed)
    log.write_bytes(sound)
    start(killed)
    assert given(killed / "platform.db") == GIVEN


@pytest.mark.parametrize("index", [b"", bytes(32768)])
def test_where_the_index_says_nothing_nobody_claims_to_know_of_a_log(killed, index):
    (killed / "platform.db-wal").unlink()
    (killed / "platform.db-shm").write_bytes(index)
    assert "platform.db-wal may be gone (nobody can tell" in refused(killed)


def test_what_was_written_behind_the_last_commit_is_no_loss(killed):
    with (killed / "platform.db-wal").open("ab") as log:
        log.write(b"a frame that was not written to its end")
    start(killed)
    assert given(killed / "platform.db") == GIVEN


def test_a_log_that_is_gone_is_none_missed_where_all_of_it_is_in_the_file(tmp_path):
    write(tmp_path, "stored")
    (tmp_path / "platform.db-wal").unlink()
    start(tmp_path)
    assert given(tmp_path / "platform.db") == GIVEN


def test_a_platform_that_ended_in_order_starts_again(tmp_path):
    write(tmp_path, "in order")
    assert not (tmp_path / "platform.db-wal").exists()
    start(tmp_path)
    assert given(tmp_path / "platform.db") == GIVEN


def test_a_killed_platform_may_be_looked_at_with_other_tools(killed):
    file = killed / "platform.db"
    assert given(file) == GIVEN
    start(killed)
    assert given(file) == GIVEN


def test_a_killed_platform_whose_first_start_it_was_starts_again(tmp_path):
    """Nothing was committed but the schema."""
    command = (
        "import sqlite3, os; from pathlib import Path;"
        "from hivemesh_platform.storage.sqlite import SqliteDatabase;"
        "kept = SqliteDatabase(Path('platform.db'))._open_writer(); os.kill(os.getpid(), 9)"
    )
    prepare(tmp_path / "platform.db")
    subprocess.run([sys.executable, "-c", command], cwd=tmp_path, timeout=60, check=False)
    start(tmp_path)


def test_a_backup_of_the_file_alone_starts(killed, tmp_path):
    source = sqlite3.connect(killed / "platform.db")
    copied = sqlite3.connect(tmp_path / "platform.db")
    source.backup(copied)
    copied.close()
    source.close()
    start(tmp_path)
    assert given(tmp_path / "platform.db") == GIVEN


async def test_a_platform_that_runs_is_never_said_to_lose_anything(tmp_path):
    file = prepare(tmp_path / "platform.db")
    place = place_of(DatabaseSettings(), tmp_path)
    async with open_database(DatabaseSettings(), place) as database:
        await database.write(lambda tx: tx.execute("CREATE TABLE given (n INTEGER, t TEXT)"))
        for number in range(12):
            rows = [(number, "a" * 3000)] * 200  # the log begins anew in between
            await database.write(
                lambda tx, rows=rows: tx.execute_many("INSERT INTO given VALUES (?, ?)", rows)
            )
            assert lost(file) == ""
    assert lost(file) == ""


@pytest.mark.parametrize("log", ["gone", "cut", "sound"])
def test_what_can_be_made_anew_is_set_aside_where_its_log_is_lost(killed, log):
    file, beside = killed / "platform.db", killed / "platform.db-wal"
    if log == "gone":
        beside.unlink()
    elif log == "cut":
        os.truncate(beside, beside.stat().st_size - 4096)
    wrong = set_aside(file)
    assert bool(wrong) == (log != "sound")
    assert wrong.startswith(f"{beside} is" if wrong else "")
    parts = {one.name for one in killed.iterdir() if one.name.startswith("platform.db")}
    if log == "sound":
        assert given(file) == GIVEN
    else:
        kept = {"platform.db.damaged", "platform.db.damaged-shm", "platform.db.damaged-wal"}
        assert parts == (kept if log == "cut" else kept - {"platform.db.damaged-wal"})
