"""Capabilities that pass work on: to the worker of effects, or to the next place of a chain."""

import os
from pathlib import Path

from hivemesh_sdk import Context, Record, Worker

worker = Worker()


class Work(Record):
    """One piece of work, as the worker of effects takes it."""

    folder: str
    number: int
    take_s: float = 0.0


class Company(Record):
    """Jobs travel together where this is the same."""

    company: int = 0


class Link(Record):
    """A place in the chain, and the folder where arrivals are noted."""

    folder: str
    number: int


@worker.call("relay.write@1")
def write(work: Work, options: Company, context: Context) -> dict[str, object]:
    """Have the effect written by another worker."""
    return context.call("effect.write@1", work, {"company": work.number})


@worker.call("relay.first@1")
def first(link: Link, options: Company, context: Context) -> int:
    """Begin the chain."""
    _arrived(link, "first")
    return context.call("relay.second@1", link, {"company": link.number})


def _arrived(link: Link, place: str) -> None:
    descriptor = os.open(Path(link.folder) / place, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, b"%d\n" % link.number)
    finally:
        os.close(descriptor)
