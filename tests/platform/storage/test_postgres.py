"""PostgreSQL: transactions side by side, a server that comes and goes, and what is refused."""

import asyncio
import threading
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from hivemesh_platform.execution.ledger.graph_sql import lock_run
from hivemesh_platform.execution.ledger.row_sql import SqlLedger
from hivemesh_platform.knowledge.service import DatasetWriter
from hivemesh_platform.settings import DatabaseSettings
from hivemesh_platform.storage import migrate, opening
from hivemesh_platform.storage.database import PATIENCE_S, PATIENT_UNTIL
from hivemesh_platform.storage.errors import (
    DatabaseUnreachableError,
    DatabaseUnsuitableError,
    StateIncompatibleError,
    StorageError,
)
from hivemesh_platform.storage.server import server
from hivemesh_platform.storage.wire import Wire
from ledger_conformance import new_run
from postgres import postgres
from storage_support import TEMPLATE, make_template, open_prepared, settings_of


@pytest.fixture(params=["postgresql"])
async def database(request, tmp_path):
    async with open_prepared(request, tmp_path) as opened:
        await opened.write(
            lambda tx: tx.execute("CREATE TABLE counter (id TEXT PRIMARY KEY, n BIGINT)")
        )
        await opened.write(lambda tx: tx.execute("INSERT INTO counter VALUES ('a', 0)"))
        yield opened


@pytest.fixture(scope="module")
def killable():
    """A server of its own for those who kill it."""
    with postgres(options="") as found:
        make_template(found)
        yield found


def place(found, name):
    return opening.place_of(settings_of(found, name), Path())


async def value(database):
    row = await database.read(lambda tx: tx.one("SELECT n FROM counter WHERE id = 'a'"))
    return row["n"]


def add_one(tx):
    sql = "SELECT n FROM counter WHERE id = 'a'" + tx.for_update  # noqa: S608 - a word
    n = tx.one(sql)["n"]
    tx.send("UPDATE counter SET n = ? WHERE id = 'a'", (n + 1,))


def add_one_unlocked(tx):
    n = tx.one("SELECT n FROM counter WHERE id = 'a'")["n"]
    tx.send("UPDATE counter SET n = ? WHERE id = 'a'", (n + 1,))


async def test_what_is_locked_is_counted_right_by_all_writers(database):
    await asyncio.gather(*(database.write(add_one) for _ in range(50)))
    assert await value(database) == 50


async def test_who_runs_alone_needs_no_lock(database):
    await asyncio.gather(*(database.write(add_one_unlocked, alone=True) for _ in range(20)))
    assert await value(database) == 20


async def test_two_that_wait_for_each_other_both_end(database):
    await database.write(lambda tx: tx.execute("INSERT INTO counter VALUES ('b', 0)"))
    both = threading.Barrier(2)
    met = []

    def crossing(first, second):
        def work(tx):
            tx.execute("UPDATE counter SET n = n + 1 WHERE id = ?", (first,))
            if first not in met:
                met.append(first)
                both.wait(60)
            tx.execute("UPDATE counter SET n = n + 1 WHERE id = ?", (second,))

        return work

    await asyncio.gather(database.write(crossing("a", "b")), database.write(crossing("b", "a")))
    assert await value(database) == 2
    assert database.repeated["deadlock"] >= 1


async def test_a_second_insert_of_a_key_is_run_again_and_then_refused(database):
    runs = []

    def work(tx):
        runs.append(1)
        tx.send("INSERT INTO counter VALUES ('a', 1)")

    with pytest.raises(StorageError, match="duplicate key"):
        await database.write(work)
    assert len(runs) == 4


async def test_a_column_that_is_added_meanwhile_stops_nobody(database):
    def everything(tx):
        return dict(tx.one("SELECT * FROM counter WHERE id = 'a'"))

    async def by_all():
        works = (database.read, database.write)
        return await asyncio.gather(*(work(everything) for work in works for _ in range(20)))

    await by_all()
    await database.write(lambda tx: tx.execute("ALTER TABLE counter ADD COLUMN more TEXT"))
    assert {len(row) for row in await by_all()} == {3}
    assert database.repeated["schema"]


async def test_an_error_that_the_work_hides_keeps_nothing_of_it(database):
    def work(tx):
        add_one(tx)
        with suppress(psycopg.Error):
            tx.execute("INSERT INTO missing VALUES (1)")

    with pytest.raises(StorageError):
        await database.write(work)
    assert await value(database) == 0
    await database.write(add_one)
    assert await value(database) == 1


async def test_a_nul_in_a_text_is_kept_as_a_sign(database):
    await database.write(lambda tx: tx.execute("INSERT INTO counter VALUES (?, 1)", ("x\0y",)))
    rows = await database.read(lambda tx: tx.all("SELECT id FROM counter WHERE n = 1"))
    assert [row["id"] for row in rows] == ["x\ufffdy"]


