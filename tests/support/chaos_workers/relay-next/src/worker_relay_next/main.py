"""The next places of a chain, whose end may be down."""

import os
from pathlib import Path

from hivemesh_sdk import Context, Record, RetryableError, Worker

worker = Worker()


class Company(Record):
    """Jobs travel together where this is the same."""

    company: int = 0


class Link(Record):
    """A place in the chain, and the folder where arrivals are noted; `down` in it is a total outage."""

    folder: str
    number: int


@worker.call("relay.second@1")
def second(link: Link, options: Company, context: Context) -> int:
    """Pass it on."""
    _arrived(link, "second")
    return context.call("relay.third@1", link, {"company": link.number})


@worker.call("relay.third@1")
def third(link: Link, options: Company) -> int:
    """End the chain, or fail as one that is down."""
    _arrived(link, "third")
    if (Path(link.folder) / "down").exists():
        message = "down"
        raise RetryableError(message)
    return link.number


def _arrived(link: Link, place: str) -> None:
    descriptor = os.open(Path(link.folder) / place, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, b"%d\n" % link.number)
    finally:
        os.close(descriptor)
