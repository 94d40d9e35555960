"""The SQLite database: one thread through which every write goes, and read-only readers.

Writes that wait at the same moment share one commit, and so one fsync.
"""

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import structlog
from hivemesh_sdk.errors import InvalidError

from hivemesh_platform.storage.database import Database, Write, answer, new_write, not_open
from hivemesh_platform.storage.errors import StorageError, StorageFullError, is_full
from hivemesh_platform.storage.transaction import Parameters, Row, Transaction, Value

T = TypeVar("T")

GROUP_LIMIT = 64  # writes in one commit: bounds what a failing commit takes with it
READERS = 2  # reads are short; each reader costs a thread and a page cache
ROWS = 64  # in one statement; a power of two
_WRITER_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    "PRAGMA busy_timeout=30000",
    "PRAGMA journal_size_limit=67108864",
)

_log = structlog.get_logger("hivemesh.storage")


class SqliteTransaction(Transaction):
    """A transaction of SQLite: the only one that writes, so there is nothing to lock."""

    __slots__ = ("_connection",)

    dialect = "sqlite"
    for_update = ""
    for_share = ""
    for_key_share = ""
    skip_locked = ""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, parameters: Parameters = ()) -> int:
        """Run a written statement and return how many rows it changed."""
        return self._connection.execute(sql, parameters).rowcount

    def send(self, sql: str, parameters: Parameters = ()) -> None:
        """Run a written statement whose number of changed rows nobody needs."""
        self._connection.execute(sql, parameters)

    def execute_many(self, sql: str, rows: Iterable[Parameters]) -> None:
        """Run a written statement once per row of parameters."""
        self._connection.executemany(sql, rows)

    def send_rows(
        self, sql: str, rows: Sequence[Sequence[Value]], parameters: Sequence[Value] = ()
    ) -> None:
        """Run a written statement on many rows at a time; `{rows}` in it stands for them."""
        first, size = 0, ROWS
        while first < len(rows):
            while size > len(rows) - first:  # few different statements: each is prepared once
                size //= 2
            some = rows[first : first + size]
            text = _with_rows(sql, size, len(some[0]))
            self.send(text, (*chain.from_iterable(some), *parameters))
            first += size

    def all(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """Run a written statement and return all of its rows."""
        return self._connection.execute(sql, parameters).fetchall()

    def one(self, sql: str, parameters: Parameters = ()) -> Row | None:
        """Run a written statement and return its first row, or None where there is none."""
        row: Row | None = self._connection.execute(sql, parameters).fetchone()
        return row

    def each(self, *questions: tuple[str, Parameters]) -> list[list[Row]]:
        """Run statements in order; return their rows."""
        return [self.all(*question) for question in questions]

    @staticmethod
    def matching(column: str, pattern: str) -> tuple[str, str]:
        """Return a condition on a text column and its parameter; `*` stands for any characters."""
        text = "".join(f"[{one}]" if one in "[?" else one for one in pattern)
        return f"{column} GLOB ?", text


@lru_cache(256)
def _with_rows(sql: str, count: int, width: int) -> str:
    row = f"({', '.join('?' * width)})"
    return sql.replace("{rows}", f"VALUES {', '.join([row] * count)}")


class SqliteDatabase(Database):
    """Opens one SQLite file."""

    dialect = "sqlite"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._queue: queue.SimpleQueue[Write[Any] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._readers: ThreadPoolExecutor | None = None
        self._local = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._closed = False
        self._cpu_s = 0.0

    @property
    def writer_cpu_s(self) -> float:
        """CPU seconds of the writer."""
        return self._cpu_s

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

    def write(
        self, work: Callable[[Transaction], T], *, alone: bool = False
    ) -> "asyncio.Future[T]":
        """Run `work` in a transaction of the writer thread, where it always is alone."""
        if self._closed or self._thread is None:
            raise not_open()
        write = new_write(work)
        self._queue.put(write)
        return write.future

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` on a read-only connection in a thread; it sees what is committed."""
        if self._readers is None:
            raise not_open()
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, work)

    async def notify(self, text: str) -> None:
        """There is no other process on the file."""

    async def notices(self) -> AsyncIterator[str]:
        """Nobody tells anything."""
        await asyncio.Event().wait()
        yield ""

    def _read(self, work: Callable[[Transaction], T]) -> T:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._connect(read_only=True)
            self._local.connection = connection
        connection.execute("BEGIN")
        try:
            return work(SqliteTransaction(connection))
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
        usable: sqlite3.Connection | None = connection
        while (group := self._next_group()) is not None:
            usable = self._committed(usable, group)
            self._cpu_s = time.thread_time()
            answer(group)
        if usable is not None:
            usable.close()

    def _committed(
        self, connection: sqlite3.Connection | None, group: list[Write[Any]]
    ) -> sqlite3.Connection | None:
        """Give each write its outcome; returns the connection, None if it is of no use any more.

        A transaction that cannot be rolled back ends with its connection; another one is opened.
        """
        try:
            connection = connection or self._open_writer()
        except (sqlite3.Error, OSError) as error:
            _fail(group, error)
            return None
        try:
            _commit(connection, group)
        except BaseException:  # noqa: BLE001 - a writer that ends leaves all who write waiting
            _log.exception("database_connection_lost", file=self.path.name)
            with suppress(sqlite3.Error):
                connection.close()
            return None
        return connection

    def _open_writer(self) -> sqlite3.Connection:
        self.path.touch(mode=0o600, exist_ok=True)
        connection = self._connect(read_only=False)
        try:
            for pragma in _WRITER_PRAGMAS:
                connection.execute(pragma)
        except BaseException:
            connection.close()
            raise
        return connection

    def _next_group(self) -> list[Write[Any]] | None:
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


def _commit(connection: sqlite3.Connection, group: list[Write[Any]]) -> None:
    """Commit together, else one by one; whatever it raises, each write has its outcome."""
    try:
        if len(group) > 1 and _commit_together(connection, group):
            return
    except BaseException as error:
        _fail(group, error)
        raise
    for number, write in enumerate(group):
        try:
            _commit_alone(connection, write)
        except BaseException as error:
            _fail(group[number:], error)
            raise


def _fail(writes: Iterable[Write[Any]], error: BaseException) -> None:
    for write in writes:
        write.error = _ours(error)


def _commit_alone(connection: sqlite3.Connection, write: Write[Any]) -> None:
    write.error = None
    try:
        connection.execute("BEGIN IMMEDIATE")
        write.value = write.work(SqliteTransaction(connection))
        connection.execute("COMMIT")
    except BaseException as error:  # noqa: BLE001 - handed to the waiting task
        write.error = _ours(error)
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _commit_together(connection: sqlite3.Connection, group: list[Write[Any]]) -> bool:
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


def _run_in_savepoint(connection: sqlite3.Connection, write: Write[Any]) -> None:
    write.error = None
    try:
        write.value = write.work(SqliteTransaction(connection))
    except BaseException as error:  # noqa: BLE001 - handed to the waiting task
        write.error = _ours(error)
        if connection.in_transaction:
            connection.execute("ROLLBACK TO one")
    if connection.in_transaction:
        connection.execute("RELEASE one")


def _ours(error: BaseException) -> BaseException:
    """Third-party errors end here."""
    if is_full(error):
        message = "the disk of the state folder is full"
        ours: BaseException = StorageFullError(message, delay_s=5.0)
    elif isinstance(error, OverflowError):
        ours = InvalidError("a number is too large")
    elif isinstance(error, sqlite3.Error):
        ours = StorageError(f"the database refused: {error}")
    else:
        return error
    ours.__cause__ = error
    return ours
