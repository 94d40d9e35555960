"""Transactions that are whole or nothing, and shared commits that stay apart."""

import asyncio
import sqlite3
import threading
from functools import partial
from typing import ClassVar

import pytest
from hivemesh_platform.storage.errors import StorageError, StorageFullError
from hivemesh_platform.storage.sqlite import SqliteDatabase
from hivemesh_sdk.errors import InvalidError
from sqlalchemy import Column, Integer, MetaData, Table
from storage_support import DIALECTS, open_prepared

NUMBERS = Table("numbers", MetaData(), Column("n", Integer, primary_key=True))


@pytest.fixture
async def sqlite(tmp_path):
    async with SqliteDatabase(tmp_path / "test.db") as opened:
        await opened.write(create)
        yield opened


@pytest.fixture(params=DIALECTS)
async def database(request, tmp_path):
    """Of both kinds."""
    if request.param == "sqlite":
        made = SqliteDatabase(tmp_path / "test.db")
    else:
        made = open_prepared(request, tmp_path)
    async with made as opened:
        await opened.write(create)
        yield opened


def create(tx):
    tx.execute("CREATE TABLE numbers (n INTEGER PRIMARY KEY)")


def add(number):
    return lambda tx: tx.execute("INSERT INTO numbers VALUES (?)", (number,))


async def numbers(database):
    return [
        row["n"]
        for row in await database.read(lambda tx: tx.all("SELECT n FROM numbers ORDER BY n"))
    ]


async def test_what_was_written_is_read(database):
    await database.write(add(1))
    assert await numbers(database) == [1]


async def test_several_questions_have_an_answer_each(database):
    for number in (1, 2, 3):
        await database.write(add(number))

    def ask(tx):
        tx.send("UPDATE numbers SET n = n + 10 WHERE n = 3")
        some = "SELECT n FROM numbers WHERE n > ? ORDER BY n"
        found = tx.each((some, (1,)), (some, (99,)), ("SELECT max(n) AS most FROM numbers", ()))
        return [[tuple(row) for row in rows] for rows in found]

    expected = [[(2,), (13,)], [], [(13,)]]
    assert await database.write(ask) == expected
    await database.write(lambda tx: tx.send("UPDATE numbers SET n = 3 WHERE n = 13"))
    assert await database.write(ask) == expected


async def test_a_refused_question_takes_the_transaction_back(database):
    def ask(tx):
        add(1)(tx)
        tx.each(("SELECT 1", ()), ("SELECT nothing FROM numbers", ()), ("SELECT 2", ()))

    with pytest.raises(StorageError):
        await database.write(ask)
    assert await numbers(database) == []
    await database.write(add(2))
    assert await numbers(database) == [2]


async def test_a_number_that_no_column_holds_is_bad_input(database):
    with pytest.raises(InvalidError, match="too large"):
        await database.write(add(2**70))
    assert await numbers(database) == []


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


async def test_writes_happen_in_the_order_in_which_they_were_asked_for(sqlite):
    seen = []
    await asyncio.gather(*(sqlite.write(lambda _, n=n: seen.append(n)) for n in range(50)))
    assert seen == list(range(50))


async def test_a_reader_cannot_write(database):
    with pytest.raises(Exception, match=r"read.?only"):
        await database.read(add(1))
    assert await numbers(database) == []


async def test_a_broken_statement_is_our_error(database):
    with pytest.raises(StorageError, match="missing"):
        await database.write(lambda tx: tx.execute("INSERT INTO missing VALUES (1)"))


async def test_a_full_disk_refuses_and_recovers_by_itself(sqlite):
    def limit(pages):
        return lambda tx: tx.one(f"PRAGMA max_page_count = {pages}")

    def fill(tx):
        tx.execute("CREATE TABLE big (b BLOB)")
        tx.execute("INSERT INTO big VALUES (zeroblob(1000000))")

    await sqlite.write(add(1))
    await sqlite.write(limit(20))
    with pytest.raises(StorageFullError):
        await sqlite.write(fill)
    await sqlite.write(limit(100_000))
    await sqlite.write(fill)
    assert await numbers(sqlite) == [1]


async def test_a_full_disk_fails_only_the_write_that_needs_the_space(sqlite):
    await sqlite.write(lambda tx: tx.execute("CREATE TABLE big (b BLOB)"))
    await sqlite.write(lambda tx: tx.one("PRAGMA max_page_count = 20"))

    def fill(tx):
        tx.execute("INSERT INTO big VALUES (zeroblob(1000000))")

    futures = [sqlite.write(fill if n == 5 else add(n)) for n in range(10)]
    outcomes = await asyncio.gather(*futures, return_exceptions=True)
    assert [isinstance(one, StorageFullError) for one in outcomes] == [n == 5 for n in range(10)]
    assert await numbers(sqlite) == [n for n in range(10) if n != 5]


async def test_every_commit_is_synced(sqlite):
    pragmas = await sqlite.write(
        lambda tx: (
            tx.one("PRAGMA journal_mode")["journal_mode"],
            tx.one("PRAGMA synchronous")["synchronous"],
        )
    )
    assert pragmas == ("wal", 2)


async def test_the_file_belongs_to_its_owner_alone(tmp_path, sqlite):
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


async def test_rows_are_read_by_name_and_by_place(database):
    row = await database.read(lambda tx: tx.one("SELECT 7 AS n, 'a' AS t, NULL AS x, 1.5 AS f"))
    assert (row["n"], row[1], row["x"], row["f"]) == (7, "a", None, 1.5)
    assert (tuple(row), list(row.keys())) == ((7, "a", None, 1.5), ["n", "t", "x", "f"])


