"""The SQLite database: one thread through which every write goes, and read-only readers.

Writes that wait at the same moment share one commit, and so one fsync.
"""

import asyncio
import queue
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from hivemesh_platform.storage.errors import StorageError, StorageFullError, is_full
from hivemesh_platform.storage.transaction import Transaction

T = TypeVar("T")

GROUP_LIMIT = 64  # writes in one commit: bounds what a failing commit takes with it
READERS = 2  # reads are short; each reader costs a thread and a page cache
_WRITER_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    "PRAGMA busy_timeout=30000",
    "PRAGMA journal_size_limit=67108864",
)


@dataclass(slots=True)
class _Write(Generic[T]):
    """A function that waits for its transaction, and who waits for the answer."""

    work: Callable[[Transaction], T]
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[T]"
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


class Database:
    """Opens one SQLite file. `write` and `read` are the only ways to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._queue: queue.SimpleQueue[_Write[Any] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._readers: ThreadPoolExecutor | None = None
        self._local = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._closed = False
        self.writer_cpu_s = 0.0  # CPU seconds of the writer: what durability costs

    async def __aenter__(self) -> Self:
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(
            target=self._write_loop, args=(loop, ready), name="database-writer", daemon=True
        )
        self._thread.start()
        await ready
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="database-reader")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed = True
        self._queue.put(None)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        if self._readers is not None:
            await asyncio.to_thread(self._readers.shutdown)
        for connection in self._opened:
            connection.close()
        self._opened.clear()

    def write(self, work: Callable[[Transaction], T]) -> "asyncio.Future[T]":
        """Run `work` in a transaction of the writer thread; the future ends after the commit.

        `work` keeps nothing outside the transaction, because it may be run a second time when
        another write of its group took the transaction down.

        Raises:
            StorageFullError: the disk is full; nothing was written.
        """
        if self._closed or self._thread is None:
            message = "the database is not open"
            raise StorageError(message)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._queue.put(_Write(work, loop, future))
        return future

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` on a read-only connection in a thread; it sees what is committed."""
        if self._readers is None:
            message = "the database is not open"
            raise StorageError(message)
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, work)

    def _read(self, work: Callable[[Transaction], T]) -> T:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._connect(read_only=True)
            self._local.connection = connection
        connection.execute("BEGIN")
        try:
            return work(Transaction(connection))
        finally:
            connection.execute("ROLLBACK")

    def _connect(self, *, read_only: bool) -> sqlite3.Connection:
        mode = "ro" if read_only else "rwc"
        connection = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode={mode}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        connection.row_factory = sqlite3.Row
        if read_only:
            connection.execute("PRAGMA busy_timeout=30000")
            self._opened.append(connection)
        return connection

    def _write_loop(self, loop: asyncio.AbstractEventLoop, ready: "asyncio.Future[None]") -> None:
        try:
            connection = self._open_writer()
        except (sqlite3.Error, OSError) as error:
            loop.call_soon_threadsafe(ready.set_exception, _ours(error))
            return
        loop.call_soon_threadsafe(ready.set_result, None)
        while (group := self._next_group()) is not None:
            _commit(connection, group)
            self.writer_cpu_s = time.thread_time()
            _answer(group)
        connection.close()

    def _open_writer(self) -> sqlite3.Connection:
        self.path.touch(mode=0o600, exist_ok=True)
        connection = self._connect(read_only=False)
        for pragma in _WRITER_PRAGMAS:
            connection.execute(pragma)
        return connection

    def _next_group(self) -> list[_Write[Any]] | None:
        first = self._queue.get()
        if first is None:
            return None
        group = [first]
        while len(group) < GROUP_LIMIT:
            try:
                following = self._queue.get_nowait()
            except queue.Empty:
                break
            if following is None:
                self._queue.put(None)
                break
            group.append(following)
        return group


def _commit(connection: sqlite3.Connection, group: list[_Write[Any]]) -> None:
    if len(group) == 1 or not _commit_together(connection, group):
        for write in group:
            _commit_alone(connection, write)


def _commit_alone(connection: sqlite3.Connection, write: _Write[Any]) -> None:
    write.error = None
    try:
        connection.execute("BEGIN IMMEDIATE")
        write.value = write.work(Transaction(connection))
        connection.execute("COMMIT")
    except BaseException as error:  # noqa: BLE001 - handed to the waiting task
        write.error = _ours(error)
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _commit_together(connection: sqlite3.Connection, group: list[_Write[Any]]) -> bool:
    """Give each write a savepoint of one transaction; False where each has to go alone."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        for write in group:
            connection.execute("SAVEPOINT one")
            _run_in_savepoint(connection, write)
            if not connection.in_transaction:
                return False
        connection.execute("COMMIT")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        return False
    return True


def _run_in_savepoint(connection: sqlite3.Connection, write: _Write[Any]) -> None:
    write.error = None
    try:
        write.value = write.work(Transaction(connection))
    except BaseException as error:  # noqa: BLE001 - handed to the waiting task
        write.error = _ours(error)
        if connection.in_transaction:
            connection.execute("ROLLBACK TO one")
    if connection.in_transaction:
        connection.execute("RELEASE one")


def _answer(group: list[_Write[Any]]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[_Write[Any]]] = defaultdict(list)
    for write in group:
        by_loop[write.loop].append(write)
    for loop, writes in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_settle_all, writes)


def _settle_all(writes: list[_Write[Any]]) -> None:
    for write in writes:
        write.settle()


def _ours(error: BaseException) -> BaseException:
    """Third-party errors end here."""
    if is_full(error):
        message = "the disk of the state folder is full"
        ours: BaseException = StorageFullError(message, delay_s=5.0)
    elif isinstance(error, sqlite3.Error):
        ours = StorageError(f"the database refused: {error}")
    else:
        return error
    ours.__cause__ = error
    return ours
