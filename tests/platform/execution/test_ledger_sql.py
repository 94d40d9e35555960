"""The ledger in SQL keeps what every ledger keeps, on both kinds of database."""

import asyncio

import psycopg
import pytest
from failure_conformance import FailureConformance
from hivemesh_platform.execution.ledger.row_sql import SqlLedger
from ledger_conformance import NOW, PLACED, LedgerConformance, batch, recorded
from storage_support import settings_in

DOUBLE = "test.double@1"


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
        url = settings_in(tmp_path).url.get_secret_value()
        async with await psycopg.AsyncConnection.connect(url) as other:
            await other.execute(
                "UPDATE work SET state = 'cancelled', ended_at = 7 WHERE node = 'double'"
            )
            placing = asyncio.ensure_future(
                write(lambda tx: ledger.placed(tx, claim.key, claim.fence, PLACED, NOW))
            )
            async with (
                asyncio.timeout(20),
                await psycopg.AsyncConnection.connect(url, autocommit=True) as looking,
            ):
                waits = "SELECT 1 FROM pg_locks WHERE NOT granted"
                while await (await looking.execute(waits)).fetchone() is None:
                    assert not placing.done()
        await placing
        query = "SELECT ended_at, outcome FROM attempt WHERE node = 'double'"
        assert tuple(await write(lambda tx: tuple(tx.one(query)))) == (7, "cancelled")
