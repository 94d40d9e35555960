"""The durable engine on its own file or schema: what was started is gone on with, and nothing is pickled."""

import asyncio
import sqlite3
from contextlib import asynccontextmanager

import psycopg
import pytest
import sqlalchemy as sa
from execution_support import core, worker
from fake_workers import FakeWorkerFleet
from hivemesh_platform.execution.runs import engine as engine_module
from hivemesh_platform.execution.runs.engine import DbosEngine
from storage_support import place_in


class Steps:
    """Drains that end when they are told to."""

    def __init__(self, *blocked):
        self.drained = []
        self.closed = asyncio.Event()
        self.started = asyncio.Event()
        self._blocked = set(blocked)

    async def drain(self, run, node):
        if node in self._blocked:
            self.started.set()
            await asyncio.Event().wait()
        self.drained.append(node)
        return "completed"

    async def close(self, run):
        self.closed.set()
        return "completed"


@asynccontextmanager
async def engine(folder, steps):
    where = place_in(folder).direct or folder / "engine.db"
    async with asyncio.timeout(60), DbosEngine(where, "p1", steps) as opened:
        yield opened


@pytest.mark.usefixtures("each_database")
async def test_all_nodes_drain_at_the_same_time_and_the_run_is_closed(tmp_path):
    steps = Steps()
    async with engine(tmp_path, steps) as opened:
        await opened.submit("run_1", ["a", "b", "c"])
        await steps.closed.wait()
    assert sorted(steps.drained) == ["a", "b", "c"]


@pytest.mark.usefixtures("each_database")
async def test_a_run_that_was_interrupted_is_gone_on_with(tmp_path):
    blocked = Steps("b")
    async with engine(tmp_path, blocked) as opened:
        await opened.submit("run_1", ["a", "b", "c"])
        await blocked.started.wait()
        while len(blocked.drained) < 2:  # noqa: ASYNC110 - a list tells nobody
            await asyncio.sleep(0)
    steps = Steps()
    async with engine(tmp_path, steps) as opened:
        assert await opened.is_known("run_1")
        await steps.closed.wait()
    assert "b" in steps.drained


async def test_a_run_is_started_once_however_often_it_is_submitted(tmp_path):
    steps = Steps()
    async with engine(tmp_path, steps) as opened:
        await opened.submit("run_1", ["a"])
        await opened.submit("run_1", ["a"])
        await steps.closed.wait()
    assert steps.drained == ["a"]


@pytest.mark.usefixtures("each_database")
async def test_runs_that_are_forgotten_leave_nothing_of_any_turn(tmp_path, monkeypatch):
    steps = Steps()
    async with engine(tmp_path, steps) as opened:
        monkeypatch.setattr(engine_module, "TURNS_AT_ONCE", 2)
        for run, turn in (("run_1", 0), ("run_1", 1), ("run_1", 2), ("run_12", 0)):
            steps.closed.clear()
            await opened.submit(run, ["a"], turn)
            await steps.closed.wait()
        await opened.forget(["run_1", "run_1"])
        turns = (("run_1",), ("run_1", 1), ("run_1", 2), ("run_12",))
        assert [await opened.is_known(*one) for one in turns] == [False, False, False, True]
        await opened.forget(["run_1", "never"])
        with opened._engine.connect() as connection:
            left = {
                name: {row[0] for row in connection.execute(of_workflow(opened._engine, name))}
                for name in ("workflow_status", "operation_outputs", "workflow_input")
            }
    assert all(rows <= {"run_12"} for rows in left.values()), left


def of_workflow(opened, table):
    """Which workflows have rows in a table of DBOS."""
    schema = "dbos" if opened.dialect.name == "postgresql" else None
    return sa.select(sa.column("workflow_uuid")).select_from(sa.table(table, schema=schema))


