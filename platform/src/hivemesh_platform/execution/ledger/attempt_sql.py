"""Attempts as they are read: each has a row, but those of jobs that ended together have one for all.

Such a job has completed, and is never run again: the row in common goes when all of them have gone.
"""

import uuid
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
from hivemesh_sdk.contracts.names import step_key

from hivemesh_platform.execution.ledger.port import Placed
from hivemesh_platform.execution.model import JOB_NODE
from hivemesh_platform.storage.transaction import Row, Transaction, Value, listed

GROUPS = 32  # at least, looked up at once
LOOKED_UP = 128  # jobs at once
_KEEP = """
INSERT INTO attempt_group (id, instance, identity, worker, explanation, started_at, ended_at, runs,
                           tenant)
VALUES (?, ?, ?, ?, ?, ?, ?, ?,
        coalesce((SELECT tenant FROM work WHERE run = ? AND node = 'job' AND seq = 0), 'default'))
"""  # those that travelled together have their submitter, and so their tenant, in common
_IN_COMMON = """
SELECT work.run, work.node, work.seq, work.attempt, common.instance, common.identity, common.worker,
       common.explanation, common.started_at, common.ended_at, 'completed' AS outcome,
       NULL AS problem{more}
  FROM work JOIN attempt_group AS common ON common.id = work.attempt_group
 WHERE {which} AND work.node = 'job' AND work.seq = 0
   AND NOT EXISTS (SELECT 1 FROM attempt
                    WHERE attempt.run = work.run AND attempt.node = work.node
                      AND attempt.seq = work.seq AND attempt.attempt = work.attempt)
"""  # one that was interrupted, and gone on with, has a row already
_OF_JOB = f"""(
SELECT run, node, seq, attempt, instance, identity, worker, explanation, started_at, ended_at,
       outcome, problem FROM attempt WHERE run = :run
 UNION ALL {_IN_COMMON.format(which="work.run = :run", more="")}) AS attempt
"""  # noqa: S608 - as written above
_AT_INSTANCE = _IN_COMMON.format(
    which="work.run IN ({marks}) AND common.instance = ? AND work.tenant = ?",
    more=", work.capability",
)
_GROUPS_AT = """
SELECT started_at, runs FROM attempt_group
 WHERE instance = :instance AND tenant = :tenant AND started_at <= :at
   AND started_at >= (SELECT min(started_at)
                        FROM (SELECT started_at FROM attempt_group
                               WHERE instance = :instance AND tenant = :tenant
                                 AND started_at <= :at
                               ORDER BY started_at DESC LIMIT :groups) AS newest)
"""  # all that began at a moment, for those are in order of their jobs
_HAS_JOBS = "SELECT 1 FROM work WHERE run IN ({marks}) AND attempt_group = ? LIMIT 1"

_decode = msgspec.json.Decoder(list[str]).decode


class Place(NamedTuple):
    """Where an attempt stands among those of an instance."""

    at: int
    run: str = ""
    node: str = ""
    seq: int = 0
    attempt: int = 0

    def __str__(self) -> str:
        return f"{self.at}:{self.attempt}:{step_key(self.run, self.node, self.seq)}"


def place_of(row: Row) -> Place:
    """Where it stands."""
    return Place(row["started_at"], row["run"], row["node"], row["seq"], row["attempt"])


def keep_in_common(
    tx: Transaction, runs: Sequence[str], placed: Placed, began: int, now: int
) -> str:
    """Keep once what the attempts of jobs have in common that end now; returns its id."""
    id_ = f"{now:012x}{uuid.uuid4().hex[:20]}"
    where = (placed.instance, placed.identity, placed.worker, placed.explanation, began, now)
    tx.send(_KEEP, (id_, *where, msgspec.json.encode(runs).decode(), runs[0]))
    return id_


def attempts_of(run: str) -> str:
    """The attempts of `:run`, as a table for `FROM`; they are all of the table where it is no job."""
    return "attempt" if run.startswith("run_") else _OF_JOB


def in_common_at(
    tx: Transaction, instance: str, tenant: str, start: Place
) -> Iterator[tuple[Place, Row | None]]:
    """The attempts at an instance that have a row in common, newest first, behind a place.

    With their capabilities; None stands where a job has gone, or was ended by others. They are
    looked up as far as they are asked for.
    """
    where: dict[str, Value] = {"instance": instance, "tenant": tenant, "groups": GROUPS}
    at = start.at
    while groups := tx.all(_GROUPS_AT, {**where, "at": at}):
        members = {(row["started_at"], run) for row in groups for run in _decode(row["runs"])}
        left = sorted((one for one in members if one <= start[:2]), reverse=True)
        for first in range(0, len(left), LOOKED_UP):
            some = left[first : first + LOOKED_UP]
            marks, asked = listed([run for _, run in some])
            rows = tx.all(_AT_INSTANCE.format(marks=marks), (*asked, instance, tenant))
            found = {(row["started_at"], row["run"]): row for row in rows}
            for one in some:
                row = found.get(one)
                place = Place(*one, JOB_NODE) if row is None else place_of(row)
                if place < start:
                    yield place, row
        at = min(row["started_at"] for row in groups) - 1


def due_groups(tx: Transaction, after: str, before: int, limit: int) -> list[str]:
    """Return rows in common of jobs that ended before a time, in order of their ids."""
    rows = tx.all(
        """SELECT id FROM attempt_group WHERE id > ? AND id < ? AND ended_at < ?
            ORDER BY id LIMIT ?""",
        (after, f"{max(0, before):012x}", before, limit),
    )
    return [row["id"] for row in rows]


def remove_groups(tx: Transaction, groups: Sequence[str], _before: int) -> int:
    """Remove those of the rows in common whose jobs have all been removed."""
    marks, asked = listed(groups)
    rows = tx.all(f"SELECT id, runs FROM attempt_group WHERE id IN ({marks})", asked)  # noqa: S608 - question marks only
    gone = [row["id"] for row in rows if not _has_jobs(tx, row)]
    tx.execute_many("DELETE FROM attempt_group WHERE id = ?", [(one,) for one in gone])
    return len(gone)


def _has_jobs(tx: Transaction, group: Row) -> bool:
    marks, asked = listed(_decode(group["runs"]))
    return tx.one(_HAS_JOBS.format(marks=marks), (*asked, group["id"])) is not None
