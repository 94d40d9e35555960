"""Statements over one PostgreSQL connection, in pipeline mode.

What is only sent waits in the buffer until an answer is needed, and each statement is prepared
once: a transaction of a dozen statements costs a few round trips, and a third of the driver's CPU.
"""

import select
import struct
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Self

import psycopg
from psycopg import errors, pq
from psycopg.abc import Buffer
from psycopg.adapt import Loader, Transformer

from hivemesh_platform.storage.transaction import Parameters, Row, Value

PREPARED = 500  # statements of one connection; those with lists of any length are many
_OK = pq.ExecStatus.COMMAND_OK
_TUPLES = pq.ExecStatus.TUPLES_OK
_SYNC = pq.ExecStatus.PIPELINE_SYNC
_ABORTED = pq.ExecStatus.PIPELINE_ABORTED
_WAKE_MS = 1000  # between two looks whether the platform ends
_TYPES = {int: 20, bool: 20, float: 701, bytes: 17}  # others are what the statement makes of them

Result = Any  # of the driver: pq.abc.PGresult
Key = tuple[str, tuple[type, ...]]


class _Statement(NamedTuple):
    """How a statement is sent: by its name, or whole where it is not prepared."""

    text: bytes
    types: tuple[int, ...]
    formats: tuple[int, ...] | None
    prepared: bytes


class Column(bytes):
    """The values of one column of many rows, as the server reads an array: one parameter."""

    kind: str
    """The type of its elements, as a cast names it."""

    @classmethod
    def of(cls, values: Sequence[Value]) -> Self:
        """Encode texts, integers or floats; each of them may be None."""
        example = next((value for value in values if value is not None), "")
        kind, oid, dump = _ELEMENTS[example.__class__]
        parts = [_NULL if value is None else dump(value) for value in values]
        head = _ARRAY.pack(1, int(None in values), oid, len(parts), 1)
        made = cls(b"".join([head, *parts]))
        made.kind = kind
        return made


class WireRow:
    """A row of an answer."""

    __slots__ = ("_places", "_values")

    def __init__(self, values: tuple[Any, ...], places: Mapping[str, int]) -> None:
        self._values = values
        self._places = places

    def __getitem__(self, key: str | int, /) -> Any:
        """Return one value."""
        return self._values[self._places[key] if isinstance(key, str) else key]

    def __iter__(self) -> Iterator[Any]:
        """Return the values in the order of the columns."""
        return iter(self._values)

    def __len__(self) -> int:
        """Return the number of columns."""
        return len(self._values)

    def keys(self) -> list[str]:
        """Return the names of the columns."""
        return list(self._places)


class _Number(Loader):
    """A sum of integers is `numeric` to PostgreSQL and an integer to us."""

    def load(self, data: Buffer) -> int | float:
        text = bytes(data)
        return float(text) if b"." in text or b"N" in text else int(text)


class _Truth(Loader):
    """Booleans are integers to us."""

    def load(self, data: Buffer) -> int:
        return int(bytes(data) == b"t")


