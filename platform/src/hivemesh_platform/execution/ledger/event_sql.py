"""The event log of a run."""

import msgspec

from hivemesh_platform.storage.transaction import Transaction


def log_event(
    tx: Transaction,
    run: str,
    kind: str,
    now: int,
    *,
    node: str = "",
    data: dict[str, object] | None = None,
) -> None:
    """Append to the run's event log, which people follow by offset."""
    tx.send(
        """INSERT INTO run_event (run, no, at, type, node, data)
           SELECT ?, coalesce(max(no), 0) + 1, ?, ?, ?, ? FROM run_event WHERE run = ?""",
        (run, now, kind, node, msgspec.json.encode(data or {}).decode(), run),
    )
