"""A platform core over fake workers in a process of its own, which a test may kill anywhere.

`python crash_child.py FOLDER ENGINE`: starts a run unless the folder has one, waits for its end,
and prints what it gave. The crash point comes from the environment, as it does for the platform.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

from access_support import ADMIN
from execution_support import DirectEngine, core, worker
from fake_workers import FakeWorkerFleet
from hivemesh_platform import crash
from hivemesh_platform.execution.runs.engine import DbosEngine

RECORDS = 90


async def main(folder, engine):
    crash.arm(os.environ.get(crash.VARIABLE), production=False)
    fleet = FakeWorkerFleet(worker(records=RECORDS, bad={4, 41}), page_events=2)
    made = DirectEngine
    if engine == "dbos":

        def made(steps):
            return DbosEngine(folder / "engine.db", "p1", steps)

    async with core(folder, fleet, engine=made) as platform:
        runs = await platform.execution.runs.page("", 10, ADMIN)
        run = runs[0].id if runs else await platform.start()
        print("started", flush=True)  # noqa: T201 - read by the test
        view = await platform.end(run, 60)
        answer = {
            "runs": len(await platform.execution.runs.page("", 10, ADMIN)),
            "state": view.state,
            "rejected": view.rejected,
            "numbers": [one["n"] for one in await platform.records(run)],
            "total": json.loads(await platform.output(run, "total")),
        }
    print(json.dumps(answer), flush=True)  # noqa: T201 - read by the test


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
