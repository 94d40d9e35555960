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
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from types import TracebackType
from typing import Any, Self, TypeVar

import psycopg
import structlog

from hivemesh_platform.storage import server as servers
from hivemesh_platform.storage.database import (
    Database,
    Write,
    answer,
    new_write,
    not_open,
    patience_ends,
)
from hivemesh_platform.storage.errors import DatabaseUnreachableError, StorageError
from hivemesh_platform.storage.server import Server
from hivemesh_platform.storage.transaction import Parameters, Row, Transaction, Value
from hivemesh_platform.storage.wire import Column, Wire

T = TypeVar("T")

WRITERS = 4
READERS = 4
ROWS = 1000  # in one statement: bounds its memory
CHANNEL = "hivemesh"
MAX_NOTICE = 7900  # bytes; the server refuses 8000
_PAUSE_S = (0.05, 1.0)  # between two tries to reach the server: shortest, longest
_FORGET_WRITER_MS = 7 * 86_400_000
_BEGIN_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_ON_PRIMARY = "SELECT pg_current_wal_lsn()"  # an error on a standby, of what is behind
_BEGIN = "BEGIN"
_BEGIN_ALONE = "BEGIN ISOLATION LEVEL SERIALIZABLE"
_BY_KEY = """
SELECT set_config('plan_cache_mode', 'force_custom_plan', true),
       set_config('enable_seqscan', 'off', true), set_config('enable_mergejoin', 'off', true)
"""  # a plan from a time when there were few rows, or as if, would join whole tables
_LET_GO = f"SET LOCAL idle_in_transaction_session_timeout = {servers.IDLE_IN_TRANSACTION_MS}"
_MARK = """
INSERT INTO writer (id, no, at) VALUES (:id, :no, :at)
ON CONFLICT (id) DO UPDATE SET no = excluded.no, at = excluded.at
"""
_ENTER = "INSERT INTO writer (id, no, at) VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING"

_log = structlog.get_logger("hivemesh.storage")


