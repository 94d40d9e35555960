"""procrastinate on PostgreSQL, two worker processes: `procrastinate_side.py FOLDER JOBS BUSY CALLS DATABASE`."""

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psycopg

OPEN = "SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing')"


async def main() -> None:
    folder, jobs, busy_jobs, calls = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    os.environ["PEER_DATABASE"] = sys.argv[5]
    from procrastinate_tasks import app

    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        words = [sys.executable, "-m", "procrastinate", "-a", "procrastinate_tasks.app", "worker"]
        workers = [
            subprocess.Popen(  # noqa: ASYNC220 - before anything else runs
                [*words, "-c", "4"],
                cwd=Path(__file__).parent,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for _ in range(2)
        ]
        try:
            print(json.dumps(await measured(folder, jobs, busy_jobs, calls)))
        finally:
            for one in workers:
                one.terminate()
            for one in workers:
                one.wait(30)


async def measured(folder: Path, jobs: int, busy_jobs: int, calls: int) -> dict[str, object]:
    from procrastinate_tasks import busy, do, when

    database = psycopg.connect(os.environ["PEER_DATABASE"], autocommit=True)

    async def until_empty() -> None:
        while database.execute(OPEN).fetchone()[0]:
            await asyncio.sleep(0.02)

    await do.defer_async(number=0)
    await until_empty()
    sent = []
    told = folder / "told"
    for number in range(calls):
        sent.append(time.time())
        await when.defer_async(number=number, file=str(told))
        await until_empty()
    times = [float(line) for line in told.read_text().split()]
    found: dict[str, object] = {"waits": [b - a for a, b in zip(sent, times, strict=True)]}
    for name, task, count in (("noop", do, jobs), ("busy", busy, busy_jobs)):
        started = time.perf_counter()
        await task.batch_defer_async(*({"number": number} for number in range(count)))
        found[f"{name}_submit_s"] = time.perf_counter() - started
        await until_empty()
        found[f"{name}_s"] = time.perf_counter() - started
    return found


if __name__ == "__main__":
    asyncio.run(main())
