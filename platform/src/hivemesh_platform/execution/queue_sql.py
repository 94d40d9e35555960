"""The queue: rows of work enter it with a rank, which is order, fair share and ageing in one."""

from dataclasses import dataclass

import msgspec
from hivemesh_sdk.contracts.steps import StepKind

from hivemesh_platform.artifacts.model import BatchRef
from hivemesh_platform.execution.model import WorkKey
from hivemesh_platform.storage.transaction import Row, Transaction

COST = 1.0  # of a row in the fair queue

_INSERT_ROW = """
INSERT INTO work (run, node, seq, kind, capability, submitter, priority, rank, state, input, spec,
                  created_at, tenant)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
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
    )


def enqueue(tx: Transaction, row: NewRow, now: int) -> None:
    """Insert a row with its place in the weighted fair queue."""
    tx.execute(
        _INSERT_ROW,
        (
            row.key.run,
            row.key.node,
            row.key.seq,
            row.kind,
            row.capability,
            row.submitter,
            row.priority,
            _next_rank(tx, row.submitter, row.priority),
            "blocked" if row.blocked else "queued",
            msgspec.json.encode(row.inputs).decode(),
            row.spec,
            now,
            row.tenant,
        ),
    )


def _next_rank(tx: Transaction, submitter: str, priority: int) -> float:
    """`max(v, last rank of this submitter and priority) + cost / 2^priority`.

    v is the rank of the last claimed row: who was idle gains nothing by it, and who submits much
    waits behind his own rows.
    """
    clock = tx.one("SELECT v FROM queue_clock")
    if clock is None:
        tx.execute("INSERT INTO queue_clock (v) VALUES (0)")
    now = 0.0 if clock is None else float(clock["v"])
    share = tx.one(
        "SELECT last_rank FROM queue_share WHERE submitter = ? AND priority = ?",
        (submitter, priority),
    )
    rank = max(now, 0.0 if share is None else float(share["last_rank"])) + COST / 2.0**priority
    tx.execute(
        """INSERT INTO queue_share (submitter, priority, last_rank) VALUES (?, ?, ?)
           ON CONFLICT DO UPDATE SET last_rank = excluded.last_rank""",
        (submitter, priority, rank),
    )
    return rank