async def test_what_the_engine_writes_is_json(tmp_path):
    steps = Steps()
    async with engine(tmp_path, steps) as opened:
        await opened.submit("run_1", ["a"])
        await steps.closed.wait()
    connection = sqlite3.connect(tmp_path / "engine.db")
    rows = connection.execute("SELECT output FROM operation_outputs").fetchall()
    names = connection.execute("SELECT DISTINCT serialization FROM operation_outputs").fetchall()
    connection.close()
    assert rows
    assert {row[0] for row in rows} == {'"completed"'}
    assert {row[0] for row in names} <= {None, "hivemesh_json"}


async def test_the_loop_can_still_use_threads_after_the_engine_has_ended(tmp_path):
    async with engine(tmp_path, Steps()) as opened:
        await opened.submit("run_1", ["a"])
    assert await asyncio.to_thread(len, "abc") == 3


@pytest.mark.usefixtures("each_database")
async def test_a_connection_given_back_after_the_end_is_closed(tmp_path):
    opened = DbosEngine(place_in(tmp_path).direct or tmp_path / "engine.db", "p1", Steps())
    async with asyncio.timeout(60), opened:
        straggler = opened._engine.connect()
        raw = straggler.connection.dbapi_connection
    straggler.close()
    with pytest.raises((sqlite3.ProgrammingError, psycopg.OperationalError), match="closed"):
        raw.execute("SELECT 1")


@pytest.mark.usefixtures("each_database")
async def test_a_cancelled_run_is_not_gone_on_with(tmp_path):
    blocked = Steps("a")
    async with engine(tmp_path, blocked) as opened:
        await opened.submit("run_1", ["a"])
        await blocked.started.wait()
        await opened.cancel("run_1")
    steps = Steps()
    async with engine(tmp_path, steps) as opened:
        await opened.submit("run_2", ["a"])
        await steps.closed.wait()
    assert steps.drained == ["a"]


async def test_a_pipeline_survives_a_restart_of_platform_and_engine(tmp_path):
    fleet = FakeWorkerFleet(worker(records=60), page_events=2)

    def durable(steps):
        return DbosEngine(tmp_path / "engine.db", "p1", steps)

    async with core(tmp_path, fleet, engine=durable) as platform:
        run = await platform.start()
        await platform.until(lambda: platform.execution.counters.batches_recorded >= 2)
    async with core(tmp_path, fleet, engine=durable) as platform:
        view = await platform.end(run)
        assert view.state == "completed"
        assert [one["n"] for one in await platform.records(run)] == [2 * n for n in range(60)]


@pytest.mark.parametrize("damage", ["a page", "the whole file"])
async def test_a_pipeline_survives_the_loss_of_the_engines_file(tmp_path, damage):
    """All that it holds is made anew from the ledger: nobody has to put a backup in its place."""
    file = tmp_path / "engine.db"
    fleet = FakeWorkerFleet(worker(records=60), page_events=2)
    async with core(
        tmp_path, fleet, engine=lambda steps: DbosEngine(file, "p1", steps)
    ) as platform:
        run = await platform.start()
        await platform.until(lambda: platform.execution.counters.batches_recorded >= 2)
    sound = file.read_bytes()
    file.write_bytes(
        b"gone" if damage == "the whole file" else sound[:4096] + b"?" * 4096 + sound[8192:]
    )
    async with core(
        tmp_path, fleet, engine=lambda steps: DbosEngine(file, "p1", steps)
    ) as platform:
        view = await platform.end(run)
        assert view.state == "completed"
        assert [one["n"] for one in await platform.records(run)] == [2 * n for n in range(60)]
    assert (tmp_path / "engine.db.damaged").exists()


async def test_a_run_that_was_accepted_and_never_started_is_started_at_the_next_start(tmp_path):
    class Forgetful(DbosEngine):
        async def submit(self, run, nodes, turn=0):
            return None

    fleet = FakeWorkerFleet(worker(records=20))
    path = tmp_path / "engine.db"
    async with core(tmp_path, fleet, engine=lambda steps: Forgetful(path, "p1", steps)) as platform:
        run = await platform.start()
    async with core(
        tmp_path, fleet, engine=lambda steps: DbosEngine(path, "p1", steps)
    ) as platform:
        assert (await platform.end(run)).state == "completed"
