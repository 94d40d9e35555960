"""Ends of small jobs that travelled together: one statement for all of them."""

from collections.abc import Sequence

from hivemesh_platform.execution.ledger import JobEnd, Placed
from hivemesh_platform.execution.model import Fence, WorkKey
from hivemesh_platform.storage.transaction import Transaction

_COMPLETED = """
UPDATE work SET state = 'completed', ended_at = ?, output = ?, problem = NULL, instance = ?
 WHERE run = ? AND node = 'job' AND seq = 0 AND attempt = ? AND epoch = ? AND state = 'running'
"""
_ATTEMPTED = """
INSERT INTO attempt (run, node, seq, attempt, instance, identity, worker, explanation, started_at,
                     ended_at, outcome)
SELECT run, node, seq, attempt, ?, ?, ?, ?, ?, ?, 'completed' FROM work
 WHERE run = ? AND node = 'job' AND seq = 0 AND attempt = ? AND epoch = ? AND state = 'completed'
ON CONFLICT DO NOTHING
"""
_QUEUED = """
UPDATE work SET state = 'queued', reason = ?, not_before = ?,
       together = CASE WHEN ? = 1 THEN '' ELSE together END
 WHERE run = ? AND node = 'job' AND seq = 0 AND attempt = ? AND epoch = ? AND state = 'running'
"""


def finish(tx: Transaction, ends: Sequence[JobEnd], placed: Placed, began: int, now: int) -> None:
    """End those that are still held by their fences."""
    tx.execute_many(
        _COMPLETED,
        [(now, one.output, placed.instance, *_held(one.key, one.fence)) for one in ends],
    )
    where = (placed.instance, placed.identity, placed.worker, placed.explanation, began, now)
    tx.execute_many(_ATTEMPTED, [(*where, *_held(one.key, one.fence)) for one in ends])


def release(
    tx: Transaction,
    held: Sequence[tuple[WorkKey, Fence]],
    reason: str,
    not_before: int,
    *,
    apart: bool = False,
) -> None:
    """Queue those again that are still held by their fences; `apart` has each travel alone."""
    rest = (reason, not_before, int(apart))
    tx.execute_many(_QUEUED, [(*rest, *_held(key, fence)) for key, fence in held])


def _held(key: WorkKey, fence: Fence) -> tuple[str, int, int]:
    return key.run, fence.attempt, fence.epoch
