"""What 0.1.0 has left is gone on with after the upgrade: rows of its schema, with its artifacts.

`data/schema-0008.json` was taken from 0.1.0 while a run and a job were under way.
"""

import json
from pathlib import Path

import pytest
import sqlalchemy as sa
from execution_support import core, worker
from hivemesh_platform.storage import migrate
from storage_support import ADDRESS, place_in

LEFT = json.loads((Path(__file__).parent / "data" / "schema-0008.json").read_text())
RECOMPUTED = {"queue_clock", "queue_share"}
DOUBLED = [2 * n for n in range(35) if n != 7]


@pytest.fixture(params=["sqlite", "postgresql"])
def folder(request, tmp_path):
    """A state folder as 0.1.0 has left it."""
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres_server")
        (tmp_path / ADDRESS).write_text(server.address(server.new_database()))
    schema = place_in(tmp_path).schema
    migrate.run_migrations(schema, LEFT["schema"])
    with migrate._connected(schema) as connection:
        for name, table in LEFT["tables"].items():
            columns = sa.table(name, *map(sa.column, table["columns"]))
            rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
            connection.execute(sa.insert(columns), rows)
    for digest, text in LEFT["files"].items():
        path = tmp_path / "artifacts" / digest[:2] / digest[2:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def rows_of(schema, name):
    with migrate._connected(schema) as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(sa.table(name))).scalar()


def test_no_row_is_lost(folder):
    schema = place_in(folder).schema
    assert migrate.upgrade(schema) == (LEFT["schema"], migrate.HEAD)
    kept = {name: len(table["rows"]) for name, table in LEFT["tables"].items()}
    found = {name: rows_of(schema, name) for name in kept if name not in RECOMPUTED}
    assert found == {name: count for name, count in kept.items() if name not in RECOMPUTED}
    assert rows_of(schema, "queue_share") >= 1


async def test_what_was_under_way_ends_once_and_what_had_ended_is_served(folder):
    migrate.upgrade(place_in(folder).schema)
    async with core(folder, worker(records=35, bad={7})) as platform:
        assert await platform.output(LEFT["finished"], "total") == str(sum(DOUBLED)).encode()
        run = await platform.end(LEFT["interrupted"])
        jobs = [await platform.end(job) for job in LEFT["waiting"][:1]]
        answered = await platform.end(LEFT["answered"])
        assert (run.state, run.rejected) == ("partial", 1)
        assert [one["n"] for one in await platform.records(run.id)] == DOUBLED
        assert await platform.output(run.id, "total") == str(sum(DOUBLED)).encode()
        assert [job.outputs["result"]["value"] for job in jobs] == [{"a": 2}]
        assert answered.outputs["result"]["value"] == {"a": 1}


WORK = """INSERT INTO work (run, node, seq, kind, capability, submitter, rank, state, created_at,
          ended_at, spec, attempt_group, tenant) VALUES (:run, 'job', 0, 'call', 'a.do@1', 'x', 1,
          'completed', 1, 1, '{}', :tenant, :tenant)"""
COMMON = """INSERT INTO attempt_group (id, instance, identity, worker, explanation, started_at,
            ended_at, runs) VALUES (:tenant, 'w1', 'i', 'w 1', '{}', 1, 1, '[]')"""


def upgraded(schema, *filled):
    """Fill a database of the version before and bring it to this one."""
    migrate.run_migrations(schema, "0016")
    with migrate._connected(schema) as connection:
        for sql, rows in filled:
            connection.execute(sa.text(sql), rows)
    migrate.upgrade(schema)
    return migrate._connected(schema)


def test_jobs_whose_batch_has_lost_its_first_one_are_named(folder):
    whole, headless, lone = (f"job_{number:032x}" for number in range(3))
    jobs = [f"{whole}-000001", f"{whole}-000002", f"{headless}-000002", f"{headless}-000004", lone]
    rows = [{"run": job, "tenant": "default"} for job in jobs]
    with upgraded(place_in(folder).schema, (WORK, rows)) as connection:
        found = connection.execute(sa.text("SELECT run FROM orphan_job ORDER BY run"))
        assert list(found.scalars()) == jobs[2:4]


def test_attempts_in_common_have_the_tenant_of_their_jobs(folder):
    rows = [{"run": f"job_{tenant}", "tenant": tenant} for tenant in ("default", "other")]
    tenants = [{"tenant": row["tenant"]} for row in rows]
    with upgraded(place_in(folder).schema, (WORK, rows), (COMMON, tenants)) as connection:
        found = connection.execute(sa.text("SELECT id, tenant FROM attempt_group ORDER BY id"))
        assert [tuple(row) for row in found] == [("default", "default"), ("other", "other")]
