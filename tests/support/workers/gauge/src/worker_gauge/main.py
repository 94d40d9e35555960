"""A capability that takes a known time; one instance can be told to be slow, to fail or to hang."""

import itertools
import os
import time
from pathlib import Path

from hivemesh_sdk import Record, RetryableError, Worker

worker = Worker()

TAKES_S = 0.05
TIMES = 10
ONE_IN = 20  # steps fails
POLL_S = 1.0  # hardly any CPU: what hangs computes nothing
_steps = itertools.count(1)


class Work(Record):
    """One piece of work."""

    number: int


class Company(Record):
    """Jobs travel together where this is the same."""

    company: int = 0
    gray: str = ""  # a file with the process of an instance, and what is wrong with it


@worker.call("gauge.take@1")
def take(work: Work, options: Company) -> int:
    """Take as long as every instance takes, unless the file names this one."""
    told = Path(options.gray)
    wrong = _wrong(told)
    time.sleep(TAKES_S * TIMES if wrong == "slow" else TAKES_S)
    if wrong == "fails" and next(_steps) % ONE_IN == 0:
        message = f"one step in {ONE_IN} fails here"
        raise RetryableError(message)
    while wrong == "stalls":
        time.sleep(POLL_S)
        wrong = _wrong(told)
    return work.number


def _wrong(told: Path) -> str:
    """What is wrong with this instance."""
    process, _, wrong = told.read_text().partition(" ") if told.is_file() else ("", "", "")
    return wrong if process == str(os.getppid()) else ""
