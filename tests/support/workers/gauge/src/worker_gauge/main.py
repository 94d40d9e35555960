"""A capability that takes a known time."""

import asyncio

from hivemesh_sdk import Record, Worker

worker = Worker()

TAKES_S = 0.05


class Work(Record):
    """One piece of work."""

    number: int


class Company(Record):
    """Jobs travel together where this is the same."""

    company: int = 0


@worker.call("gauge.take@1")
async def take(work: Work, options: Company) -> int:
    """Take as long as every instance takes."""
    await asyncio.sleep(TAKES_S)
    return work.number
