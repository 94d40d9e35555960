"""A platform core that accepts five jobs; `python synced_child.py FOLDER` prints the id of each.

Nobody runs them, so that all that is written is what was accepted.
"""

import asyncio
import os
import sys
from pathlib import Path

from execution_support import TESTER, core, worker
from hivemesh_sdk.contracts.api import JobRequest


async def main(folder):
    away = worker()
    away.dead = True
    async with core(folder, away) as platform:
        for number in range(5):
            request = JobRequest(capability="test.echo@1", input=number)
            job = await platform.execution.jobs.start(request, TESTER)
            os.write(1, f"accepted {job.id}\n".encode())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
