"""An optional map that nobody serves hands on also what a limit has parked."""

import pytest
from hivemesh_platform.execution.ledger import limit_sql, store
from hivemesh_platform.execution.ledger.limit_rules import Limit
from hivemesh_platform.execution.ledger.port import Failure, Finished, Placed
from hivemesh_platform.execution.ledger.row_sql import SqlLedger
from hivemesh_platform.execution.model import AttemptOutcome, Fence
from hivemesh_platform.knowledge.service import DatasetWriter
from ledger_conformance import DOUBLE, LOST, NOW, READ, batch, new_run, node, recorded

LEDGER = SqlLedger(DatasetWriter())
KEY = "default/k"


@pytest.fixture
async def parked(database):
    """A run whose map has three batches, of which a limit lets one run; its worker is lost."""
    read = node("read", READ, "source")
    double = node("double", DOUBLE, "map", "read", optional=True, limit_key=KEY)
    await database.write(lambda tx: LEDGER.add_run(tx, new_run(nodes=[read, double]), NOW))
    for name in ("read", "double"):
        await database.write(lambda tx, name=name: LEDGER.activate(tx, "run_1", name, "{}", NOW))
    await database.write(lambda tx: limit_sql.put(tx, Limit("key", KEY, 1, None, "a"), NOW))
    [source] = await database.write(lambda tx: LEDGER.claim(tx, READ, 1, NOW))
    page = recorded(batch(1), batch(2), batch(3))
    await database.write(lambda tx: LEDGER.record(tx, source.key, source.fence, page, NOW))
    end = Finished(output="null")
    await database.write(lambda tx: LEDGER.finish(tx, source.key, source.fence, end, NOW))
    [one] = await database.write(lambda tx: LEDGER.claim(tx, DOUBLE, 3, NOW))
    lost = Failure(LOST, AttemptOutcome.LOST, 0)
    await database.write(lambda tx: LEDGER.retry(tx, one.key, one.fence, lost, NOW))
    return one


async def test_parked_rows_are_handed_on_and_the_run_ends(database, parked):
    await database.write(lambda tx: LEDGER.left_out(tx, "run_1", "double", "nobody", NOW))
    row = await database.read(lambda tx: store.run(tx, "run_1"))
    assert row["state"] == "partial"
    rows = await database.read(lambda tx: tx.all("SELECT state FROM work WHERE kind = 'map'"))
    assert {row["state"] for row in rows} == {"skipped"}


async def test_a_row_that_is_lost_after_its_step_was_left_out_is_handed_on_too(database, parked):
    [again] = await database.write(lambda tx: LEDGER.claim(tx, DOUBLE, 1, NOW))
    await database.write(lambda tx: LEDGER.left_out(tx, "run_1", "double", "nobody", NOW))
    lost = Failure(LOST, AttemptOutcome.LOST, 0)
    await database.write(lambda tx: LEDGER.retry(tx, again.key, again.fence, lost, NOW))
    [found] = await database.read(store.optional_waiting)
    await database.write(lambda tx: LEDGER.left_out(tx, "run_1", found["name"], "nobody", NOW))
    row = await database.read(lambda tx: store.run(tx, "run_1"))
    assert row["state"] == "partial"


async def test_a_step_with_parked_rows_alone_is_looked_at(database, parked):
    await database.write(
        lambda tx: tx.execute("UPDATE work SET state = 'waiting' WHERE state = 'queued'")
    )
    found = await database.read(store.optional_waiting)
    assert [row["name"] for row in found] == ["double"]


async def test_a_late_release_takes_no_attempt_away_with_which_others_go_on(database, parked):
    [again] = await database.write(lambda tx: LEDGER.claim(tx, DOUBLE, 1, NOW))
    placed = Placed(instance="w2", identity="w2", worker="w 1", explanation="{}", endpoint="")
    await database.write(lambda tx: LEDGER.placed(tx, again.key, again.fence, placed, NOW))
    await database.write(
        lambda tx: LEDGER.release(tx, again.key, Fence(again.fence.attempt, 0), "late", 0)
    )
    known = await database.read(
        lambda tx: tx.all(
            "SELECT 1 FROM attempt WHERE seq = ? AND attempt = ?",
            (again.key.seq, again.fence.attempt),
        )
    )
    assert len(known) == 1
