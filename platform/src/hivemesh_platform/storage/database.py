"""The database as services see it: transactions that write, and reads of what is committed."""

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from hivemesh_platform.storage.errors import StorageError
from hivemesh_platform.storage.transaction import Dialect, Transaction

T = TypeVar("T")

PATIENCE_S: ContextVar[float | None] = ContextVar("patience_s", default=None)
"""How long reads and writes wait for a server that does not answer. None: until it does.

People and workers who ask are answered in time; what the platform does by itself has time.
"""
PATIENT_UNTIL: ContextVar[float | None] = ContextVar("patient_until", default=None)
"""A moment from which on nothing waits for such a server for longer than `AT_LEAST_S`; monotonic."""
AT_LEAST_S = 0.5


class Database(ABC):
    """`write` and `read` are the only ways to the rows. It is open between enter and exit."""

    dialect: Dialect

    @property
    @abstractmethod
    def writer_cpu_s(self) -> float:
        """CPU seconds of the writers: what durability costs."""

    @property
    def repeated(self) -> Mapping[str, int]:
        """How many transactions were run again because they lost against others, by reason."""
        return {}

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Open it."""

    @abstractmethod
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End what was asked for and close it."""

    @abstractmethod
    def write(
        self, work: Callable[[Transaction], T], *, alone: bool = False
    ) -> "asyncio.Future[T]":
        """Run `work` in a transaction of another thread; the future ends after the commit.

        `work` keeps nothing outside the transaction, because it may be run a second time. Where
        the database runs transactions side by side, `work` locks what it reads in order to change
        it; `alone` has the database see to that, at the price of further repetitions.

        Raises:
            StorageFullError: the disk is full; nothing was written.
        """

    @abstractmethod
    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in a thread on what is committed, all of it as of one moment.

        `work` changes nothing outside the transaction, because it may be run a second time.
        """

    @abstractmethod
    async def notify(self, text: str) -> None:
        """Tell all processes on this database something."""

    @abstractmethod
    def notices(self) -> AsyncIterator[str]:
        """What processes tell, our own included, until cancelled; "" where some may be missed."""


@dataclass(slots=True)
class Write(Generic[T]):
    """A function that waits for its transaction, and who waits for the answer."""

    work: Callable[[Transaction], T]
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[T]"
    alone: bool = False
    until: float | None = None  # monotonic; from then on nobody waits for the server any longer
    taken: threading.Lock = field(default_factory=threading.Lock)  # by a writer, or given up
    value: T | None = None
    error: BaseException | None = None

    def settle(self) -> None:
        """Hand the outcome to the waiting task; runs in its loop."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.value)  # type: ignore[arg-type]  # set where error is None


def new_write(work: Callable[[Transaction], T], *, alone: bool = False) -> Write[T]:
    """Make a write whose future belongs to the running loop."""
    loop = asyncio.get_running_loop()
    return Write(work, loop, loop.create_future(), alone, patience_ends())


def patience_ends() -> float | None:
    """Until when a read or write that is asked for now waits for the server."""
    patience, end, now = PATIENCE_S.get(), PATIENT_UNTIL.get(), time.monotonic()
    ends = [] if patience is None else [now + patience]
    if end is not None:
        ends.append(max(end, now + AT_LEAST_S))
    return min(ends, default=None)


def answer(writes: Iterable[Write[Any]]) -> None:
    """Hand the outcomes to those who wait; runs in the thread of a writer."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Write[Any]]] = defaultdict(list)
    for write in writes:
        by_loop[write.loop].append(write)
    for loop, some in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_settle_all, some)


def not_open() -> StorageError:
    """What is said before the opening and after the end."""
    return StorageError("the database is not open")


def _settle_all(writes: list[Write[Any]]) -> None:
    for write in writes:
        write.settle()