async def test_a_sum_is_an_integer_and_truth_is_too(database):
    await asyncio.gather(*(database.write(add(n)) for n in (1, 2)))
    row = await database.read(lambda tx: tx.one("SELECT sum(n) AS s, max(n) > 1 AS b FROM numbers"))
    assert (row["s"], row["b"]) == (3, 1)


async def test_named_parameters_stand_where_they_are_named(database):
    sql = "SELECT :a || ':b' || :c || :a AS text"
    row = await database.read(lambda tx: tx.one(sql, {"a": "x", "c": "y?"}))
    assert row["text"] == "x:by?x"


@pytest.mark.parametrize("text", ["plain", "ünïcode 🐝", "quote ' and \\ slash", ""])
async def test_text_comes_back_as_it_was(database, text):
    await database.write(lambda tx: tx.execute("CREATE TABLE texts (t TEXT)"))
    await database.write(lambda tx: tx.execute("INSERT INTO texts VALUES (?)", (text,)))
    rows = await database.read(lambda tx: tx.all("SELECT t FROM texts WHERE t = ?", (text,)))
    assert [row["t"] for row in rows] == [text]


@pytest.mark.parametrize(
    ("pattern", "found"), [("a*", {"a%b", "a_b", "axb"}), ("a%b", {"a%b"}), ("*_b", {"a_b"})]
)
async def test_only_the_star_of_a_pattern_is_special(database, pattern, found):
    def work(tx):
        tx.execute("CREATE TABLE texts (t TEXT)")
        tx.execute_many("INSERT INTO texts VALUES (?)", [("a%b",), ("a_b",), ("axb",), ("A",)])
        condition, value = tx.matching("t", pattern)
        sql = f"SELECT t FROM texts WHERE {condition}"  # noqa: S608 - a word of the dialect
        return tx.all(sql, (value,))

    assert {row["t"] for row in await database.write(work)} == found


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 200])
async def test_a_statement_on_many_rows_takes_each_of_them_once(database, count):
    sql = """WITH given (n, word) AS ({rows}) INSERT INTO many (n, t) SELECT n, word || ? FROM given"""

    def work(tx):
        tx.execute("CREATE TABLE many (n BIGINT, t TEXT)")
        tx.send_rows(sql, [(n, f"row {n}") for n in range(count)], ("!",))
        return tx.all("SELECT n, t FROM many ORDER BY n")

    rows = await database.write(work)
    assert [(row["n"], row["t"]) for row in rows] == [(n, f"row {n}!") for n in range(count)]


async def test_a_statement_on_many_rows_takes_values_of_every_kind_as_they_are(database):
    sql = "WITH given (a, b, c) AS ({rows}) INSERT INTO kinds (a, b, c) SELECT a, b, c FROM given"
    rows = [
        ('{"quoted": "\\\\", "and": [null, "NULL"]}', -(2**63), 0.1),
        ("", 2**63 - 1, -1e300),
        (None, None, None),
        ("zwölf ✓\n", 0, 2.0**40 + 0.03125),
    ]

    def work(tx):
        tx.execute("CREATE TABLE kinds (a TEXT, b BIGINT, c DOUBLE PRECISION)")
        tx.send_rows(sql, rows)
        return [tuple(row) for row in tx.all("SELECT a, b, c FROM kinds")]

    assert sorted(await database.write(work), key=str) == sorted(rows, key=str)


async def test_a_read_sees_one_moment(database):
    await database.write(add(1))
    loop, seen = asyncio.get_running_loop(), []

    def work(tx):
        before = tx.one("SELECT count(*) AS n FROM numbers")["n"]
        asyncio.run_coroutine_threadsafe(_write_and_wait(database), loop).result(10)
        seen.append((before, tx.one("SELECT count(*) AS n FROM numbers")["n"]))

    await database.read(work)
    assert seen == [(1, 1)]
    assert await numbers(database) == [1, 2]


async def _write_and_wait(database):
    await database.write(add(2))


class Failing(sqlite3.Connection):
    """Cannot do, once each, what its `broken` names."""

    broken: ClassVar[list[str]] = []

    def execute(self, sql, parameters=()):
        if sql in self.broken:
            self.broken.remove(sql)
            raise sqlite3.OperationalError("disk I/O error")
        return super().execute(sql, parameters)


@pytest.fixture
async def failing(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Failing))
    async with SqliteDatabase(tmp_path / "test.db") as opened:
        await opened.write(create)
        yield opened
    Failing.broken.clear()


def refuse(tx):
    add(1)(tx)
    raise ValueError("no")


async def test_a_transaction_that_cannot_be_rolled_back_ends_with_its_connection(failing):
    Failing.broken.append("ROLLBACK")
    with pytest.raises(StorageError):
        await failing.write(refuse)
    await failing.write(add(2))
    assert await numbers(failing) == [2]


async def test_all_that_shared_a_commit_are_told_that_it_cannot_be_rolled_back(failing):
    began, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def hold(_tx):
        loop.call_soon_threadsafe(began.set)
        go_on.wait(30)

    first = failing.write(hold)
    await began.wait()
    together = [failing.write(add(number)) for number in (1, 2, 3)]
    Failing.broken += ["RELEASE one", "ROLLBACK"]
    go_on.set()
    await first
    answers = await asyncio.gather(*together, return_exceptions=True)
    assert [type(one) for one in answers] == [StorageError] * 3
    assert await numbers(failing) == []
    await failing.write(add(4))
    assert await numbers(failing) == [4]


async def test_a_database_that_cannot_be_opened_again_refuses_until_it_can(failing):
    Failing.broken += ["ROLLBACK", "PRAGMA synchronous=FULL"]
    with pytest.raises(StorageError):
        await failing.write(refuse)
    with pytest.raises(StorageError):
        await failing.write(add(2))
    await failing.write(add(3))
    assert await numbers(failing) == [3]
