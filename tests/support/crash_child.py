"""A platform core over fake workers in a process of its own, which a test may kill anywhere.

`run` starts a run unless the folder has one, waits for its end, and sends what it gave.
"""

import asyncio
import json

from access_support import ADMIN
from execution_support import DirectEngine, core, worker
from fake_workers import FakeWorkerFleet
from hivemesh_platform import crash
from hivemesh_platform.execution.runs.engine import DbosEngine

RECORDS = 90


def run(told, folder, engine, point):
    """The process: say that it has started or taken over the run, and say what became of it."""
    crash.arm(point, production=False)
    asyncio.run(main(told, folder, engine))


async def main(told, folder, engine):
    fleet = FakeWorkerFleet(worker(records=RECORDS, bad={4, 41}), page_events=2)
    made = DirectEngine
    if engine == "dbos":

        def made(steps):
            return DbosEngine(folder / "engine.db", "p1", steps)

    async with core(folder, fleet, engine=made) as platform:
        runs = await platform.execution.runs.page("", 10, ADMIN)
        run = runs[0].id if runs else await platform.start()
        told.send("started")
        view = await platform.end(run, 60)
        answer = {
            "runs": len(await platform.execution.runs.page("", 10, ADMIN)),
            "state": view.state,
            "rejected": view.rejected,
            "numbers": [one["n"] for one in await platform.records(run)],
            "total": json.loads(await platform.output(run, "total")),
        }
    told.send(answer)
