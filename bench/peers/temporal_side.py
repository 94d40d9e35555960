"""Temporal's development server on a file: `temporal_side.py FOLDER JOBS BUSY CALLS`.

A job is a workflow of one activity; all are started at once, a hundred requests at a time.
"""

import asyncio
import json
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.worker import Worker

QUEUE = "peer"


@activity.defn
async def do(number: int) -> int:
    return number


@activity.defn
def busy(number: int) -> int:
    until = time.thread_time() + 0.005
    while time.thread_time() < until:
        pass
    return number


@activity.defn
async def when(number: int) -> float:
    return time.time()


@workflow.defn
class Job:
    @workflow.run
    async def run(self, name: str, number: int) -> float:
        return await workflow.execute_activity(
            name, number, start_to_close_timeout=timedelta(seconds=30)
        )


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


async def main() -> None:
    folder, jobs, busy_jobs, calls = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    port = free_port()
    server = subprocess.Popen(  # noqa: ASYNC220 - before anything else runs
        [Path(sys.executable).parent / "temporal", "server", "start-dev", "--headless", "--port", str(port), "--db-filename", folder / "temporal.db", "--log-level", "never"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        client = await connected(port)
        with ThreadPoolExecutor(2) as pool:
            async with Worker(
                client, task_queue=QUEUE, workflows=[Job], activities=[do, busy, when],
                activity_executor=pool,
            ):  # fmt: skip
                print(json.dumps(await measured(client, jobs, busy_jobs, calls)))
    finally:
        server.terminate()
        server.wait(30)


async def connected(port: int) -> Client:
    for _ in range(100):
        try:
            client = await Client.connect(f"127.0.0.1:{port}")
            if await client.service_client.check_health():
                return client
        except (RPCError, RuntimeError):
            pass
        await asyncio.sleep(0.2)
    raise RuntimeError("the development server did not start")


async def measured(client: Client, jobs: int, busy_jobs: int, calls: int) -> dict[str, object]:
    async def one(name: str, number: int) -> float:
        return await client.start_workflow(
            Job.run, args=[name, number], id=f"{name}-{number}", task_queue=QUEUE
        )

    await (await one("do", -1)).result()
    waits = []
    for number in range(calls):
        sent = time.time()
        waits.append(await (await one("when", number)).result() - sent)
    found: dict[str, object] = {"waits": waits}
    for title, name, count in (("noop", "do", jobs), ("busy", "busy", busy_jobs)):
        gate = asyncio.Semaphore(100)

        async def started(number: int, name: str = name, gate: asyncio.Semaphore = gate):
            async with gate:
                return await one(name, number)

        began = time.perf_counter()
        handles = await asyncio.gather(*(started(number) for number in range(count)))
        found[f"{title}_submit_s"] = time.perf_counter() - began
        await asyncio.gather(*(handle.result() for handle in handles))
        found[f"{title}_s"] = time.perf_counter() - began
    return found


if __name__ == "__main__":
    asyncio.run(main())
