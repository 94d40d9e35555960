"""Several replicas: each has a chain of its own, and each lists the records of all."""

from contextlib import AsyncExitStack

import pytest
from hivemesh_platform.audit.index import Query
from hivemesh_platform.audit.model import AuditEvent
from hivemesh_platform.audit.service import AuditOptions, open_audit
from hivemesh_sdk.testing.clock import ManualClock


@pytest.fixture
async def trails(tmp_path, database):
    """The trails of two replicas on one database and one folder."""
    clock = ManualClock()
    async with AsyncExitStack() as stack:
        made = []
        for name in ("p1", "p2"):
            options = AuditOptions(
                trust_domain="test.hivemesh.internal",
                checkpoint_file=f"{name}.jws",
                chain=name,
                chains=tmp_path / "replicas",
            )
            (tmp_path / name).mkdir()
            opening = open_audit(tmp_path / name, database, clock, options)
            made.append(await stack.enter_async_context(opening))
        yield clock, *made


async def record(trail, clock, action):
    clock.advance(1.0)
    await trail.trail.record(AuditEvent(actor="ada", action=action, target="x"))


async def test_each_replica_lists_the_records_of_all_the_newest_first(trails):
    clock, one, two = trails
    for trail, action in ((one, "a:a"), (two, "b:b"), (one, "c:c")):
        await record(trail, clock, action)
    await one.find(Query())
    found = await two.entries(Query(actor="ada", merged=True))
    assert [(entry.chain, entry.record.action) for entry in found] == [
        ("p1", "c:c"), ("p2", "b:b"), ("p1", "a:a"),
    ]  # fmt: skip


async def test_the_list_goes_on_behind_any_record(trails):
    clock, one, two = trails
    for trail, action in ((one, "a:a"), (two, "b:b"), (one, "c:c"), (two, "d:d")):
        await record(trail, clock, action)
    await one.find(Query())
    first = await two.entries(Query(actor="ada", merged=True, limit=2))
    rest = await two.entries(Query(actor="ada", merged=True, behind=first[-1].behind))
    assert [entry.record.action for entry in (*first, *rest)] == ["d:d", "c:c", "b:b", "a:a"]


async def test_each_chain_verifies_for_itself(trails):
    clock, one, two = trails
    await record(one, clock, "a:a")
    await record(two, clock, "b:b")
    for trail in (one, two):
        report = await trail.verify()
        assert report.finding is None


async def test_one_replica_verifies_the_chains_of_all(trails, tmp_path):
    clock, one, two = trails
    for trail in (one, two, two):
        await record(trail, clock, "a:a")
    reports = await one.verify_others()
    assert {name: (report.records, report.finding) for name, report in reports.items()} == {
        "p2": (2, None)
    }
    file = next((tmp_path / "replicas" / "p2" / "audit").glob("*.ndjson"))
    file.write_bytes(file.read_bytes().replace(b'"a:a"', b'"a:b"', 1))
    found = (await one.verify_others())["p2"].finding
    assert found is not None
    assert (found.seq, found.kind) == (1, "changed")
    assert (await one.verify()).finding is None
