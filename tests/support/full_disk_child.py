"""Writes audit records until the kernel takes no more bytes of a file.

`python full_disk_child.py FOLDER`
"""

import asyncio
import os
import resource
import sys
from pathlib import Path

from audit_support import Place, event
from hivemesh_platform.audit.errors import AuditUnavailableError


async def main(folder: Path) -> None:
    place = Place(folder)
    async with place.open() as trail:
        await trail.record(event())
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        for _ in range(2):
            await _until_refused(trail)
            os.write(1, b"refused\n")
    os.write(1, b"ended\n")


async def _until_refused(trail) -> None:
    try:
        while True:
            await asyncio.gather(*(trail.record(event(number)) for number in range(7)))
    except AuditUnavailableError:
        return


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