async def test_locking_a_run_keeps_others_out_of_it(database):
    await database.write(lambda tx: SqlLedger(DatasetWriter()).add_run(tx, new_run(), 1))
    order, inside = [], threading.Event()

    def first(tx):
        lock_run(tx, "run_1")
        tx.one("SELECT 1")
        inside.set()
        threading.Event().wait(0.1)
        order.append("first")

    def second(tx):
        inside.wait(10)
        lock_run(tx, "run_1")
        tx.one("SELECT 1")
        order.append("second")

    await asyncio.gather(database.write(first), database.write(second))
    assert order == ["first", "second"]


async def test_all_processes_hear_what_one_tells(database, postgres_server):
    heard = asyncio.Event()

    async def listen():
        async for text in database.notices():
            if text == "":
                await database.notify("hello")
            if text == "hello":
                heard.set()
                return

    async with asyncio.timeout(30):
        await listen()
    assert heard.is_set()


async def test_writes_wait_for_a_server_that_was_killed_and_count_once(killable):
    name = killable.new_database(TEMPLATE)
    settings = settings_of(killable, name)
    async with opening.open_database(settings, place(killable, name)) as database:
        await database.write(lambda tx: tx.execute("CREATE TABLE counter (id TEXT, n BIGINT)"))
        await database.write(lambda tx: tx.execute("INSERT INTO counter VALUES ('a', 0)"))
        acknowledged = 0

        async def writing(rounds):
            nonlocal acknowledged
            for _ in range(rounds):
                await database.write(add_one)
                acknowledged += 1

        tasks = [asyncio.create_task(writing(150)) for _ in range(4)]
        for part in (60, 240):
            while acknowledged < part:  # noqa: ASYNC110 - a number of another task
                await asyncio.sleep(0.001)
            await asyncio.to_thread(killable.kill)
            await asyncio.to_thread(killable.start)
        await asyncio.gather(*tasks)
        assert acknowledged == 600
        assert await value(database) == 600


async def test_a_commit_that_nobody_answered_is_not_run_again(killable, monkeypatch):
    """The server commits and the connection ends before it can say so."""
    name = killable.new_database(TEMPLATE)
    settings = settings_of(killable, name).model_copy(update={"connections": 1})
    async with opening.open_database(settings, place(killable, name)) as database:
        await database.write(lambda tx: tx.execute("CREATE TABLE counter (id TEXT, n BIGINT)"))
        await database.write(lambda tx: tx.execute("INSERT INTO counter VALUES ('a', 0)"))
        commit, lost = Wire.commit, []

        def commit_and_lose(wire):
            done = commit(wire)
            if not lost:
                lost.append(wire)
                wire.close()
                raise psycopg.OperationalError("the connection is lost")
            return done

        monkeypatch.setattr(Wire, "commit", commit_and_lose)
        await database.write(add_one)
        assert lost
        assert await value(database) == 1


async def test_a_commit_that_never_arrived_is_run_again(killable, monkeypatch):
    name = killable.new_database(TEMPLATE)
    settings = settings_of(killable, name).model_copy(update={"connections": 1})
    async with opening.open_database(settings, place(killable, name)) as database:
        await database.write(lambda tx: tx.execute("CREATE TABLE counter (id TEXT, n BIGINT)"))
        await database.write(lambda tx: tx.execute("INSERT INTO counter VALUES ('a', 0)"))
        commit, lost = Wire.commit, []

        def lose(wire):
            if not lost:
                lost.append(wire)
                wire.close()
                raise psycopg.OperationalError("the connection is lost")
            return commit(wire)

        monkeypatch.setattr(Wire, "commit", lose)
        await database.write(add_one)
        assert lost
        assert await value(database) == 1


async def test_a_start_waits_for_the_server_and_then_says_so(tmp_path):
    absent = opening.place_of(DatabaseSettings(url=f"postgresql://u@/d?host={tmp_path}"), tmp_path)
    with pytest.raises(DatabaseUnreachableError, match=r"has not answered for 0\.1 s") as refused:
        await opening.wait_until_reachable(absent, 0.1)
    assert refused.value.problem().code == "HM-1311"


async def test_a_wrong_password_is_said_at_once(postgres_server, tmp_path):
    url = postgres_server.address().replace("root-password", "other")
    wrong = opening.place_of(DatabaseSettings(url=url), tmp_path)
    with pytest.raises(DatabaseUnsuitableError, match="refuses us") as refused:
        await opening.wait_until_reachable(wrong, 60)
    assert refused.value.problem().code == "HM-1312"
    assert "other" not in str(refused.value)


