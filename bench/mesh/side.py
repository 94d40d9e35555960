"""One side of a comparison as a process: `side.py server|client VARIANT FOLDER …`.

The server prints its port; the client prints what it measured as JSON.
"""

import asyncio
import importlib
import json
import sys
import time
from pathlib import Path

import uvloop

BODY = json.dumps({"id": 7, "text": "x" * 940, "tags": ["a", "b", "c"]}).encode()  # 1 KB


async def _serve(variant, folder: Path) -> None:
    await variant.serve(folder, lambda port: print(port, flush=True))


async def _load(variant, folder: Path, port: int, calls: int, concurrency: int) -> dict[str, float]:
    async with variant.Caller(folder, port, concurrency, BODY) as caller:
        numbers = iter(range(calls + concurrency * 10))

        async def work(limit: int) -> None:
            for number in numbers:
                await caller.call(number)
                if number >= limit:
                    return

        warm = concurrency * 10
        await asyncio.gather(*(work(warm - concurrency) for _ in range(concurrency)))
        started, cpu = time.perf_counter(), time.process_time()
        print("go", flush=True)
        await asyncio.gather(*(work(10**9) for _ in range(concurrency)))
        wall, cpu = time.perf_counter() - started, time.process_time() - cpu
        return {"calls": calls, "wall_s": wall, "cpu_s": cpu}


def main() -> None:
    role, name, folder, *rest = sys.argv[1:]
    variant = importlib.import_module(name)
    if role == "server":
        uvloop.run(_serve(variant, Path(folder)))
    else:
        port, calls, concurrency = map(int, rest)
        print(
            json.dumps(uvloop.run(_load(variant, Path(folder), port, calls, concurrency))),
            flush=True,
        )


if __name__ == "__main__":
    main()
