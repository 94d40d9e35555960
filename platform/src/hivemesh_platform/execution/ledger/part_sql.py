"""Parts of a row whose input kills: ranges of its lines, tried one after the other.

The row keeps its key; each part is a further attempt. What the parts answer is joined in their
order and becomes the row's answer.
"""

from dataclasses import dataclass

from hivemesh_platform.execution.model import WorkKey
from hivemesh_platform.storage.transaction import Row, Transaction

_INSERT = "INSERT INTO work_part (run, node, seq, first, last) VALUES (?, ?, ?, ?, ?)"


@dataclass(frozen=True, slots=True)
class Part:
    """Lines `first` up to `last` of the input, and what they gave."""

    first: int
    last: int
    batch: str | None
    output: str | None


def next_open(tx: Transaction, row: Row) -> tuple[int, int] | None:
    """The lines that are tried next, or None where every part has ended."""
    found = tx.one(
        "SELECT first, last FROM work_part WHERE run = ? AND node = ? AND seq = ? AND state = 'open' ORDER BY first",
        (row["run"], row["node"], row["seq"]),
    )
    return None if found is None else (int(found["first"]), int(found["last"]))


def halve(tx: Transaction, key: WorkKey, lines: tuple[int, int]) -> None:
    """Put two halves in the place of a range of lines."""
    first, last = lines
    middle = (first + last) // 2
    where = (key.run, key.node, key.seq)
    tx.send(
        "DELETE FROM work_part WHERE run = ? AND node = ? AND seq = ? AND first = ?",
        (*where, first),
    )
    tx.execute_many(_INSERT, [(*where, first, middle), (*where, middle, last)])


def end(
    tx: Transaction,
    key: WorkKey,
    lines: tuple[int, int],
    *,
    state: str,
    batch: str | None = None,
    output: str | None = None,
) -> bool:
    """End a part; True where it was the last one."""
    where = (key.run, key.node, key.seq)
    tx.send(
        """UPDATE work_part SET state = ?, batch = ?, output = ?
             WHERE run = ? AND node = ? AND seq = ? AND first = ?""",
        (state, batch, output, *where, lines[0]),
    )
    left = tx.one(
        "SELECT 1 FROM work_part WHERE run = ? AND node = ? AND seq = ? AND state = 'open' LIMIT 1",
        where,
    )
    return left is None


def done(tx: Transaction, key: WorkKey) -> list[Part]:
    """The parts that gave something, in order."""
    rows = tx.all(
        "SELECT * FROM work_part WHERE run = ? AND node = ? AND seq = ? AND state = 'done' ORDER BY first",
        (key.run, key.node, key.seq),
    )
    return [Part(row["first"], row["last"], row["batch"], row["output"]) for row in rows]


def forget(tx: Transaction, key: WorkKey) -> None:
    """The row is whole again: it has ended, or its input is tried from the beginning."""
    where = (key.run, key.node, key.seq)
    tx.execute("DELETE FROM work_part WHERE run = ? AND node = ? AND seq = ?", where)
    tx.execute("UPDATE work SET halved = 0 WHERE run = ? AND node = ? AND seq = ?", where)
