"""One PostgreSQL server as we speak to it: where it is, connections, and what its errors mean.

The only module beside `postgres` that knows the driver; both are imported where the settings name
a server.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import psycopg
from psycopg import RawCursor, conninfo
from psycopg.adapt import AdaptersMap, Buffer, Loader
from psycopg.types.numeric import Int8Dumper

from hivemesh_platform.storage.errors import (
    DatabaseUnreachableError,
    DatabaseUnsuitableError,
    StorageError,
    StorageFullError,
)

OLDEST = 13  # major version: the oldest that PostgreSQL itself still mended in 2025
IDLE_IN_TRANSACTION_MS = 10_000  # a process that stopped inside a transaction lets go of its rows
_DEFAULTS = {
    "application_name": "hivemesh",
    "connect_timeout": "5",
    # A server that vanished behind a cut network is noticed after 10 s, not after two hours.
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
    "client_encoding": "utf8",
}
_VERIFIED = frozenset({"verify-full", "verify-ca"})
_REPEATS = {
    "40001": 20,  # serialization failure
    "40P01": 20,  # deadlock
    "55P03": 20,  # lock not available
    "23505": 3,  # unique violation: somebody was faster, and the second run sees it
}
_GONE = ("08", "57P01", "57P02", "57P03", "25P03", "53300")
"""Connection, shutdown, start, idle in transaction, too many connections."""
_FULL = ("53100", "53400")
_REFUSED = ("28", "3D000", "0A000", "42501")  # credentials, no such database, rights
_FILES = ("ENOSPC", "No space left")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """How to reach a database; its text shows no password."""

    parameters: Mapping[str, str] = field(repr=False)
    pooled: bool = False  # a pooler in transaction mode stands before it: no session state

    def __str__(self) -> str:
        found = self.parameters
        host = found.get("host", "") or found.get("hostaddr", "") or "local socket"
        return f"{found.get('dbname', '')} at {host}:{found.get('port', '5432')}"

    def connect(self, *, adapted: bool = True) -> "psycopg.Connection[Any]":
        """Open a connection without a transaction; raises the driver's errors."""
        connection = psycopg.connect(
            **self.parameters,  # type: ignore[arg-type]  # all of them are text
            autocommit=True,
            prepare_threshold=None if self.pooled else 5,
            context=_adapters() if adapted else None,
        )
        if adapted:
            connection.cursor_factory = RawCursor
        if not self.pooled:
            connection.prepared_max = 512
            connection.execute(
                f"SET idle_in_transaction_session_timeout = {IDLE_IN_TRANSACTION_MS}"
            )
        return connection


def server(url: str, *, pooled: bool = False) -> Server:
    """Read an address, and add what a safe connection needs.

    Raises:
        DatabaseUnsuitableError: it is no address of PostgreSQL, or a connection that nobody checks.
    """
    try:
        found = {key: str(value) for key, value in conninfo.conninfo_to_dict(url).items()}
    except psycopg.ProgrammingError as error:
        message = f"database.url is not an address as postgresql://user@host/database: {error}"
        raise DatabaseUnsuitableError(message) from error
    if not found.get("dbname"):
        message = "database.url names no database; write postgresql://user@host/database"
        raise DatabaseUnsuitableError(message)
    if not _is_socket(found):
        _protect(found)
    return Server(parameters={**_DEFAULTS, **found}, pooled=pooled)


def _is_socket(found: Mapping[str, str]) -> bool:
    host = found.get("host", "")
    return "hostaddr" not in found and all(
        one.startswith(("/", "@")) or not one for one in host.split(",")
    )


def _protect(found: dict[str, str]) -> None:
    """TLS with a checked name, unless a plain connection is asked for by name."""
    mode = found.setdefault("sslmode", "verify-full")
    if mode == "disable":
        return
    if mode not in _VERIFIED:
        message = (
            f"database.url has sslmode={mode}, with which nobody checks who answers; write "
            "sslmode=verify-full with sslrootcert=FILE, or sslmode=disable for a plain connection"
        )
        raise DatabaseUnsuitableError(message)
    personal = Path.home() / ".postgresql" / "root.crt"
    if "sslrootcert" not in found and mode == "verify-full" and not personal.exists():
        found["sslrootcert"] = "system"


