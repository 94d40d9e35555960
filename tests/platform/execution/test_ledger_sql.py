"""The ledger in SQL keeps what every ledger keeps, on both kinds of database."""

import pytest
from failure_conformance import FailureConformance
from hivemesh_platform.execution.ledger.row_sql import SqlLedger
from ledger_conformance import LedgerConformance


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
