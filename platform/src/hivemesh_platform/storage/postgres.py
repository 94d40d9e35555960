"""The PostgreSQL database: a few connections that write side by side, and some that read.

Whether a transaction counts is always known, even where the server vanished during its commit:
each connection that writes has a row with the number of its last transaction, written in the same
transaction. So a transaction is run again exactly when it did not count.
"""

import asyncio
import queue
import random
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import psycopg
import structlog

from hivemesh_platform.storage import server as servers
from hivemesh_platform.storage.database import Database, Write, answer, new_write, not_open
from hivemesh_platform.storage.errors import DatabaseUnreachableError, StorageError
from hivemesh_platform.storage.server import Server, translated, values, without_nul
from hivemesh_platform.storage.transaction import Parameters, Row, Transaction

if TYPE_CHECKING:
    from psycopg import Cursor

T = TypeVar("T")

WRITERS = 4
READERS = 4
CHANNEL = "hivemesh"
MAX_NOTICE = 7900  # bytes; the server refuses 8000
READ_WAIT_S = 10.0  # until a read gives up on a server that does not answer
_PAUSE_S = (0.05, 1.0)  # between two tries to reach the server: first, longest
_FORGET_WRITER_MS = 7 * 86_400_000
_BEGIN_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_BEGIN = "BEGIN"
_BEGIN_ALONE = "BEGIN ISOLATION LEVEL SERIALIZABLE"
_MARK = "UPDATE writer SET no = $1, at = $2 WHERE id = $3 AND no < $1"

_log = structlog.get_logger("hivemesh.storage")


