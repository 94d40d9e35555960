"""The statements on batches of jobs: the rows between two ids, of which none is the batch itself."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from hivemesh_platform.execution.ledger.limit_sql import look_again
from hivemesh_platform.execution.model import JOB_NODE
from hivemesh_platform.storage.transaction import Transaction, Value, listed

_BETWEEN = "run >= :first AND run < :last AND node = 'job' AND seq = 0"
_OPEN, _BAD = ("queued", "waiting", "running"), ("failed", "cancelled")
_JOB_STATES = (*_OPEN, "completed", *_BAD)


def _counts(states: Sequence[str]) -> str:
    """A column for each; by groups the rows would be sorted."""
    return ", ".join(f"count(*) FILTER (WHERE state = '{one}') AS {one}" for one in states)


_STATES = f"""
SELECT {_counts(_JOB_STATES)}, max(ended_at) AS ended FROM work WHERE {_BETWEEN}
"""  # noqa: S608 - as written above
_OPEN_STATES = f"SELECT {_counts(_OPEN)} FROM work WHERE {_BETWEEN} AND ended_at IS NULL"  # noqa: S608 - as above
_ENDED_BADLY = f"""
SELECT {_counts(_BAD)} FROM work
 WHERE run >= :first AND run < :last AND spec IS NOT NULL AND state IN ('failed', 'cancelled')
"""  # noqa: S608 - as above; only jobs have a spec
_ALL = f"SELECT count(*) AS n FROM work WHERE {_BETWEEN}"  # noqa: S608 - as above
_SOME_OPEN = f"SELECT run FROM work WHERE {_BETWEEN} AND ended_at IS NULL ORDER BY run LIMIT :limit"  # noqa: S608 - as above
_END = f"""
UPDATE work SET state = 'cancelled', ended_at = :now
 WHERE node = 'job' AND seq = 0 AND ended_at IS NULL AND run IN ({_SOME_OPEN}) RETURNING run
"""  # noqa: S608 - as above
_END_ATTEMPTS = f"""
UPDATE attempt SET ended_at = :now, outcome = 'cancelled'
 WHERE {_BETWEEN} AND ended_at IS NULL
   AND EXISTS (SELECT 1 FROM work WHERE work.run = attempt.run AND work.node = 'job'
                  AND work.seq = 0 AND work.state = 'cancelled')
"""  # noqa: S608 - as above; one between them that has failed may go again meanwhile


@dataclass(frozen=True, slots=True)
class Ends:
    """The ids between which the jobs of a batch lie."""

    first: str
    last: str


@dataclass(frozen=True, slots=True)
class Counts:
    """How many jobs of a batch are in each state that any of them is in."""

    states: Mapping[str, int]
    ended: int | None  # when the last one has; None while one is open


def states(tx: Transaction, ends: Ends) -> Counts:
    """How many jobs are in each state, and when the last of them ended.

    While some are open SQLite reads only those: the good ends are what is left of all of them,
    which an index counts, in half the time. PostgreSQL would look at the rows for that all the same.
    """
    names = {"first": ends.first, "last": ends.last}
    found = _open(tx, names) if tx.dialect == "sqlite" else None
    if found is not None:
        return found
    row = tx.each((_STATES, names))[0][0]
    counts = {one: int(row[one]) for one in _JOB_STATES}
    is_open = any(counts[one] for one in _OPEN)
    return Counts(_those(counts), None if is_open else row["ended"])


def _open(tx: Transaction, names: Mapping[str, Value]) -> Counts | None:
    """The same while some are open, else None."""
    open_, badly, all_ = (
        found[0] for found in tx.each((_OPEN_STATES, names), (_ENDED_BADLY, names), (_ALL, names))
    )
    some = {one: int(open_[one]) for one in _OPEN}
    if not any(some.values()):
        return None
    bad = {one: int(badly[one]) for one in _BAD}
    good = int(all_["n"]) - sum(some.values()) - sum(bad.values())
    return Counts(_those({**some, "completed": good, **bad}), None)


def _those(states: Mapping[str, int]) -> dict[str, int]:
    return {state: count for state, count in states.items() if count}


def newest_job(tx: Transaction, ends: Ends) -> str:
    """The last job of a batch; its number is how many there are."""
    row = tx.one(
        f"SELECT run FROM work WHERE {_BETWEEN} ORDER BY run DESC LIMIT 1",  # noqa: S608 - as above
        {"first": ends.first, "last": ends.last},
    )
    return "" if row is None else str(row["run"])


def open_jobs(tx: Transaction, ends: Ends) -> int:
    """How many jobs of a batch have not ended."""
    row = tx.one(
        f"SELECT count(*) AS n FROM work WHERE {_BETWEEN} AND ended_at IS NULL",  # noqa: S608 - as above
        {"first": ends.first, "last": ends.last},
    )
    return 0 if row is None else int(row["n"])


def cancel(tx: Transaction, ends: Ends, limit: int, now: int) -> list[str]:
    """End up to `limit` open jobs; returns which."""
    names: dict[str, Value] = {
        "first": ends.first,
        "last": ends.last,
        "now": now,
        "limit": limit,
    }
    ended = sorted(str(row["run"]) for row in tx.all(_END, names))
    if ended:
        span: dict[str, Value] = {"first": ended[0], "last": f"{ended[-1]}~", "now": now}
        tx.send(_END_ATTEMPTS, span)
        look_again(tx, ended[0], ended[-1])
    return ended


def ended_badly(
    tx: Transaction, ends: Ends, after: str, wanted: AbstractSet[str], limit: int
) -> list[str]:
    """The next jobs behind one that are in one of the states."""
    marks, states = listed(sorted(wanted))
    rows = tx.all(
        f"""SELECT run FROM work WHERE run > ? AND run < ? AND node = ? AND seq = 0
               AND state IN ({marks}) ORDER BY run LIMIT ?""",  # noqa: S608 - question marks only
        (max(after, ends.first), ends.last, JOB_NODE, *states, limit),
    )
    return [str(row["run"]) for row in rows]
