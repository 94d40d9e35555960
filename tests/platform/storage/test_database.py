"""The one writer: transactions that are whole or nothing, and shared commits that stay apart."""

import asyncio
import sqlite3

import pytest
from hivemesh_platform.storage.errors import StorageError, StorageFullError
from hivemesh_platform.storage.sqlite import SqliteDatabase
from sqlalchemy import Column, Integer, MetaData, Table

NUMBERS = Table("numbers", MetaData(), Column("n", Integer, primary_key=True))


@pytest.fixture
async def database(tmp_path):
    async with SqliteDatabase(tmp_path / "test.db") as opened:
        await opened.write(lambda tx: tx.execute("CREATE TABLE numbers (n INTEGER PRIMARY KEY)"))
        yield opened


def add(number):
    return lambda tx: tx.execute("INSERT INTO numbers VALUES (?)", (number,))


async def numbers(database):
    return [row["n"] for row in await database.read(lambda tx: tx.all("SELECT n FROM numbers"))]


async def test_what_was_written_is_read(database):
    await database.write(add(1))
    assert await numbers(database) == [1]


async def test_an_error_takes_the_whole_transaction_back(database):
    def work(tx):
        add(1)(tx)
        message = "no"
        raise ValueError(message)

    with pytest.raises(ValueError, match="no"):
        await database.write(work)
    assert await numbers(database) == []


async def test_a_failing_write_leaves_the_others_of_its_group_alone(database):
    def fail(tx):
        add(1000)(tx)
        message = "no"
        raise ValueError(message)

    futures = [database.write(fail if n % 10 == 3 else add(n)) for n in range(100)]
    outcomes = await asyncio.gather(*futures, return_exceptions=True)
    assert sum(isinstance(one, ValueError) for one in outcomes) == 10
    assert await numbers(database) == [n for n in range(100) if n % 10 != 3]


async def test_writes_happen_in_the_order_in_which_they_were_asked_for(database):
    seen = []
    await asyncio.gather(*(database.write(lambda _, n=n: seen.append(n)) for n in range(50)))
    assert seen == list(range(50))


async def test_a_reader_cannot_write(database):
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await database.read(add(1))


async def test_a_broken_statement_is_our_error(database):
    with pytest.raises(StorageError, match="no such table"):
        await database.write(lambda tx: tx.execute("INSERT INTO missing VALUES (1)"))


async def test_a_full_disk_refuses_and_recovers_by_itself(database):
    def limit(pages):
        return lambda tx: tx.one(f"PRAGMA max_page_count = {pages}")

    def fill(tx):
        tx.execute("CREATE TABLE big (b BLOB)")
        tx.execute("INSERT INTO big VALUES (zeroblob(1000000))")

    await database.write(add(1))
    await database.write(limit(20))
    with pytest.raises(StorageFullError):
        await database.write(fill)
    await database.write(limit(100_000))
    await database.write(fill)
    assert await numbers(database) == [1]


async def test_a_full_disk_fails_only_the_write_that_needs_the_space(database):
    await database.write(lambda tx: tx.execute("CREATE TABLE big (b BLOB)"))
    await database.write(lambda tx: tx.one("PRAGMA max_page_count = 20"))

    def fill(tx):
        tx.execute("INSERT INTO big VALUES (zeroblob(1000000))")

    futures = [database.write(fill if n == 5 else add(n)) for n in range(10)]
    outcomes = await asyncio.gather(*futures, return_exceptions=True)
    assert [isinstance(one, StorageFullError) for one in outcomes] == [n == 5 for n in range(10)]
    assert await numbers(database) == [n for n in range(10) if n != 5]


async def test_every_commit_is_synced(database):
    pragmas = await database.write(
        lambda tx: (
            tx.one("PRAGMA journal_mode")["journal_mode"],
            tx.one("PRAGMA synchronous")["synchronous"],
        )
    )
    assert pragmas == ("wal", 2)


async def test_the_file_belongs_to_its_owner_alone(tmp_path, database):
    assert (tmp_path / "test.db").stat().st_mode & 0o077 == 0


async def test_a_closed_database_refuses(tmp_path):
    async with SqliteDatabase(tmp_path / "test.db") as database:
        pass
    with pytest.raises(StorageError, match="not open"):
        await database.write(add(1))


async def test_a_path_that_cannot_be_opened_is_our_error(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError):
        async with SqliteDatabase(tmp_path / "folder"):
            pass
