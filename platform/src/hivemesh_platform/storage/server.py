"""One PostgreSQL server as we speak to it: where it is, connections, and what its errors mean.

The only module beside `postgres` that knows the driver; both are imported where the settings name
a server.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from hivemesh_sdk.errors import InvalidError
from psycopg import conninfo

from hivemesh_platform.storage.errors import (
    DatabaseUnreachableError,
    DatabaseUnsuitableError,
    StorageError,
    StorageFullError,
)
from hivemesh_platform.storage.names import application_name

OLDEST = 13  # major version: the oldest that PostgreSQL itself still mended in 2025
IDLE_IN_TRANSACTION_MS = 5_000  # a process that stopped inside a transaction lets go of its rows
_DEFAULTS = {
    "application_name": "hivemesh",
    "connect_timeout": "5",
    # A server that vanished behind a cut network is noticed after 10 s, not after two hours.
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
    "client_encoding": "utf8",
    # After a fail-over the old address may be a standby's, which is behind.
    "target_session_attrs": "read-write",
}
_VERIFIED = frozenset({"verify-full", "verify-ca"})
_REPEATS = {
    "40001": 20,  # serialization failure
    "40P01": 20,  # deadlock
    "55P03": 20,  # lock not available
    "23505": 3,  # unique violation: somebody was faster, and the second run sees it
    "0A000": 1,  # a prepared statement gives other columns now: the schema has changed
    "26000": 1,  # a prepared statement is not there any more
}
_OUTDATED = frozenset({"0A000", "26000"})
_REASONS = {
    "40001": "serialization",
    "40P01": "deadlock",
    "55P03": "lock",
    "23505": "unique",
    "0A000": "schema",
    "26000": "schema",
}
_GONE = ("08", "57P01", "57P02", "57P03", "25P03", "53300")
"""Connection, shutdown, start, idle in transaction, too many connections."""
_FULL = ("53100", "53400")
_REFUSED = ("28", "3D000", "0A000", "42501")  # credentials, no such database, rights
_TOO_LARGE = "22003"
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

    def connect(self) -> "psycopg.Connection[Any]":
        """Open a connection without a transaction; raises the driver's errors."""
        connection = psycopg.connect(
            **self.parameters,  # type: ignore[arg-type]  # all of them are text
            autocommit=True,
            prepare_threshold=None,
        )
        try:
            if not self.pooled:
                connection.execute(
                    f"SET idle_in_transaction_session_timeout = {IDLE_IN_TRANSACTION_MS}"
                )
        except BaseException:
            connection.close()
            raise
        return connection


def server(url: str, *, pooled: bool = False, name: str = "") -> Server:
    """Read an address, and add what a safe connection needs; `name` tells replicas apart there.

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
    known = {"application_name": application_name(name)} if name else {}
    return Server(parameters={**_DEFAULTS, **found, **known}, pooled=pooled)


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


def is_encrypted(server: Server) -> bool:
    """Whether nobody on the way reads along: TLS, or a socket of this machine."""
    return _is_socket(server.parameters) or server.parameters.get("sslmode") != "disable"


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


def is_behind(error: BaseException) -> bool:
    """Whether a standby was asked for what only a server has that takes writes."""
    return isinstance(error, psycopg.Error) and error.sqlstate == "55000"


def reason(error: BaseException) -> str:
    """Why a transaction is run again, as the metrics have it."""
    return _REASONS.get(getattr(error, "sqlstate", None) or "", "other")


def repeats(error: BaseException) -> int:
    """How often a transaction may be run again, because it lost against another one."""
    return _REPEATS.get(getattr(error, "sqlstate", None) or "", 0)


def is_outdated(error: BaseException) -> bool:
    """Whether what was prepared on a connection does not fit any more; a fresh one has nothing."""
    return getattr(error, "sqlstate", None) in _OUTDATED


def refuses_us(error: BaseException) -> bool:
    """Whether a connection failed for a reason that waiting does not mend."""
    if not isinstance(error, psycopg.OperationalError):
        return False
    state = error.sqlstate
    if state is not None:
        return state.startswith(_REFUSED)
    text = str(error)
    if "SSL error: " in text:  # of TLS itself; a network's is "SSL SYSCALL error"
        return "unexpected eof" not in text
    return any(
        one in text
        for one in (
            "password authentication failed",
            "no password supplied",
            "does not exist",
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
    elif state == _TOO_LARGE:
        mine = InvalidError("a number is too large")
    elif is_gone(error):
        mine = DatabaseUnreachableError(f"the database server does not answer: {text}", delay_s=2.0)
    else:
        mine = StorageError(f"the database refused: {text}")
    mine.__cause__ = error
    return mine
