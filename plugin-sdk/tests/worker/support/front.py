"""Starts a sample worker, prints the pid of its executor and waits to be killed."""

import asyncio
import sys
from pathlib import Path

import psutil
from worker_harness import serving


async def main() -> None:
    async with serving(Path(sys.argv[1])) as sample:
        await sample.put("sample.upper@1", "call", [b'{"id":1,"text":"a"}'])
        print(psutil.Process().children()[0].pid, flush=True)  # noqa: T201
        await asyncio.Event().wait()


asyncio.run(main())
