"""What waits for a time of day waits no longer because the clock was set back.

No gap between two attempts is longer than the settings let it grow, its spread included; only a
`Retry-After` may be. So what lies farther ahead is looked at: where the attempt before it ended at
a time that is still to come, the clock was set back and the row is due. Where that attempt is not
known, a busy worker had put the row back, which is to wait for the longest gap at most.
"""

from hivemesh_platform.execution.model import JITTER
from hivemesh_platform.storage.transaction import Transaction, Value

_LOOK = """
SELECT 1 AS found FROM work
 WHERE state = 'queued' AND not_before > 0 AND not_before > :far
   AND NOT EXISTS (SELECT 1 FROM attempt AS a
                    WHERE a.run = work.run AND a.node = work.node AND a.seq = work.seq
                      AND a.attempt = work.attempt AND a.ended_at <= :now)
 LIMIT 1
"""
_BRING_NEAR = """
UPDATE work SET not_before = CASE
       WHEN EXISTS (SELECT 1 FROM attempt AS a
                     WHERE a.run = work.run AND a.node = work.node AND a.seq = work.seq
                       AND a.attempt = work.attempt AND a.ended_at > :now)
       THEN :now ELSE :longest END
 WHERE state = 'queued' AND not_before > 0 AND not_before > :far
   AND NOT EXISTS (SELECT 1 FROM attempt AS a
                    WHERE a.run = work.run AND a.node = work.node AND a.seq = work.seq
                      AND a.attempt = work.attempt AND a.ended_at <= :now)
"""


def any_far_ahead(tx: Transaction, now: int, max_s: float) -> bool:
    """Whether rows wait for a time that only a clock that was set back explains."""
    names = _names(now, max_s)
    return tx.one(_LOOK, {"far": names["far"], "now": now}) is not None


def bring_near(tx: Transaction, now: int, max_s: float) -> int:
    """Let them wait no longer than they should; returns how many there were."""
    return tx.execute(_BRING_NEAR, _names(now, max_s))


def _names(now: int, max_s: float) -> dict[str, Value]:
    return {
        "now": now,
        "longest": now + round(max_s * 1000),
        "far": now + round(max_s * (1.0 + JITTER) * 1000),
    }