class PostgresTransaction(Transaction):
    """A transaction of PostgreSQL; others run at the same time."""

    __slots__ = ("_cursor",)

    dialect = "postgresql"
    for_update = " FOR UPDATE"
    for_share = " FOR SHARE"
    skip_locked = " FOR UPDATE SKIP LOCKED"

    def __init__(self, cursor: "Cursor[Any]") -> None:
        self._cursor = cursor

    def execute(self, sql: str, parameters: Parameters = ()) -> int:
        """Run a written statement and return how many rows it changed."""
        self.send(sql, parameters)
        return self._cursor.rowcount

    def send(self, sql: str, parameters: Parameters = ()) -> None:
        """Run a written statement whose number of changed rows nobody needs."""
        text, names = translated(sql)
        found = values(parameters, names)
        try:
            self._cursor.execute(text, found)
        except psycopg.DataError as error:
            if "NUL" not in str(error):
                raise
            self._cursor.execute(text, without_nul(found))

    def execute_many(self, sql: str, rows: Iterable[Parameters]) -> None:
        """Run a written statement once per row of parameters."""
        text, names = translated(sql)
        found = [values(one, names) for one in rows]
        try:
            self._cursor.executemany(text, found)
        except psycopg.DataError as error:
            if "NUL" not in str(error):
                raise
            self._cursor.executemany(text, [without_nul(one) for one in found])

    def all(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """Run a written statement and return all of its rows."""
        self.send(sql, parameters)
        return self._cursor.fetchall()

    def one(self, sql: str, parameters: Parameters = ()) -> Row | None:
        """Run a written statement and return its first row, or None where there is none."""
        self.send(sql, parameters)
        row: Row | None = self._cursor.fetchone()
        return row

    @staticmethod
    def matching(column: str, pattern: str) -> tuple[str, str]:
        """Return a condition on a text column and its parameter; `*` stands for any characters."""
        text = "".join(f"\\{one}" if one in "\\%_" else one for one in pattern)
        return f"{column} LIKE ?", text.replace("*", "%")


class PostgresDatabase(Database):
    """Opens a database that has our schema already.

    `direct` reaches the server without a pooler in between; it hears what others notify.
    """

    dialect = "postgresql"

    def __init__(
        self,
        server: Server,
        direct: Server | None = None,
        *,
        writers: int = WRITERS,
        readers: int = READERS,
    ) -> None:
        self.server = server
        self._direct = direct or server
        self._writers = [_Writer(self, server) for _ in range(writers)]
        self._reader_count = readers
        self._queue: queue.SimpleQueue[Write[Any] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._readers: ThreadPoolExecutor | None = None
        self._local = threading.local()
        self._opened: list[psycopg.Connection[Any]] = []
        self._closing = threading.Event()
        self._closed = False

    @property
    def writer_cpu_s(self) -> float:
        """CPU seconds of the writers: what durability costs, without the server's part."""
        return sum(writer.cpu_s for writer in self._writers)

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._check)
        for number, writer in enumerate(self._writers):
            thread = threading.Thread(
                target=writer.run,
                args=(self._queue,),
                name=f"database-writer-{number}",
                daemon=True,
            )
            thread.start()
            self._threads.append(thread)
        self._readers = ThreadPoolExecutor(self._reader_count, thread_name_prefix="database-reader")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed = True
        self._closing.set()
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        self._threads.clear()
        if self._readers is not None:
            await asyncio.to_thread(self._readers.shutdown)
        for connection in self._opened:
            connection.close()
        self._opened.clear()

    @property
    def is_closing(self) -> threading.Event:
        """Set when nobody waits any longer."""
        return self._closing

    def write(
        self, work: Callable[[Transaction], T], *, alone: bool = False
    ) -> "asyncio.Future[T]":
        """Run `work` in a transaction of one of the writers; waits for a server that is away."""
        if self._closed or not self._threads:
            raise not_open()
        write = new_write(work, alone=alone)
        self._queue.put(write)
        return write.future

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` on a read-only connection in a thread; it sees one moment.

        Raises:
            DatabaseUnreachableError: the server has not answered for ten seconds.
        """
        if self._readers is None or self._closed:
            raise not_open()
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, work)

    async def notify(self, text: str) -> None:
        """Tell the other processes on this database something."""
        if len(text.encode()) > MAX_NOTICE:
            text = ""
        await self.write(lambda tx: tx.send("SELECT pg_notify(?, ?)", (CHANNEL, text)))

    async def notices(self) -> AsyncIterator[str]:
        """What processes tell on this database, our own included, until cancelled."""
        loop = asyncio.get_running_loop()
        heard: asyncio.Queue[str] = asyncio.Queue()
        stop = threading.Event()

        def tell(text: str) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(heard.put_nowait, text)

        thread = threading.Thread(
            target=self._listen, args=(tell, stop), name="database-listener", daemon=True
        )
        thread.start()
        try:
            while True:
                yield await heard.get()
        finally:
            stop.set()

    def _listen(self, tell: Callable[[str], None], stop: threading.Event) -> None:
        while not (stop.is_set() or self._closing.is_set()):
            try:
                with self._direct.connect() as connection:
                    connection.execute(f"LISTEN {CHANNEL}")
                    tell("")
                    while not (stop.is_set() or self._closing.is_set()):
                        for notice in connection.notifies(timeout=0.5):
                            tell(notice.payload)
            except psycopg.Error:
                stop.wait(_PAUSE_S[1])

    def _check(self) -> None:
        connection = self.server.connect()
        try:
            servers.check(connection)
            now = _milliseconds()
            connection.execute("DELETE FROM writer WHERE at < $1", (now - _FORGET_WRITER_MS,))
        except psycopg.Error as error:
            raise servers.ours(error) from error
        finally:
            connection.close()

    def _read(self, work: Callable[[Transaction], T]) -> T:
        until, pause = time.monotonic() + READ_WAIT_S, _PAUSE_S[0]
        while True:
            try:
                return self._read_once(work)
            except psycopg.Error as error:
                self._forget_reader()
                if not servers.is_gone(error) or time.monotonic() > until or self._closed:
                    raise servers.ours(error) from error
            if self._closing.wait(pause):
                raise not_open()
            pause = min(pause * 2, _PAUSE_S[1])

    def _read_once(self, work: Callable[[Transaction], T]) -> T:
        connection: psycopg.Connection[Any] | None = getattr(self._local, "connection", None)
        if connection is None or connection.closed:
            connection = self.server.connect()
            self._local.connection = connection
            self._opened.append(connection)
        cursor = connection.cursor(row_factory=servers.rows)
        cursor.execute(_BEGIN_READ)
        try:
            return work(PostgresTransaction(cursor))
        finally:
            if not connection.closed:  # COMMIT: a ROLLBACK makes the driver forget its statements
                cursor.execute("COMMIT")

    def _forget_reader(self) -> None:
        connection: psycopg.Connection[Any] | None = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._opened.remove(connection)
            self._local.connection = None


class _Writer:
    """One thread with a connection of its own; takes writes from the queue that all share."""

    def __init__(self, database: PostgresDatabase, server: Server) -> None:
        self._database = database
        self._server = server
        self._id = uuid.uuid4().hex
        self._no = 0  # of the last transaction
        self._connection: psycopg.Connection[Any] | None = None
        self._away_since: float | None = None
        self.cpu_s = 0.0

    def run(self, waiting: "queue.SimpleQueue[Write[Any] | None]") -> None:
        """Write until there is a None in the queue."""
        while (write := waiting.get()) is not None:
            self._no += 1
            try:
                write.value = self._write(write)
            except BaseException as error:  # noqa: BLE001 - handed to the waiting task
                write.error = servers.ours(error)
            self.cpu_s = time.thread_time()
            answer([write])
        self._leave()

    def _write(self, write: Write[T]) -> T:
        """Run a write until it counts, or fails by itself."""
        repeats, unsure = 0, False
        while True:
            try:
                cursor = self._cursor()
                if unsure and self._has_counted(cursor):
                    return write.value  # type: ignore[return-value]  # set before the commit
                unsure = False
                self._begin(cursor, write)
                write.value = write.work(PostgresTransaction(cursor))
                unsure = True
                _commit(cursor)
            except psycopg.Error as error:
                if servers.is_gone(error) or servers.is_standby(error):
                    self._wait_for_server(error)
                    continue
                unsure = False
                self._roll_back()
                repeats += 1
                if repeats > servers.repeats(error):
                    raise
                time.sleep(random.uniform(0, min(0.002 * 2**repeats, 0.2)))  # noqa: S311 - jitter
            except BaseException:
                self._roll_back()
                raise
            else:
                return write.value

    def _begin(self, cursor: "Cursor[Any]", write: Write[Any]) -> None:
        cursor.execute(_BEGIN_ALONE if write.alone else _BEGIN, prepare=False)
        if self._server.pooled:
            cursor.execute(
                f"SET LOCAL idle_in_transaction_session_timeout = {servers.IDLE_IN_TRANSACTION_MS}"
            )
        cursor.execute(_MARK, (self._no, _milliseconds(), self._id))
        if cursor.rowcount == 0:  # an idle week: the row was forgotten
            cursor.execute("ROLLBACK", prepare=False)
            self._enter(cursor)
            self._begin(cursor, write)

    def _enter(self, cursor: "Cursor[Any]") -> None:
        """Have the row before the first transaction, so that it can be waited for."""
        cursor.execute(
            "INSERT INTO writer (id, no, at) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING",
            (self._id, self._no - 1, _milliseconds()),
        )

    def _has_counted(self, cursor: "Cursor[Any]") -> bool:
        """Whether the transaction whose commit nobody answered has taken place.

        Waits for the server to end that transaction, if it still runs there: it holds our row.
        """
        cursor.execute("SELECT no FROM writer WHERE id = $1 FOR UPDATE", (self._id,))
        row = cursor.fetchone()
        if row is None:
            message = "nobody knows whether a transaction has taken place: its writer's row is gone"
            raise StorageError(message)
        return bool(row["no"] >= self._no)

    def _cursor(self) -> "Cursor[Any]":
        if self._connection is None:
            connection = self._server.connect()
            self._enter(connection.cursor())
            self._connection = connection
            if self._away_since is not None:
                away = time.monotonic() - self._away_since
                _log.info("database_back", server=str(self._server), away_s=round(away, 1))
                self._away_since = None
        return self._connection.cursor(row_factory=servers.rows)

    def _wait_for_server(self, error: psycopg.Error) -> None:
        """Drop the connection and wait a moment.

        Raises:
            DatabaseUnreachableError: the platform ends meanwhile.
        """
        self._drop()
        first = self._away_since is None
        if first:
            self._away_since = time.monotonic()
            _log.warning("database_away", server=str(self._server), error=_first_line(error))
        pause = _PAUSE_S[0] if first else random.uniform(*_PAUSE_S)  # noqa: S311 - jitter
        if self._database.is_closing.wait(pause):
            message = "the platform ended while the database server did not answer"
            raise DatabaseUnreachableError(message) from error

    def _roll_back(self) -> None:
        if self._connection is None:
            return
        try:
            if not self._connection.closed:
                self._connection.execute("ROLLBACK", prepare=False)
        except psycopg.Error:
            self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _leave(self) -> None:
        """Take the row away: after an orderly end nobody asks for it."""
        try:
            if self._connection is not None:
                self._connection.execute("DELETE FROM writer WHERE id = $1", (self._id,))
        except psycopg.Error:
            pass  # the next start forgets it after some days
        self._drop()


def _commit(cursor: "Cursor[Any]") -> None:
    """Commit, and see that it was no ROLLBACK of a transaction in which a statement had failed."""
    cursor.execute("COMMIT", prepare=False)
    if cursor.statusmessage != "COMMIT":
        message = "a statement of the transaction had failed, so nothing of it was kept"
        raise StorageError(message)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def _milliseconds() -> int:
    return time.time_ns() // 1_000_000
