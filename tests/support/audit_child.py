"""Writes audit records in a process of its own, which a test kills, and prints what was acknowledged.

`python audit_child.py FOLDER`
"""

import asyncio
import os
import sys
from pathlib import Path

from audit_support import Place, event

WRITERS = 8


async def main(folder: Path) -> None:
    place = Place(folder)
    async with place.open(segment_bytes=30_000, checkpoint_records=50) as trail:
        await asyncio.gather(*(_write(trail, number) for number in range(WRITERS)))


async def _write(trail, writer: int) -> None:
    number = 0
    while True:
        number += 1
        name = f"run_{writer}_{number}"
        await trail.record(event(target=name))
        os.write(1, f"{name}\n".encode())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
