"""PgBouncer in transaction mode before the server: `url` names it, `direct_url` the server itself."""

import asyncio

import pytest
from execution_support import TESTER, core, worker
from hivemesh_platform.execution.runs.engine import DbosEngine
from hivemesh_platform.storage import opening
from hivemesh_platform.storage.errors import DatabaseUnreachableError
from hivemesh_platform.storage.examination import examine
from hivemesh_sdk.contracts.api import JobRequest
from pgbouncer import pgbouncer
from storage_support import ADDRESS, DIRECT, TEMPLATE, opened_in, place_in

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def pooler(postgres_server):
    with pgbouncer(postgres_server) as found:
        yield found


@pytest.fixture
def folder(pooler, postgres_server, tmp_path):
    """A state folder whose settings name the pooler and the server."""
    database = postgres_server.new_database(TEMPLATE)
    (tmp_path / ADDRESS).write_text(pooler.address(database))
    (tmp_path / DIRECT).write_text(postgres_server.address(database))
    return tmp_path


async def test_transactions_of_all_writers_share_the_connections_of_the_pooler(folder):
    async with opened_in(folder) as database:
        await database.write(lambda tx: tx.execute("CREATE TABLE counter (n BIGINT)"))
        await database.write(lambda tx: tx.execute("INSERT INTO counter VALUES (0)"))
        add = lambda tx: tx.execute("UPDATE counter SET n = n + 1")  # noqa: E731 - one statement
        read = lambda tx: tx.one("SELECT n FROM counter")  # noqa: E731 - as above
        await asyncio.gather(*(database.write(add) for _ in range(60)))
        found = await asyncio.gather(*(database.read(read) for _ in range(20)))
    assert {row["n"] for row in found} == {60}


async def test_what_is_told_through_the_pooler_is_heard_past_it(folder):
    heard = []
    async with opened_in(folder) as database, asyncio.timeout(90):
        async for text in database.notices():
            if text == "":
                await database.notify("hello")
            heard.append(text)
            if text == "hello":
                break
    assert heard[-1] == "hello"


async def test_nothing_of_a_session_stays_behind_in_the_pooler(folder, postgres_server):
    async with opened_in(folder) as database:
        await database.write(lambda tx: tx.execute("CREATE TABLE counter (n BIGINT)"))
        prepared = await database.read(lambda tx: tx.all("SELECT name FROM pg_prepared_statements"))
        setting = await database.read(
            lambda tx: tx.one("SELECT current_setting('idle_in_transaction_session_timeout') AS t")
        )
    assert (prepared, setting["t"]) == ([], "0")


async def test_runs_and_jobs_are_done_through_the_pooler(folder):
    def engine(steps):
        return DbosEngine(place_in(folder).direct, "p1", steps)

    async with core(folder, worker(records=35), engine=engine) as platform:
        run = await platform.run()
        jobs = [
            await platform.execution.jobs.start(
                JobRequest(capability="test.echo@1", input=n), TESTER
            )
            for n in range(5)
        ]
        ended = [await platform.end(job.id) for job in jobs]
        assert run.state == "completed"
        assert [job.state for job in ended] == ["completed"] * 5
        assert await platform.output(run.id, "total") == str(2 * sum(range(35))).encode()


async def test_a_pooler_that_is_away_is_waited_for_and_doctor_says_so(folder):
    address = (folder / ADDRESS).read_text()
    (folder / ADDRESS).write_text(f"{address}9")
    where = place_in(folder)
    with pytest.raises(DatabaseUnreachableError):
        await opening.wait_until_reachable(where, 0.1)
    silent = [one for one in examine(where, 4) if "pooler" in one.check]
    assert [(one.verdict, "pooler" in one.fix) for one in silent] == [("failure", True)]
    (folder / ADDRESS).write_text(address)
    await opening.wait_until_reachable(place_in(folder), 60)
    silent = [one for one in examine(place_in(folder), 4) if "pooler" in one.check]
    assert [one.verdict for one in silent] == ["ok"]
