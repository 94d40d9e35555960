"""The statements on batches of jobs: the rows between two ids, of which none is the batch itself."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from hivemesh_platform.execution.ledger.limit_sql import look_again
from hivemesh_platform.execution.model import JOB_NODE
from hivemesh_platform.storage.transaction import Transaction, Value

_BETWEEN = "run >= :first AND run < :last AND node = 'job' AND seq = 0"
_JOB_STATES = ("queued", "waiting", "running", "completed", "failed", "cancelled")
_COUNTS = ", ".join(f"count(*) FILTER (WHERE state = '{one}') AS {one}" for one in _JOB_STATES)
_STATES = f"""
SELECT {_COUNTS}, min(created_at) AS began, max(ended_at) AS ended FROM work WHERE {_BETWEEN}
"""  # noqa: S608 - as written above; by groups the rows would be sorted
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
    began: int
    ended: int | None  # the last one that has


def states(tx: Transaction, ends: Ends) -> Counts:
    """How many jobs are in each state, when they were accepted and the last of them ended."""
    row = tx.one(_STATES, {"first": ends.first, "last": ends.last})
    if row is None:  # an aggregate answers always
        return Counts({}, 0, None)
    found = {state: int(row[state]) for state in _JOB_STATES if row[state]}
    return Counts(found, row["began"] or 0, row["ended"])


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
    marks = ", ".join("?" * len(wanted))
    rows = tx.all(
        f"""SELECT run FROM work WHERE run > ? AND run < ? AND node = ? AND seq = 0
               AND state IN ({marks}) ORDER BY run LIMIT ?""",  # noqa: S608 - question marks only
        (max(after, ends.first), ends.last, JOB_NODE, *sorted(wanted), limit),
    )
    return [str(row["run"]) for row in rows]
