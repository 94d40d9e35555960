"""The tasks of the comparison as procrastinate has them."""

import os
import time
from pathlib import Path

from procrastinate import App, PsycopgConnector

app = App(connector=PsycopgConnector(conninfo=os.environ["PEER_DATABASE"], min_size=1, max_size=8))


@app.task(name="do")
async def do(number: int) -> int:
    return number


@app.task(name="busy")
def busy(number: int) -> int:
    until = time.thread_time() + 0.005
    while time.thread_time() < until:
        pass
    return number


@app.task(name="when")
async def when(number: int, file: str) -> None:
    with Path(file).open("a") as told:  # noqa: ASYNC230 - one short line
        told.write(f"{time.time()}\n")
