"""Writes the good ends of a run's rows: those that come while others are written go together, next.

A run's rows share its counters, so that PostgreSQL can only write one of them after the other, each
with a commit of its own.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from hivemesh_platform.execution.ledger.port import Effects, Ledger, RowEnd, StaleAttemptError
from hivemesh_platform.storage.database import Database

MOST = 16  # in one transaction

Written = list[Effects | StaleAttemptError]


class _Waiting(NamedTuple):
    end: RowEnd
    told: "asyncio.Future[Effects]"


class Ends:
    """The ends of rows that this process holds."""

    def __init__(self, database: Database, ledger: Ledger, now: Callable[[], int]) -> None:
        self._database = database
        self._ledger = ledger
        self._now = now
        self._waiting: dict[str, list[_Waiting]] = {}  # by the runs of which some are being written

    def finish(self, end: RowEnd) -> "asyncio.Future[Effects]":
        """End a row well, as `Ledger.finish` does; written when the future ends.

        Raises:
            StaleAttemptError: the fence is not the row's.
        """
        one = _Waiting(end, asyncio.get_running_loop().create_future())
        waiting = self._waiting.get(end.key.run)
        if waiting is None:
            self._write(end.key.run, [one])
            self._waiting[end.key.run] = []
        else:
            waiting.append(one)
        return one.told

    def _write(self, run: str, some: Sequence[_Waiting]) -> None:
        written = self._written(some)
        written.add_done_callback(lambda _: self._go_on(run))
        written.add_done_callback(partial(self._tell, some))

    def _written(self, some: Sequence[_Waiting]) -> "asyncio.Future[Written]":
        ends, now = [one.end for one in some], self._now()
        return self._database.write(lambda tx: self._ledger.finish_rows(tx, ends, now))

    def _go_on(self, run: str) -> None:
        waiting = self._waiting.pop(run)
        if waiting:
            self._write(run, waiting[:MOST])
            self._waiting[run] = waiting[MOST:]

    def _tell(self, some: Sequence[_Waiting], written: "asyncio.Future[Written]") -> None:
        """Tell each of those that wait; where they have failed together each is tried alone."""
        error = written.exception()
        if error is not None and len(some) > 1:
            for one in some:
                self._written([one]).add_done_callback(partial(self._tell, [one]))
            return
        found = written.result() if error is None else [error]
        for one, what in zip(some, found, strict=True):
            if one.told.done():  # nobody waits any longer
                continue
            if isinstance(what, BaseException):
                one.told.set_exception(what)
            else:
                one.told.set_result(what)
