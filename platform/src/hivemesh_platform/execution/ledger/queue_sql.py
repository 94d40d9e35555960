"""The queue: rows of work enter it with a rank, which is order, fair share and ageing in one.

Each capability has a queue of its own. A row of priority p starts at the latest after 2^(q-p) rows of
each submitter that submits with a higher priority q without an end, and after one row of each that
submits with its own: that is the bound on waiting, whatever arrives later.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import msgspec
from hivemesh_sdk.contracts.steps import StepKind

from hivemesh_platform.artifacts.model import BatchRef
from hivemesh_platform.execution.model import WorkKey
from hivemesh_platform.storage.transaction import Row, Transaction, Value

COST = 1.0  # of a row in the fair queue
REBASE_AT = 2.0**40  # ranks begin anew from here: 2^-10 apart, they would stay exact up to 2^43

_INSERT_ROW = """
INSERT INTO work (run, node, seq, kind, capability, submitter, priority, rank, state, input, spec,
                  created_at, tenant, limit_key, together)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_INSERT_JOBS = """
WITH job (run, rank, spec) AS ({rows})
INSERT INTO work (run, node, seq, kind, capability, submitter, priority, rank, state, input, spec,
                  created_at, tenant, limit_key, together)
SELECT run, ?, ?, ?, ?, ?, ?, rank, ?, ?, spec, ?, ?, ?, ? FROM job
"""
_TAKE_RANKS = """
INSERT INTO queue_share (capability, submitter, priority, last_rank)
VALUES (:capability, :submitter, :priority, :after)
ON CONFLICT (capability, submitter, priority) DO UPDATE SET
   last_rank = CASE WHEN queue_share.last_rank > :v THEN queue_share.last_rank + :cost
                    ELSE excluded.last_rank END
RETURNING last_rank
"""
_CLAIMED = """
INSERT INTO queue_clock (capability, v) VALUES (?, ?)
ON CONFLICT (capability) DO UPDATE SET
   v = CASE WHEN excluded.v > queue_clock.v THEN excluded.v ELSE queue_clock.v END
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRow:
    """A row of work that is to be queued (or blocked until its options are known)."""

    key: WorkKey
    kind: StepKind
    capability: str
    submitter: str
    priority: int
    inputs: tuple[BatchRef, ...] = ()
    spec: str | None = None
    blocked: bool = False
    tenant: str = "default"
    limit_key: str = ""  # as `limit_rules.key_of` makes it
    together: str = ""  # rows with the same value may travel in one request


def row_of_node(node: Row, seq: int, kind: StepKind, inputs: tuple[BatchRef, ...]) -> NewRow:
    """Make a row with what it has from its node."""
    return NewRow(
        key=WorkKey(node["run"], node["name"], seq),
        kind=kind,
        capability=node["capability"],
        submitter=node["submitter"],
        priority=node["priority"],
        inputs=inputs,
        blocked=node["options"] is None,
        tenant=node["tenant"],
        limit_key=node["limit_key"],
    )


def enqueue(tx: Transaction, row: NewRow, now: int) -> None:
    """Insert a row with its place in the weighted fair queue."""
    enqueue_all(tx, (row,), now)


def enqueue_all(tx: Transaction, rows: Sequence[NewRow], now: int) -> None:
    """Insert rows; those of one submitter, capability and priority that follow each other are cheap."""
    for lane, some in groupby(rows, key=_lane):
        group = list(some)
        first, step = _take_ranks(tx, *lane, len(group))
        values = [_values(row, first + number * step, now) for number, row in enumerate(group)]
        if len(values) == 1:
            tx.send(_INSERT_ROW, values[0])
        else:
            tx.execute_many(_INSERT_ROW, values)


def enqueue_batch(
    tx: Transaction, like: NewRow, stem: str, specs: Sequence[str], now: int
) -> list[str]:
    """Insert a row for each spec, `<stem>-000001` and so on: thousands in one statement."""
    first, step = _take_ranks(tx, *_lane(like), len(specs))
    runs = [f"{stem}-{number:06d}" for number in range(1, len(specs) + 1)]
    rows = [
        (run, first + number * step, spec)
        for number, (run, spec) in enumerate(zip(runs, specs, strict=True))
    ]
    values = _values(like, first, now)
    tx.send_rows(_INSERT_JOBS, rows, (*values[1:7], *values[8:10], *values[11:]))
    return runs


def claimed(tx: Transaction, capability: str, rank: float) -> None:
    """Move the clock of the queue to the rank of the last row that was claimed."""
    tx.send(_CLAIMED, (capability, rank))
    if rank >= REBASE_AT:
        _rebase(tx, capability, rank)


def forget_shares(tx: Transaction) -> None:
    """Drop the shares that decide nothing: those of submitters who have nothing queued."""
    tx.send(
        """DELETE FROM queue_share WHERE last_rank <= (
               SELECT v FROM queue_clock WHERE queue_clock.capability = queue_share.capability)"""
    )


def _lane(row: NewRow) -> tuple[str, str, int]:
    return row.capability, row.submitter, row.priority


def _take_ranks(
    tx: Transaction, capability: str, submitter: str, priority: int, count: int
) -> tuple[float, float]:
    """The first of `count` ranks and their distance.

    The first is `max(v, last rank of this submitter and priority) + cost / 2^priority`, where v is
    the rank of the last claimed row: who was idle gains nothing by it, and who submits much waits
    behind his own rows.
    """
    clock = tx.one("SELECT v FROM queue_clock WHERE capability = ?", (capability,))
    now = 0.0 if clock is None else float(clock["v"])
    step = COST / 2.0**priority
    names: dict[str, Value] = {
        "capability": capability,
        "submitter": submitter,
        "priority": priority,
        "v": now,
        "after": now + count * step,
        "cost": count * step,
    }
    row = tx.one(_TAKE_RANKS, names)
    last = now + count * step if row is None else float(row["last_rank"])
    return last - (count - 1) * step, step


def _values(row: NewRow, rank: float, now: int) -> tuple[Value, ...]:
    return (
        row.key.run,
        row.key.node,
        row.key.seq,
        row.kind,
        row.capability,
        row.submitter,
        row.priority,
        rank,
        "blocked" if row.blocked else "queued",
        msgspec.json.encode(row.inputs).decode() if row.inputs else "[]",
        row.spec,
        now,
        row.tenant,
        row.limit_key,
        row.together,
    )


def _rebase(tx: Transaction, capability: str, v: float) -> None:
    """Let the ranks of a queue begin anew; their order and distances stay."""
    tx.send(
        "UPDATE work SET rank = rank - ? WHERE capability = ? AND ended_at IS NULL",
        (v, capability),
    )
    tx.send(
        "UPDATE queue_share SET last_rank = last_rank - ? WHERE capability = ?", (v, capability)
    )
    tx.send("UPDATE queue_clock SET v = 0 WHERE capability = ?", (capability,))
