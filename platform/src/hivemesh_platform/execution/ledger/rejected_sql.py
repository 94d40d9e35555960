"""What an execution says beside its batches: rejected records and progress."""

from hivemesh_platform.execution.ledger.port import Progress
from hivemesh_platform.execution.model import RejectedRecord, WorkKey
from hivemesh_platform.storage.transaction import Row, Transaction

MAX_REJECTED_KEPT = 1000  # per node: the others are counted, not kept

_REJECTED = """
INSERT INTO rejected (run, node, seq, no, reason, detail, position)
VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""


def keep_rejected(
    tx: Transaction, node: Row, seq: int, rejected: tuple[RejectedRecord, ...]
) -> None:
    """Count them all, and keep the first ones of each node."""
    if not rejected:
        return
    run, name = node["run"], node["name"]
    first = int(node["rejected"]) + 1
    room = max(0, MAX_REJECTED_KEPT - first + 1)
    tx.execute_many(
        _REJECTED,
        [
            (run, name, seq, no, one.reason, one.detail, one.position)
            for no, one in enumerate(rejected[:room], first)
        ],
    )
    tx.send(
        "UPDATE node SET rejected = rejected + ? WHERE run = ? AND name = ?",
        (len(rejected), run, name),
    )


def start_over(tx: Transaction, key: WorkKey) -> None:
    """A new execution starts at the checkpoint and rejects again what lies behind it."""
    tx.send(
        "UPDATE source SET execution = '', after = 0 WHERE run = ? AND node = ?",
        (key.run, key.node),
    )
    row = tx.one("SELECT rejected FROM source WHERE run = ? AND node = ?", (key.run, key.node))
    settled = 0 if row is None else int(row["rejected"])
    tx.send(
        "DELETE FROM rejected WHERE run = ? AND node = ? AND no > ?", (key.run, key.node, settled)
    )
    tx.send("UPDATE node SET rejected = ? WHERE run = ? AND name = ?", (settled, key.run, key.node))


def count_progress(tx: Transaction, key: WorkKey, progress: Progress | None) -> None:
    """Keep the last word on progress."""
    if progress is None:
        return
    tx.send(
        "UPDATE node SET done = ?, total = ?, unit = ? WHERE run = ? AND name = ?",
        (progress.done, progress.total, progress.unit, key.run, key.node),
    )
