"""Ends of small jobs that travelled together: one statement for all of them."""

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from hivemesh_platform.execution.ledger.attempt_sql import keep_in_common
from hivemesh_platform.execution.ledger.claim_sql import claim_of
from hivemesh_platform.execution.ledger.port import JobEnd, Placed, Travel
from hivemesh_platform.execution.model import Fence, WorkKey
from hivemesh_platform.replicas.standing import Standing
from hivemesh_platform.storage.transaction import Row, Transaction, Value

# Rows are found by their primary keys, which alone is what all of a statement's conditions allow.
_HELD = """
       work.run = held.run AND work.node = held.node AND work.seq = held.seq
   AND work.attempt = held.attempt AND work.epoch = held.epoch
"""
_COMPLETED = f"""
WITH held (run, node, seq, attempt, epoch, output) AS ({{rows}})
UPDATE work SET state = 'completed', ended_at = ?, output = held.output, problem = NULL,
       instance = ?, attempt_group = ?
  FROM held WHERE {_HELD} AND work.state || '' = 'running'
"""  # noqa: S608 - as written above
_QUEUED = f"""
WITH held (run, node, seq, attempt, epoch) AS ({{rows}})
UPDATE work SET state = 'queued', reason = ?, not_before = ?,
       together = CASE WHEN ? = 1 THEN '' ELSE together END
  FROM held WHERE {_HELD} AND work.state || '' = 'running'
"""  # noqa: S608 - as written above
_RUNNING = """
SELECT run, attempt FROM work
 WHERE state = 'running' AND node = 'job' AND seq = 0 AND (:all = 1 OR replica = :of)
"""
_GO_ON = """
UPDATE work SET state = 'running', replica = ?, replica_epoch = ?
 WHERE run = ? AND node = 'job' AND seq = 0 AND attempt = ? AND state = 'queued' RETURNING *
"""
_TAKE = "UPDATE travel SET replica = ?, epoch = epoch + 1 WHERE key = ? RETURNING *"


def depart(tx: Transaction, travel: Travel, standing: Standing) -> None:
    """Keep with which request its members go to a worker, for whoever goes on with it."""
    tx.send(
        "INSERT INTO travel (key, replica, epoch, endpoint, members) VALUES (?, ?, ?, ?, ?)",
        (
            travel.key,
            standing.replica,
            travel.epoch,
            travel.endpoint,
            msgspec.json.encode(travel.members).decode(),
        ),
    )


def arrive(tx: Transaction, key: str, epoch: int) -> bool:
    """Nobody will go on with a request; False where somebody else has begun to."""
    return tx.execute("DELETE FROM travel WHERE key = ? AND epoch = ?", (key, epoch)) > 0


def travelling(tx: Transaction, of: str | None) -> list[Travel]:
    """Return the requests of a replica (None: of any) with members that are held."""
    which: dict[str, Value] = {"all": int(of is None), "of": of or ""}
    rows = tx.all("SELECT * FROM travel WHERE (:all = 1 OR replica = :of)", which)
    if not rows:
        return []
    held = {(row["run"], row["attempt"]) for row in tx.all(_RUNNING, which)}
    found: list[Travel] = []
    for row in rows:
        travel = _travel(row)
        still = tuple(one for one in travel.members if one in held)
        if still:
            found.append(replace(travel, held=still))
        else:
            arrive(tx, travel.key, travel.epoch)
    return found


def with_member(tx: Transaction, replica: str, run: str, attempt: int) -> Travel | None:
    """Return the request of a replica with which a job is on its way."""
    rows = tx.all(
        "SELECT * FROM travel WHERE replica = ? AND members LIKE ?", (replica, f'%"{run}"%')
    )
    found = (one for one in map(_travel, rows) if (run, attempt) in one.members)
    return next(found, None)


def go_on(tx: Transaction, found: Sequence[Travel], standing: Standing) -> list[Travel]:
    """Hold the members again that were queued since `travelling` has found them."""
    taken: list[Travel] = []
    for travel in found:
        row = tx.one(_TAKE, (standing.replica, travel.key))
        if row is None:
            continue
        rows = [
            tx.one(_GO_ON, (standing.replica, standing.epoch, run, attempt))
            for run, attempt in travel.held
        ]
        claims = tuple(claim_of(tx, one) for one in rows if one is not None)
        taken.append(replace(_travel(row), claims=claims))
    return taken


def _travel(row: Row) -> Travel:
    members = msgspec.json.decode(row["members"], type=tuple[tuple[str, int], ...])
    return Travel(key=row["key"], epoch=row["epoch"], endpoint=row["endpoint"], members=members)


def finish(tx: Transaction, ends: Sequence[JobEnd], placed: Placed, began: int, now: int) -> None:
    """End those that are still held by their fences."""
    outputs = [(*_held(one.key, one.fence), one.output) for one in ends]
    group = keep_in_common(tx, [one.key.run for one in ends], placed, began, now)
    tx.send_rows(_COMPLETED, outputs, (now, placed.instance, group))


def release(
    tx: Transaction,
    held: Sequence[tuple[WorkKey, Fence]],
    reason: str,
    not_before: int,
    *,
    apart: bool = False,
) -> None:
    """Queue those again that are still held by their fences; `apart` has each travel alone."""
    rows = [_held(key, fence) for key, fence in held]
    tx.send_rows(_QUEUED, rows, (reason, not_before, int(apart)))


def _held(key: WorkKey, fence: Fence) -> tuple[str, str, int, int, int]:
    return key.run, key.node, key.seq, fence.attempt, fence.epoch