def check(connection: "psycopg.Connection[Any]") -> None:
    """Refuse a server that would not keep what it acknowledges, or keeps other text than ours.

    Raises:
        DatabaseUnsuitableError: with what to change.
    """
    if connection.info.server_version < OLDEST * 10_000:
        message = (
            f"the database server has version {connection.info.server_version // 10_000}, "
            f"{OLDEST} is needed; upgrade the server"
        )
        raise DatabaseUnsuitableError(message)
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        message = f"the database has encoding {encoding}; create it with ENCODING 'UTF8'"
        raise DatabaseUnsuitableError(message)
    row = connection.execute("SHOW synchronous_commit").fetchone()
    if row is not None and row[0] == "off":
        message = "synchronous_commit is off for this user: what was acknowledged could be lost"
        raise DatabaseUnsuitableError(message)


def is_gone(error: BaseException) -> bool:
    """Whether the connection is of no use any more, and another one may be."""
    if not isinstance(error, psycopg.Error):
        return False
    state = error.sqlstate
    if state is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return state.startswith(_GONE)


def is_standby(error: BaseException) -> bool:
    """Whether a server that may not write has answered: after a fail-over, until DNS follows."""
    return isinstance(error, psycopg.Error) and error.sqlstate == "25006"


def repeats(error: BaseException) -> int:
    """How often a transaction may be run again, because it lost against another one."""
    return _REPEATS.get(getattr(error, "sqlstate", None) or "", 0)


def refuses_us(error: BaseException) -> bool:
    """Whether a connection failed for a reason that waiting does not mend."""
    if not isinstance(error, psycopg.OperationalError):
        return False
    state = error.sqlstate
    if state is not None:
        return state.startswith(_REFUSED)
    text = str(error)
    return any(
        one in text
        for one in (
            "password authentication failed",
            "no password supplied",
            "does not exist",
            "certificate verify failed",
            "server does not support SSL",
            "root certificate file",
            "could not read root certificate",
            "no pg_hba.conf entry",
            "certificate for",
        )
    )


def ours(error: BaseException) -> BaseException:
    """Third-party errors end here."""
    if not isinstance(error, psycopg.Error):
        return error
    state = error.sqlstate or ""
    text = str(error).strip().partition("\n")[0]
    mine: BaseException
    if state.startswith(_FULL) or any(one in text for one in _FILES):
        mine = StorageFullError("the disk of the database server is full", delay_s=5.0)
    elif is_gone(error):
        mine = DatabaseUnreachableError(f"the database server does not answer: {text}", delay_s=2.0)
    else:
        mine = StorageError(f"the database refused: {text}")
    mine.__cause__ = error
    return mine


class _Row(tuple[Any, ...]):
    """A row by name or place, as sqlite3.Row is; one subclass per list of columns."""

    __slots__ = ()
    places: ClassVar[dict[str, int]]

    def __getitem__(self, key: Any) -> Any:
        return tuple.__getitem__(self, self.places[key] if key.__class__ is str else key)

    def keys(self) -> list[str]:
        return list(self.places)


@lru_cache(512)
def _row_class(columns: tuple[str, ...]) -> type[_Row]:
    places = {name: place for place, name in reversed(tuple(enumerate(columns)))}
    return type("Row", (_Row,), {"__slots__": (), "places": places})


def rows(cursor: "psycopg.Cursor[Any]") -> Any:
    """The driver's row factory."""
    description = cursor.description
    if description is None:
        return tuple
    return _row_class(tuple(column.name for column in description))


class _NumberLoader(Loader):
    """A sum of integers is `numeric` to PostgreSQL and an integer to us."""

    def load(self, data: Buffer) -> int | float:
        text = bytes(data)
        return float(text) if b"." in text or b"N" in text else int(text)


class _TruthDumper(Int8Dumper):
    """Truth is an integer in our tables, on every database."""

    def dump(self, obj: Any) -> Buffer | None:
        return b"1" if obj else b"0"


@lru_cache(1)
def _adapters() -> AdaptersMap:
    """One type for all integers: with the driver's four, each statement is prepared four times."""
    adapters = AdaptersMap(psycopg.adapters)
    adapters.register_dumper(int, Int8Dumper)
    adapters.register_dumper(bool, _TruthDumper)
    adapters.register_loader("numeric", _NumberLoader)
    return adapters


@lru_cache(2048)
def translated(sql: str) -> tuple[str, tuple[str, ...]]:
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
    return "".join(parts), tuple(names)


def values(parameters: Sequence[Any] | Mapping[str, Any], names: tuple[str, ...]) -> Sequence[Any]:
    """The parameters in the order of the statement."""
    if isinstance(parameters, Mapping):
        return [parameters[name] for name in names]
    return parameters


def without_nul(found: Iterable[Any]) -> list[Any]:
    """PostgreSQL keeps no NUL in a text; what strangers send may hold one."""
    return [one.replace("\x00", "\ufffd") if isinstance(one, str) else one for one in found]
