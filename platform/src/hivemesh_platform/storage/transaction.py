"""The only handle on the database that services and stores accept, whichever database it is."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol, TypeVar

Value = str | int | float | bytes | None
V = TypeVar("V", bound=Value)
Parameters = Sequence[Value] | Mapping[str, Value]
Dialect = Literal["sqlite", "postgresql"]


class Row(Protocol):
    """One row of an answer: by the name of a column or by its place."""

    def __getitem__(self, key: str | int, /) -> Any:
        """Return one value."""
        ...

    def __iter__(self) -> Iterator[Any]:
        """Return the values in the order of the columns."""
        ...

    def __len__(self) -> int:
        """Return the number of columns."""
        ...

    def keys(self) -> Sequence[str]:
        """Return the names of the columns."""
        ...


class Transaction(ABC):
    """One open transaction; it lives as long as the function that got it.

    Statements are the same on every database: `?` or `:name` for parameters, integers for
    booleans. What a database says differently stands in the class attributes and `matching`.
    """

    __slots__ = ()

    dialect: ClassVar[Dialect]
    for_update: ClassVar[str]
    """Behind a SELECT that reads what the transaction is going to change."""
    for_share: ClassVar[str]
    """Behind a SELECT of what nobody may change until the transaction ends."""
    for_key_share: ClassVar[str]
    """The same, for a row that `for_update` alone may change: other changes go on."""
    skip_locked: ClassVar[str]
    """The same, leaving out the rows that another transaction holds."""

    @abstractmethod
    def execute(self, sql: str, parameters: Parameters = ()) -> int:
        """Run a written statement and return how many rows it changed."""

    @abstractmethod
    def send(self, sql: str, parameters: Parameters = ()) -> None:
        """Run a written statement whose number of changed rows nobody needs.

        PostgreSQL is not waited for: its refusal shows at the next answer or at the commit.
        """

    @abstractmethod
    def execute_many(self, sql: str, rows: Iterable[Parameters]) -> None:
        """Run a written statement once per row of parameters."""

    @abstractmethod
    def send_rows(
        self, sql: str, rows: Sequence[Sequence[Value]], parameters: Sequence[Value] = ()
    ) -> None:
        """Run a written statement on many rows at a time; `{rows}` in it stands for them.

        Its parameters follow those of the rows. A third of the time of `execute_many`, and the
        other threads of the process are in its way once for all of the rows and not for each.
        A table that it joins the rows with is found by its primary key.
        """

    @abstractmethod
    def all(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """Run a written statement and return all of its rows."""

    @abstractmethod
    def one(self, sql: str, parameters: Parameters = ()) -> Row | None:
        """Run a written statement and return its first row, or None where there is none."""

    @abstractmethod
    def each(self, *questions: tuple[str, Parameters]) -> list[list[Row]]:
        """Run statements that need nothing of each other's answers, in order; return their rows.

        PostgreSQL is waited for once.
        """

    @staticmethod
    @abstractmethod
    def matching(column: str, pattern: str) -> tuple[str, str]:
        """Return a condition on a text column and its parameter; `*` stands for any characters."""


def filled_up(values: Sequence[V]) -> list[V]:
    """Repeat the last value until there are as many as a power of two; for `IN (…)`.

    What a statement was prepared for is kept with 200 bytes for a parameter: those of lists of
    each length would be kept beside each other.
    """
    filled = list(values)
    while len(filled) & (len(filled) - 1):
        filled.append(filled[-1])
    return filled


def listed(values: Sequence[V]) -> tuple[str, list[V]]:
    """Return the question marks of `IN (…)` and their parameters."""
    parameters = filled_up(values)
    return ", ".join("?" * len(parameters)), parameters
