"""The only handle on the database that services and stores accept."""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy.sql import ClauseElement

Value = str | int | float | bytes | None
Parameters = Sequence[Value] | Mapping[str, Value]
Row = sqlite3.Row


class Transaction:
    """One open transaction; it lives as long as the function that got it."""

    __slots__ = ("_connection",)
    for_update = ""
    skip_locked = ""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, parameters: Parameters = ()) -> int:
        """Run a written statement and return how many rows it changed."""
        return self._connection.execute(sql, parameters).rowcount

    def execute_many(self, sql: str, rows: Iterable[Parameters]) -> None:
        """Run a written statement once per row of parameters."""
        self._connection.executemany(sql, rows)

    def all(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """Run a written statement and return all of its rows."""
        return self._connection.execute(sql, parameters).fetchall()

    def one(self, sql: str, parameters: Parameters = ()) -> Row | None:
        """Run a written statement and return its first row, or None where there is none."""
        row: Row | None = self._connection.execute(sql, parameters).fetchone()
        return row

    def run(self, statement: "ClauseElement") -> list[Row]:
        """Compile a SQLAlchemy Core statement and return its rows, if it has any."""
        from sqlalchemy.dialects import sqlite  # noqa: PLC0415 - 165 ms that a start does not need

        compiled = statement.compile(dialect=sqlite.dialect(paramstyle="named"))
        return self._connection.execute(str(compiled), compiled.params).fetchall()