@pytest.mark.parametrize("mode", ["allow", "prefer", "require"])
def test_a_connection_that_nobody_checks_is_refused(mode):
    with pytest.raises(DatabaseUnsuitableError, match="nobody checks"):
        server(f"postgresql://u@db.internal/d?sslmode={mode}")


def test_a_host_is_verified_unless_the_address_says_otherwise():
    assert server("postgresql://u@db.internal/d").parameters["sslmode"] == "verify-full"
    assert server("postgresql://u@db.internal/d?sslmode=disable").parameters["sslmode"] == "disable"
    assert "sslmode" not in server("postgresql://u@/d?host=/run/postgresql").parameters


@pytest.mark.parametrize("url", ["postgresql://u@db.internal", "mysql://x/y", "nothing"])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(DatabaseUnsuitableError, match=r"database\.url"):
        server(url)


def test_an_address_shows_no_password():
    found = server("postgresql://u:secret@db.internal/d")
    assert "secret" not in f"{found} {found!r}"


async def test_a_database_with_another_encoding_is_refused(postgres_server, tmp_path):
    postgres_server.query(
        "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'",
        password="root-password",
    )
    settings = settings_of(postgres_server, "latin")
    where = opening.place_of(settings, tmp_path)
    await asyncio.to_thread(where.ensure_schema)
    with pytest.raises(DatabaseUnsuitableError, match="encoding"):
        async with opening.open_database(settings, where):
            pass


async def test_a_server_that_acknowledges_before_it_has_synced_is_refused(postgres_server):
    name = postgres_server.new_database(TEMPLATE)
    postgres_server.query(
        f"ALTER DATABASE {name} SET synchronous_commit = off", password="root-password"
    )
    with pytest.raises(DatabaseUnsuitableError, match="synchronous_commit is off") as refused:
        async with opening.open_database(
            settings_of(postgres_server, name), place(postgres_server, name)
        ):
            pass
    assert refused.value.problem().code == "HM-1312"


def test_two_that_make_the_schema_at_once_both_find_it(postgres_server):
    where = place(postgres_server, postgres_server.new_database())
    failed = []

    def make():
        try:
            where.ensure_schema()
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=make) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert migrate.schema_version(where.schema) == migrate.HEAD


def test_a_schema_of_the_first_version_is_refused_and_upgraded(postgres_server, monkeypatch):
    where = place(postgres_server, postgres_server.new_database())
    migrate.run_migrations(where.schema, "0008")
    with pytest.raises(StateIncompatibleError, match="0008"):
        where.ensure_schema()
    assert migrate.upgrade(where.schema) == ("0008", migrate.HEAD)
    where.ensure_schema()


def test_a_database_of_others_is_refused(postgres_server):
    name = postgres_server.new_database()
    where = place(postgres_server, name)
    with where.direct.connect() as connection:
        connection.execute("CREATE TABLE theirs (a int)")
    with pytest.raises(StateIncompatibleError, match="tables of others"):
        where.ensure_schema()


async def test_who_ends_waits_for_a_server_that_is_away_but_once(killable):
    """From the moment on each write has half a second, and those that the server takes still count."""
    name = killable.new_database(TEMPLATE)
    settings = settings_of(killable, name)
    async with opening.open_database(settings, place(killable, name)) as database:
        token = PATIENT_UNTIL.set(0.0)
        try:
            await database.write(lambda tx: tx.execute("CREATE TABLE counter (id TEXT, n BIGINT)"))
            await asyncio.to_thread(killable.kill)
            for _ in range(2):
                with pytest.raises(DatabaseUnreachableError):
                    await database.write(add_one)
        finally:
            PATIENT_UNTIL.reset(token)
            await asyncio.to_thread(killable.start)


async def test_who_asks_is_answered_while_the_server_is_away_and_the_platform_waits(killable):
    name = killable.new_database(TEMPLATE)
    settings = settings_of(killable, name)
    async with opening.open_database(settings, place(killable, name)) as database:
        await database.write(lambda tx: tx.execute("CREATE TABLE counter (id TEXT, n BIGINT)"))
        await database.write(lambda tx: tx.execute("INSERT INTO counter VALUES ('a', 0)"))
        await asyncio.to_thread(killable.kill)
        patient = [asyncio.ensure_future(database.write(add_one)) for _ in range(9)]
        reading = asyncio.create_task(value(database))
        token = PATIENCE_S.set(0.2)
        with pytest.raises(DatabaseUnreachableError) as refused:
            await database.write(add_one)
        assert refused.value.problem().status == 503
        with pytest.raises(DatabaseUnreachableError):
            await value(database)
        PATIENCE_S.reset(token)
        assert not any(one.done() for one in (*patient, reading))
        await asyncio.to_thread(killable.start)
        await asyncio.gather(*patient, reading)
        assert await value(database) == 9