class Wire:
    """One connection. An error leaves it in a failed transaction until `roll_back`."""

    def __init__(
        self,
        connection: "psycopg.Connection[Any]",
        *,
        prepare: bool,
        given_up: Callable[[], bool] = lambda: False,
    ) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._prepare = prepare
        self._given_up = given_up
        self._poll = select.poll()
        self._poll.register(self._pgconn.socket, select.POLLIN)
        self._statements: dict[Key, _Statement] = {}
        self._places: dict[str, dict[str, int]] = {}  # of the columns, by statement
        self._fresh: list[Key] = []  # prepared in this transaction, and so perhaps in vain
        self._number = 0
        self._expected: deque[str] = deque()  # what was sent and not answered yet
        connection.adapters.register_loader("numeric", _Number)
        connection.adapters.register_loader("bool", _Truth)
        self._reader = Transformer(connection)
        self._pgconn.enter_pipeline_mode()

    @property
    def closed(self) -> bool:
        """Whether it is of no use any more."""
        return self._connection.closed

    def send(self, sql: str, parameters: Parameters = ()) -> None:
        """Have a statement run; an error shows at the next answer or commit."""
        statement, values = self._statement(sql, parameters)
        if statement.prepared:
            self._pgconn.send_query_prepared(statement.prepared, values, statement.formats)
        else:
            self._pgconn.send_query_params(
                statement.text, values, statement.types, statement.formats
            )
        self._expected.append(sql)

    def count(self, sql: str, parameters: Parameters = ()) -> int:
        """Run a statement and return how many rows it changed or answered."""
        self.send(sql, parameters)
        return int(self._answer().command_tuples or 0)

    def rows(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """Run a statement and return its rows."""
        [rows] = self.rows_of_each([(sql, parameters)])
        return rows

    def rows_of_each(self, questions: Sequence[tuple[str, Parameters]]) -> list[list[Row]]:
        """Run statements one after the other, and wait once for all of their rows."""
        sent = []
        for question in questions:
            self.send(*question)
            sent.append(len(self._expected))
        self._request_answers()
        return [
            self._rows(sql, self._result(sent[-1] - one))
            for (sql, _), one in zip(questions, sent, strict=True)
        ]

    def _rows(self, sql: str, result: Result) -> list[Row]:
        """Read all rows at once: the driver does so in a tenth of the time of value by value."""
        if not result.ntuples:
            return []
        places = self._places_of(sql, result)
        self._reader.set_pgresult(result)
        found = self._reader.load_rows(0, result.ntuples, tuple)
        self._reader.set_pgresult(None)  # its memory is of no use any more
        return [WireRow(values, places) for values in found]

    def row(self, sql: str, parameters: Parameters = ()) -> Row | None:
        """Run a statement and return its first row."""
        self.send(sql, parameters)
        rows = self._rows(sql, self._answer())
        return rows[0] if rows else None

    def commit(self) -> bool:
        """End the transaction; False where nothing of it was kept, because a statement failed."""
        self.send("COMMIT")
        tag = self._synced().command_status
        self._fresh.clear()
        return bool(tag == b"COMMIT")

    def roll_back(self) -> None:
        """Forget the transaction, and what may have been prepared in it."""
        for key in self._fresh:
            self._statements.pop(key, None)
        self._fresh.clear()
        self._settle()
        self._pgconn.send_query_params(b"ROLLBACK", None)
        self._expected.append("ROLLBACK")
        self._synced()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _statement(
        self, sql: str, parameters: Parameters
    ) -> tuple[_Statement, list[bytes | None] | None]:
        if isinstance(parameters, Mapping):
            parameters = [parameters[name] for name in _translated(sql)[1]]
        key = (sql, tuple([value.__class__ for value in parameters]))
        found = self._statements.get(key)
        if found is None:
            found = self._made(key)
        return found, [_dumped(value) for value in parameters] if parameters else None

    def _made(self, key: Key) -> _Statement:
        sql, classes = key
        text, _ = _translated(sql)
        types = tuple(_TYPES.get(one, 0) for one in classes)
        formats = tuple(int(one is Column) for one in classes) if Column in classes else None
        if not self._prepare or len(self._statements) >= PREPARED:
            return _Statement(text, types, formats, b"")
        self._number += 1
        made = _Statement(text, types, formats, b"h%d" % self._number)
        self._pgconn.send_prepare(made.prepared, text, types)
        self._expected.append(sql)
        self._statements[key] = made
        self._fresh.append(key)
        return made

    def _places_of(self, sql: str, result: Result) -> dict[str, int]:
        found = self._places.get(sql)
        if found is None or len(found) != result.nfields:
            found = {}
            for place in range(result.nfields):
                found.setdefault(result.fname(place).decode(), place)
            if len(self._places) < PREPARED:
                self._places[sql] = found
        return found

    def _answer(self) -> Result:
        """Wait for the answer of what was sent last."""
        self._request_answers()
        return self._result(0)

    def _request_answers(self) -> None:
        self._pgconn.send_flush_request()
        self._flush()

    def _result(self, following: int) -> Result:
        """Wait for the last answer before those of so many statements."""
        result = None
        while len(self._expected) > following:
            result = self._next()
        return result

    def _synced(self) -> Result:
        """Wait for everything, and let the server take up statements again after an error."""
        self._pgconn.pipeline_sync()
        self._flush()
        result, error = None, None
        while True:
            try:
                one = self._next()
            except psycopg.Error as failed:
                if self._pgconn.status != pq.ConnStatus.OK:
                    raise
                error = error or failed
                continue
            if one.status == _SYNC:
                break
            result = one
        self._expected.clear()
        if error is not None:
            raise error
        return result

    def _settle(self) -> None:
        """Read what is under way, errors included, until the server listens again."""
        try:
            self._synced()
        except psycopg.Error:
            if self._pgconn.status != pq.ConnStatus.OK:
                raise

    def _next(self) -> Result:
        """The next answer, in the order of sending.

        Raises:
            psycopg.Error: the statement was refused, or the connection is gone.
        """
        result = self._get()
        while result is None:
            result = self._get()
        if result.status == _SYNC:
            return result
        self._expected.popleft()
        while self._get() is not None:
            continue
        if result.status in {_OK, _TUPLES}:
            return result
        if self._pgconn.status != pq.ConnStatus.OK:
            raise psycopg.OperationalError(_reason(self._pgconn))
        if result.status == _ABORTED:
            message = "an earlier statement of the transaction had failed"
            raise psycopg.errors.InFailedSqlTransaction(message)
        raise errors.error_from_result(result)

    def _get(self) -> Result:
        while self._pgconn.is_busy():
            self._wait(select.POLLIN)
            self._pgconn.consume_input()
        if self._pgconn.status != pq.ConnStatus.OK:
            raise psycopg.OperationalError(_reason(self._pgconn))
        return self._pgconn.get_result()

    def _flush(self) -> None:
        while self._pgconn.flush():
            if self._wait(select.POLLIN | select.POLLOUT) & select.POLLIN:
                self._pgconn.consume_input()

    def _wait(self, what: int) -> int:
        self._poll.modify(self._pgconn.socket, what)
        while not (ready := self._poll.poll(_WAKE_MS)):
            if self._given_up():
                message = "the platform ended while the database server did not answer"
                raise psycopg.OperationalError(message)
        return ready[0][1]


@lru_cache(2048)
def _translated(sql: str) -> tuple[bytes, tuple[str, ...]]:
    """A statement with `$1`, `$2` … and the names of its parameters in this order, if it has any."""
    parts: list[str] = []
    names: list[str] = []
    count = place = 0
    end = len(sql)
    while place < end:
        sign = sql[place]
        if sign == "'":
            closing = sql.index("'", place + 1) + 1
            parts.append(sql[place:closing])
            place = closing
        elif sign == "?":
            count += 1
            parts.append(f"${count}")
            place += 1
        elif sign == ":" and sql[place + 1 : place + 2].isalpha() and sql[place - 1] != ":":
            stop = place + 1
            while stop < end and (sql[stop].isalnum() or sql[stop] == "_"):
                stop += 1
            name = sql[place + 1 : stop]
            if name not in names:
                names.append(name)
            parts.append(f"${names.index(name) + 1}")
            place = stop
        else:
            parts.append(sign)
            place += 1
    return "".join(parts).encode(), tuple(names)


def _dumped(value: Any) -> bytes | None:
    """A parameter as text; many values are as they have been encoded."""
    if value is None or isinstance(value, Column):
        return value
    if isinstance(value, str):
        return _encoded(value)
    if isinstance(value, bool):
        return b"1" if value else b"0"
    if isinstance(value, int):
        return b"%d" % value
    if isinstance(value, float):
        return repr(value).encode()
    text: str = value.hex()
    return b"\\x" + text.encode()


def _encoded(value: str) -> bytes:
    data = value.encode()
    return data.replace(b"\x00", "\ufffd".encode()) if b"\x00" in data else data


def _text_element(value: str) -> bytes:
    data = _encoded(value)
    return _LENGTH.pack(len(data)) + data


_ARRAY = struct.Struct(">iiIii")  # dimensions, whether some are null, type, length, first index
_LENGTH = struct.Struct(">i")
_INTEGER = struct.Struct(">iq")
_FLOAT = struct.Struct(">id")
_NULL = _LENGTH.pack(-1)
_ELEMENTS: dict[type, tuple[str, int, Callable[[Any], bytes]]] = {
    str: ("text", 25, _text_element),
    int: ("bigint", 20, lambda value: _INTEGER.pack(8, value)),
    float: ("double precision", 701, lambda value: _FLOAT.pack(8, value)),
}


def _reason(pgconn: Any) -> str:
    text: str = pgconn.get_error_message()
    return text.strip() or "the connection is lost"