class PostgresTransaction(Transaction):
    """A transaction of PostgreSQL; others run at the same time."""

    __slots__ = ("_wire",)

    dialect = "postgresql"
    for_update = " FOR UPDATE"
    for_share = " FOR SHARE"
    for_key_share = " FOR KEY SHARE"
    skip_locked = " FOR UPDATE SKIP LOCKED"

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def execute(self, sql: str, parameters: Parameters = ()) -> int:
        """Run a written statement and return how many rows it changed."""
        return self._wire.count(sql, parameters)

    def send(self, sql: str, parameters: Parameters = ()) -> None:
        """Run a written statement whose number of changed rows nobody needs."""
        self._wire.send(sql, parameters)

    def execute_many(self, sql: str, rows: Iterable[Parameters]) -> None:
        """Run a written statement once per row of parameters."""
        for parameters in rows:
            self._wire.send(sql, parameters)

    def send_rows(
        self, sql: str, rows: Sequence[Sequence[Value]], parameters: Sequence[Value] = ()
    ) -> None:
        """Run a written statement on many rows at a time; `{rows}` in it stands for them.

        A column of them is one parameter, so a statement is parsed once for any number of rows.
        """
        self._wire.send(_BY_KEY)
        for first in range(0, len(rows), ROWS):
            columns = [Column.of(one) for one in zip(*rows[first : first + ROWS], strict=True)]
            text = _with_rows(sql, tuple([one.kind for one in columns]))
            self._wire.send(text, (*columns, *parameters))

    def all(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """Run a written statement and return all of its rows."""
        return self._wire.rows(sql, parameters)

    def one(self, sql: str, parameters: Parameters = ()) -> Row | None:
        """Run a written statement and return its first row, or None where there is none."""
        return self._wire.row(sql, parameters)

    def each(self, *questions: tuple[str, Parameters]) -> list[list[Row]]:
        """Run statements in order, and wait once for all of them; return their rows."""
        return self._wire.rows_of_each(questions)

    @staticmethod
    def matching(column: str, pattern: str) -> tuple[str, str]:
        """Return a condition on a text column and its parameter; `*` stands for any characters."""
        text = "".join(f"\\{one}" if one in "\\%_" else one for one in pattern)
        return f"{column} LIKE ?", text.replace("*", "%")


@lru_cache(256)
def _with_rows(sql: str, kinds: Sequence[str]) -> str:
    columns = ", ".join(f"?::{kind}[]" for kind in kinds)
    return sql.replace("{rows}", f"SELECT * FROM unnest({columns})")  # noqa: S608 - kinds alone


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
        self._writers = [_Writer(self) for _ in range(writers)]
        self._reader_count = readers
        self._queue: queue.SimpleQueue[Write[Any] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._readers: ThreadPoolExecutor | None = None
        self._local = threading.local()
        self._opened: list[Wire] = []
        self._closing = threading.Event()
        self._closed = False
        self._away = threading.Lock()
        self._away_since: float | None = None

    @property
    def writer_cpu_s(self) -> float:
        """CPU seconds of the writers: what durability costs, without the server's part."""
        return sum(writer.cpu_s for writer in self._writers)

    @property
    def repeated(self) -> Mapping[str, int]:
        """How many transactions were run again because they lost against others, by reason."""
        return sum((writer.repeated for writer in self._writers), Counter())

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
        for wire in self._opened:
            wire.close()
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
        if write.until is not None:
            timer = write.loop.call_at(
                write.loop.time() + 1 + write.until - time.monotonic(), _give_up, write
            )
            write.future.add_done_callback(lambda _: timer.cancel())
        return write.future

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` on a read-only connection in a thread; it sees one moment.

        Raises:
            DatabaseUnreachableError: the server has not answered for as long as we have patience.
        """
        if self._readers is None or self._closed:
            raise not_open()
        until, loop = patience_ends(), asyncio.get_running_loop()
        answered = loop.run_in_executor(self._readers, self._read, work, until)
        if until is None:
            return await answered
        waiting = asyncio.timeout(1 + until - time.monotonic())
        try:
            async with waiting:
                return await answered
        except TimeoutError:
            if not waiting.expired():
                raise
            raise _unreachable() from None

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
            connection.execute("DELETE FROM writer WHERE at < %s", (now - _FORGET_WRITER_MS,))
        except psycopg.Error as error:
            raise servers.ours(error) from error
        finally:
            connection.close()

    def _read(self, work: Callable[[Transaction], T], until: float | None) -> T:
        pause, outdated = _PAUSE_S[0], False
        while True:
            try:
                return self._read_once(work)
            except psycopg.Error as error:
                self._forget_reader()
                if servers.is_outdated(error) and not outdated:
                    outdated = True
                    continue
                away = servers.is_gone(error) or servers.is_behind(error)
                if not away or self._closed:
                    raise servers.ours(error) from error
                if until is not None and time.monotonic() >= until:
                    raise _unreachable() from error
            if self._closing.wait(pause):
                raise not_open()
            pause = min(pause * 2, _PAUSE_S[1])

    def _read_once(self, work: Callable[[Transaction], T]) -> T:
        wire: Wire | None = getattr(self._local, "wire", None)
        if wire is None or wire.closed:
            wire = self.wire()
            self._local.wire = wire
            self._opened.append(wire)
        wire.send(_BEGIN_READ)
        try:
            if self.server.pooled:  # who answers may be another one than at the connection's start
                wire.send(_ON_PRIMARY)
            value = work(PostgresTransaction(wire))
            wire.commit()
        except BaseException:
            if not wire.closed:
                wire.roll_back()
            raise
        return value

    def _forget_reader(self) -> None:
        wire: Wire | None = getattr(self._local, "wire", None)
        if wire is not None:
            wire.close()
            self._opened.remove(wire)
            self._local.wire = None

    def wire(self) -> Wire:
        """Open a connection; raises the driver's errors."""
        server = self.server
        given_up = self._closing.is_set
        connection = server.connect()
        try:
            return Wire(connection, prepare=not server.pooled, given_up=given_up)
        except BaseException:
            connection.close()
            raise

    def note_away(self, error: BaseException) -> None:
        """Tell once that the server does not answer."""
        with self._away:
            if self._away_since is not None:
                return
            self._away_since = time.monotonic()
        _log.warning("database_away", server=str(self.server), error=_first_line(error))

    def note_back(self) -> None:
        """Tell once that the server answers again."""
        with self._away:
            if self._away_since is None:
                return
            away, self._away_since = time.monotonic() - self._away_since, None
        _log.info("database_back", server=str(self.server), away_s=round(away, 1))


def _give_up(write: Write[Any]) -> None:
    """Answer who waits for a write that no writer has come to; runs in his loop."""
    if not write.future.done() and write.taken.acquire(blocking=False):
        write.future.set_exception(_unreachable())


def _unreachable() -> DatabaseUnreachableError:
    return DatabaseUnreachableError("the database server does not answer", delay_s=2.0)


class _Writer:
    """One thread with a connection of its own; takes writes from the queue that all share."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database
        self._id = uuid.uuid4().hex
        self._no = 0  # of the last transaction
        self._wire: Wire | None = None
        self.cpu_s = 0.0
        self.repeated: Counter[str] = Counter()

    def run(self, waiting: "queue.SimpleQueue[Write[Any] | None]") -> None:
        """Write until there is a None in the queue."""
        while (write := waiting.get()) is not None:
            if not write.taken.acquire(blocking=False):
                continue  # nobody waits for it any longer
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
                wire = self._connected()
                if unsure and self._has_counted(wire):
                    return write.value  # type: ignore[return-value]  # set before the commit
                unsure = False
                self._begin(wire, write)
                write.value = write.work(PostgresTransaction(wire))
                unsure = True
                _commit(wire)
            except psycopg.Error as error:
                if servers.is_gone(error) or servers.is_standby(error):
                    self._wait_for_server(error, None if unsure else write.until)
                    continue
                unsure = False
                if servers.is_outdated(error):
                    self._drop()
                else:
                    self._roll_back()
                repeats += 1
                if repeats > servers.repeats(error):
                    raise
                self.repeated[servers.reason(error)] += 1
                time.sleep(random.uniform(0, min(0.002 * 2**repeats, 0.2)))  # noqa: S311 - jitter
            except BaseException:
                self._roll_back()
                raise
            else:
                return write.value

    def _begin(self, wire: Wire, write: Write[Any]) -> None:
        wire.send(_BEGIN_ALONE if write.alone else _BEGIN)
        if self._database.server.pooled:
            wire.send(_LET_GO)
        wire.send(_MARK, {"id": self._id, "no": self._no, "at": _milliseconds()})

    def _has_counted(self, wire: Wire) -> bool:
        """Whether the transaction whose commit nobody answered has taken place.

        Waits for the server to end that transaction, if it still runs there: it holds our row.
        """
        wire.send(_BEGIN)
        row = wire.row("SELECT no FROM writer WHERE id = ? FOR UPDATE", (self._id,))
        wire.commit()
        if row is None:
            message = "nobody knows whether a transaction has taken place: its writer's row is gone"
            raise StorageError(message)
        return bool(row["no"] >= self._no)

    def _connected(self) -> Wire:
        if self._wire is None or self._wire.closed:
            wire = self._database.wire()
            try:
                wire.send(_BEGIN)
                wire.send(_ENTER, (self._id, self._no - 1, _milliseconds()))
                _commit(wire)
            except BaseException:
                wire.close()
                raise
            self._wire = wire
            self._database.note_back()
        return self._wire

    def _wait_for_server(self, error: psycopg.Error, until: float | None) -> None:
        """Drop the connection and wait a moment.

        Raises:
            DatabaseUnreachableError: the platform ends meanwhile, or who asked waits no longer.
        """
        self._drop()
        self._database.note_away(error)
        if until is not None and time.monotonic() >= until:
            raise _unreachable() from error
        pause = random.uniform(*_PAUSE_S)  # noqa: S311 - jitter
        if self._database.is_closing.wait(pause):
            message = "the platform ended while the database server did not answer"
            raise DatabaseUnreachableError(message) from error

    def _roll_back(self) -> None:
        if self._wire is None:
            return
        try:
            if not self._wire.closed:
                self._wire.roll_back()
        except psycopg.Error:
            self._drop()

    def _drop(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def _leave(self) -> None:
        """Take the row away: after an orderly end nobody asks for it."""
        try:
            if self._wire is not None:
                self._wire.send(_BEGIN)
                self._wire.send("DELETE FROM writer WHERE id = ?", (self._id,))
                self._wire.commit()
        except psycopg.Error:
            pass  # the next start forgets it after some days
        self._drop()


def _commit(wire: Wire) -> None:
    """Commit, and see that it was no ROLLBACK of a transaction in which a statement had failed."""
    if not wire.commit():
        message = "a statement of the transaction had failed, so nothing of it was kept"
        raise StorageError(message)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def _milliseconds() -> int:
    return time.time_ns() // 1_000_000
