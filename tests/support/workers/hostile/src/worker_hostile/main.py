"""Capabilities that end badly."""

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from hivemesh_sdk import Record, Worker

worker = Worker()


class Number(Record):
    """A record."""

    n: int


class Count(Record):
    """How many there are."""

    size: int


class Poison(Record):
    """Which number kills whom, until the file is there."""

    number: int = -1
    whole_worker: bool = False
    mended: str = ""


class Told(Record):
    """The file that tells that the step has begun."""

    path: str


@worker.source("hostile.count@1")
def count(options: Count, start: int | None) -> Iterator[tuple[Number, int]]:
    """Give the numbers from 0."""
    for number in range(start or 0, options.size):
        yield Number(number), number + 1


@worker.map("hostile.square@1")
def square(records: list[Number], options: Poison) -> list[Number]:
    """Square them, or die of one."""
    mended = bool(options.mended) and Path(options.mended).exists()
    if not mended and any(record.n == options.number for record in records):
        os.kill(os.getppid() if options.whole_worker else os.getpid(), signal.SIGKILL)
        time.sleep(60)
    return [Number(record.n**2) for record in records]


@worker.call("hostile.hold@1")
def hold(told: Told) -> None:
    """Hold the interpreter's lock in C code and hear nothing; the file tells which process it is."""
    with Path(told.path).open("a") as file:
        file.write(f"{os.getpid()}\n")
    re.fullmatch(r"(a+)+b", "a" * 64)


@worker.call("hostile.block@1")
async def block(told: Told) -> None:
    """Block the loop of all `async` steps."""
    Path(told.path).touch()  # noqa: ASYNC240 - blocking is what it shows
    time.sleep(3600)  # noqa: ASYNC251 - as above


@worker.call("hostile.echo@1")
def echo(value: dict[str, int]) -> dict[str, int]:
    """Give back what came."""
    return value
