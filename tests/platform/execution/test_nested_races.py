"""A run and the runs that are its steps are changed in one order, however many replicas change them."""

import asyncio
import dataclasses
import json
import threading
from types import SimpleNamespace

import pytest
from graph_support import ECHO, graph
from hivemesh_platform.execution.ledger.port import Effects
from hivemesh_platform.execution.ledger.row_sql import SqlLedger
from hivemesh_platform.execution.ledger.signals import Signal
from hivemesh_platform.execution.runs.children import ChildRuns
from hivemesh_platform.execution.runs.nodes import Answers
from hivemesh_platform.knowledge.service import DatasetWriter
from hivemesh_sdk.clock import SystemClock
from ledger_conformance import DOUBLE, NOW, READ, batch, new_run, node, recorded

LEDGER = SqlLedger(DatasetWriter())
PARENT, CHILD = "run_parent", "run_child"
A_WHILE_S = 0.2  # for the one that must not get through; what comes behind does not depend on it


@pytest.fixture
async def parent(database):
    """A run whose step is a pipeline and has not begun."""
    step = node("part", "pipeline/inner@1", "pipeline")
    await database.write(lambda tx: LEDGER.add_run(tx, new_run(PARENT, [step]), NOW))
    await database.write(lambda tx: LEDGER.activate(tx, PARENT, "part", "{}", NOW))


def begin(tx):
    steps = [node("read", READ, "source"), node("double", DOUBLE, "map", "read")]
    child = dataclasses.replace(new_run(CHILD, steps), parent=(PARENT, "part", 1))
    LEDGER.add_run(tx, child, NOW)
    for one in steps:
        LEDGER.activate(tx, CHILD, one.name, "{}", NOW)


async def states(database):
    rows = await database.read(
        lambda tx: tx.all(
            """SELECT id AS name, state FROM run UNION ALL
               SELECT run || '.' || name, state FROM node UNION ALL
               SELECT run || '.' || node || '.' || seq, state FROM work"""
        )
    )
    return {row["name"]: row["state"] for row in rows}


async def beside(database, first, second):
    """Commit `second` while `first` is not committed, if that is possible."""
    inside, go = threading.Event(), threading.Event()

    def slow(tx):
        first(tx, lambda: (tx.one("SELECT 1"), inside.set(), go.wait(A_WHILE_S)))

    one = database.write(slow)
    await asyncio.to_thread(inside.wait, 10)
    other = database.write(second)
    other.add_done_callback(lambda _: go.set())
    await asyncio.gather(one, other)


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
@pytest.mark.usefixtures("parent")
async def test_what_a_child_records_while_its_parent_is_cancelled_is_not_run(database):
    def set_going(tx):
        begin(tx)
        tx.send("UPDATE node SET child = ?, state = 'running' WHERE run = ?", (CHILD, PARENT))

    await database.write(set_going)
    [claim] = await database.write(lambda tx: LEDGER.claim(tx, READ, 1, NOW))

    def record(tx, pause):
        LEDGER.record(tx, claim.key, claim.fence, recorded(batch(1)), NOW)
        pause()

    await beside(database, record, lambda tx: LEDGER.cancel(tx, PARENT, NOW))
    assert set((await states(database)).values()) == {"cancelled"}
    assert await database.write(lambda tx: LEDGER.claim(tx, DOUBLE, 9, NOW)) == []


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
@pytest.mark.usefixtures("parent")
async def test_no_child_begins_while_its_parent_is_cancelled(database):
    paused = []

    def accept(tx, accepted):
        paused.pop()()
        begin(tx)

    children = ChildRuns(None, SimpleNamespace(accept=accept))
    accepted = SimpleNamespace(run=CHILD, now=NOW)

    def start(tx, pause):
        paused.append(pause)
        children._accept(tx, accepted, PARENT, "part", "{}")

    await beside(database, start, lambda tx: LEDGER.cancel(tx, PARENT, NOW))
    assert set((await states(database)).values()) == {"cancelled"}


@pytest.mark.usefixtures("parent")
@pytest.mark.parametrize("state", ["completed", "failed"])
async def test_a_child_does_not_end_a_step_that_is_done_afresh(database, state):
    def replace(tx):
        begin(tx)
        tx.send(
            "UPDATE run SET document = ?, state = ?, ended_at = ? WHERE id = ?",
            (json.dumps(graph(a=ECHO)), state, NOW, CHILD),
        )
        LEDGER.add_run(tx, new_run("run_new", [node("read", READ, "source")]), NOW)
        tx.send("UPDATE node SET child = 'run_new', state = 'running' WHERE run = ?", (PARENT,))

    await database.write(replace)
    told = []
    parts = SimpleNamespace(
        database=database,
        ledger=LEDGER,
        clock=SystemClock(),
        answers=Answers(None),
        wakes=SimpleNamespace(tell=lambda _, effects: told.append(effects)),
        work=Signal(),
    )
    await ChildRuns(parts, None).finish(PARENT, "part", CHILD)
    assert told == [Effects()]
    found = await states(database)
    assert (found[f"{PARENT}.part"], found["run_new"]) == ("running", "queued")
