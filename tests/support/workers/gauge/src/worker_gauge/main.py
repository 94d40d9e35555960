"""A capability that takes a known time; one instance can be told to take ten times as long."""

import os
import time
from pathlib import Path

from hivemesh_sdk import Record, Worker

worker = Worker()

TAKES_S = 0.05
TIMES = 10


class Work(Record):
    """One piece of work."""

    number: int


class Company(Record):
    """Jobs travel together where this is the same."""

    company: int = 0
    slow: str = ""  # a file with the process of the instance that is slow


@worker.call("gauge.take@1")
def take(work: Work, options: Company) -> int:
    """Take as long as every instance takes, or longer where the file names this one."""
    told = Path(options.slow)
    is_slow = told.is_file() and told.read_text() == str(os.getppid())
    time.sleep(TAKES_S * TIMES if is_slow else TAKES_S)
    return work.number
