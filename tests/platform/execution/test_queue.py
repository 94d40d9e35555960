"""The queue on both kinds of database: order, fair shares, limits, and what it costs to find the next row."""

import pytest
from hivemesh_platform.execution.ledger import claim_sql, limit_sql
from hivemesh_platform.execution.ledger.limit_rules import Rate, key_of, scope_and_name
from hivemesh_platform.execution.ledger.row_sql import SqlLedger
from hivemesh_sdk.errors import InvalidError
from queue_conformance import QueueConformance


class TestQueue(QueueConformance):
    @pytest.fixture
    async def ledger(self):
        return SqlLedger(None)

    @pytest.fixture
    async def write(self, database):
        return database.write

    @pytest.mark.parametrize("database", ["sqlite"], indirect=True)
    @pytest.mark.parametrize(
        ("statement", "index"),
        [
            (claim_sql._CLAIM, "work_claimable"),
            (claim_sql._CLAIM_ALIKE, "work_claimable"),
            (claim_sql._BRING_FORWARD, "work_delayed"),
            (limit_sql._CANDIDATES, "work_claimable"),
            (limit_sql._SET_FREE, "work_parked"),
            (limit_sql._PARK, "work_queued_key"),
            (limit_sql._RUNNING_BY_KEY, "work_running_key"),
            (limit_sql._WITH_ROOM, "work_queued_key"),
            (limit_sql._WITH_ROOM, "limit_parked_by_time"),
            (limit_sql._LOOK_LATER, "limit_parked_by_time"),
        ],
    )
    async def test_no_statement_of_a_claim_reads_all_rows(self, database, statement, index):
        names = {
            "capability": "x",
            "now": 1,
            "limit": 1,
            "key": "k",
            "room": 1,
            "reason": "",
            "replica": "p1",
            "replica_epoch": 1,
            "most": 1,
            "later": 1,
        }
        text = statement.format(skip_locked="")
        used = {name: value for name, value in names.items() if f":{name}" in text}
        plan = await database.read(lambda tx: tx.all(f"EXPLAIN QUERY PLAN {text}", used))
        steps = [row["detail"] for row in plan]
        assert any(index in step for step in steps), steps
        assert not any("TEMP B-TREE" in step for step in steps), steps
        assert not any(step.startswith("SCAN work") and "USING" not in step for step in steps)


@pytest.mark.parametrize("text", ["10/s", "600/m", "1/h", "10/s burst 50"])
def test_a_rate_is_written_as_it_is_read(text):
    assert Rate.parse(text).text() == text


@pytest.mark.parametrize("text", ["", "0/s", "10", "10/d", "-1/s", "10/s burst 0"])
def test_what_is_no_rate_is_refused(text):
    with pytest.raises(InvalidError, match="10/s"):
        Rate.parse(text)


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("all", ("all", "")),
        ("capability:email.parse@1", ("capability", "email.parse@1")),
        ("key:customer-7", ("key", "t/customer-7")),
        ("key:customer-*", ("key", "t/customer-*")),
        ("key:*", ("key", "t/*")),
    ],
)
def test_a_limit_is_one_of_all_of_a_capability_or_of_keys(target, found):
    assert scope_and_name(target, "t") == found


@pytest.mark.parametrize("target", ["", "all:x", "capability:x", "key:", "key:a b", "queue:x"])
def test_another_target_of_a_limit_is_refused(target):
    with pytest.raises(InvalidError):
        scope_and_name(target, "t")


@pytest.mark.parametrize("key", ["a b", "ä", "x" * 101, "a/b", "a*"])
def test_a_key_has_plain_characters(key):
    with pytest.raises(InvalidError):
        key_of("default", key)
