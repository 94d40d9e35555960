"""The ledger in SQL keeps what every ledger keeps, on both kinds of database."""

import asyncio

import psycopg
import pytest
from failure_conformance import BY, FailureConformance
from hivemesh_platform.execution.ledger.row_sql import SqlLedger
from ledger_conformance import NOW, PLACED, LedgerConformance, batch, recorded
from storage_support import settings_in

DOUBLE = "test.double@1"


def other_connection(folder, **options):
    url = settings_in(folder).url.get_secret_value()
    return psycopg.AsyncConnection.connect(url, **options)


async def until_it_waits(task, folder):
    """Return when a transaction waits for another one's lock."""
    async with asyncio.timeout(20), await other_connection(folder, autocommit=True) as looking:
        waits = "SELECT 1 FROM pg_locks WHERE NOT granted"
        while await (await looking.execute(waits)).fetchone() is None:
            assert not task.done()


class Parts:
    """A `DatasetParts` that only remembers."""

    def __init__(self):
        self.added = []

    def add_parts(self, tx, name, version, parts, tenant="default"):
        self.added += [(name, version, seq, batch.sha256) for seq, batch in parts]

    def clear(self, tx, name, version, tenant="default"):
        self.added[:] = [one for one in self.added if one[:2] != (name, version)]

    def close(self, tx, name, version, state, tenant="default"):
        return 0, 0


class TestSqlLedger(LedgerConformance, FailureConformance):
    @pytest.fixture
    async def datasets(self):
        return Parts()

    @pytest.fixture
    async def parts(self, datasets):
        return datasets.added

    @pytest.fixture
    async def ledger(self, datasets):
        return SqlLedger(datasets)

    @pytest.fixture
    async def write(self, database):
        return database.write

    @pytest.mark.parametrize("database", ["sqlite"], indirect=True)
    async def test_claiming_uses_the_index(self, database, ledger):
        plan = await database.read(
            lambda tx: tx.all(
                """EXPLAIN QUERY PLAN SELECT rowid FROM work
                    WHERE state = 'queued' AND capability = 'x' AND not_before <= 1
                    ORDER BY rank LIMIT 1"""
            )
        )
        assert "work_claimable" in plan[0]["detail"]
        assert "TEMP B-TREE" not in " ".join(row["detail"] for row in plan)

    @pytest.mark.parametrize("database", ["postgresql"], indirect=True)
    async def test_an_attempt_placed_while_its_row_is_cancelled_is_cancelled(
        self, database, ledger, write, run, tmp_path
    ):
        page = recorded(batch(1))
        await write(lambda tx: ledger.record(tx, run.key, run.fence, page, NOW))
        [claim] = await write(lambda tx: ledger.claim(tx, DOUBLE, 10, NOW))
        async with await other_connection(tmp_path) as other:
            await other.execute(
                "UPDATE work SET state = 'cancelled', ended_at = 7 WHERE node = 'double'"
            )
            placing = asyncio.ensure_future(
                write(lambda tx: ledger.placed(tx, claim.key, claim.fence, PLACED, NOW))
            )
            await until_it_waits(placing, tmp_path)
        await placing
        query = "SELECT ended_at, outcome FROM attempt WHERE node = 'double'"
        assert tuple(await write(lambda tx: tuple(tx.one(query)))) == (7, "cancelled")

    @pytest.mark.parametrize("database", ["postgresql"], indirect=True)
    async def test_a_step_is_done_afresh_once_its_attempt_is_placed(
        self, database, ledger, write, run, tmp_path
    ):
        page = recorded(batch(1))
        await write(lambda tx: ledger.record(tx, run.key, run.fence, page, NOW))
        await write(lambda tx: ledger.claim(tx, DOUBLE, 10, NOW))
        async with await other_connection(tmp_path) as other:
            await other.execute("UPDATE work SET instance = 'w1' WHERE node = 'double'")
            retrying = asyncio.ensure_future(
                write(lambda tx: ledger.run_again(tx, "run_1", "double", BY, NOW))
            )
            await until_it_waits(retrying, tmp_path)
            await other.execute("SET lock_timeout = 500")
            await other.execute(
                """INSERT INTO attempt (run, node, seq, attempt, instance, started_at)
                   VALUES ('run_1', 'double', 1, 1, 'w1', 1)"""
            )
        await retrying
        query = "SELECT ended_at, outcome FROM attempt WHERE node = 'double'"
        assert tuple(await write(lambda tx: tuple(tx.one(query)))) == (NOW, "cancelled")
