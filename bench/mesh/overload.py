"""Ten times as many calls as there are slots: how fast and how well the rest is refused.

overload.py FOLDER PORT SECONDS      prints what was seen as JSON
"""

import asyncio
import itertools
import json
import sys
import time
from pathlib import Path

import hivemesh
import uvloop
from side import BODY

TIMES = 10
PAUSE_S = 0.02  # of a caller that was refused


class Holding(hivemesh.Caller):
    """Calls the capability whose slots are few."""

    capability = "bench.hold@1"


async def press(folder: Path, port: int, seconds: float) -> dict[str, float]:
    """Call from ten times as many places as there are slots."""
    refused_s: list[float] = []
    malformed = accepted = 0
    numbers = itertools.count(1)
    until = time.perf_counter() + seconds

    async def caller(client: Holding) -> None:
        nonlocal malformed, accepted
        while time.perf_counter() < until:
            started = time.perf_counter()
            answer = await client.ask(next(numbers))
            spent = time.perf_counter() - started
            if answer.status == 200:
                accepted += 1
                continue
            refused_s.append(spent)
            malformed += not well_formed(answer)
            await asyncio.sleep(PAUSE_S)

    async with Holding(folder, port, 1, BODY) as client:
        await asyncio.gather(*(caller(client) for _ in range(TIMES * hivemesh.HOLD_SLOTS)))
    refused_s.sort()
    return {
        "accepted": accepted,
        "refused": len(refused_s),
        "malformed": malformed,
        "p50_ms": 1000 * refused_s[len(refused_s) // 2],
        "p99_ms": 1000 * refused_s[len(refused_s) * 99 // 100],
        "max_ms": 1000 * refused_s[-1],
    }


def well_formed(answer: hivemesh.Response) -> bool:
    """Whether it is a problem document that says when to come again."""
    headers = {name.lower(): value for name, value in answer.headers.items()}
    problem = json.loads(answer.body)
    return (
        answer.status in {429, 503}
        and int(headers["retry-after"]) >= 1
        and headers["content-type"].startswith("application/problem+json")
        and problem["status"] == answer.status
    )


if __name__ == "__main__":
    folder, port, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    print("go", flush=True)
    print(json.dumps(uvloop.run(press(folder, port, seconds))), flush=True)
