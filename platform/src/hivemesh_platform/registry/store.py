"""The known instances in the database, so that a restarted platform knows them; one row each."""

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from hivemesh_platform.registry.model import Instance
from hivemesh_platform.storage.transaction import Transaction

_decode = msgspec.json.Decoder(Instance).decode


def save(tx: Transaction, instance: Instance) -> None:
    """Add an instance or replace its row."""
    tx.execute(
        "INSERT INTO instance (id, worker, document, registered_at) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (id, tenant) DO UPDATE SET worker = excluded.worker,"
        " document = excluded.document, registered_at = excluded.registered_at",
        (
            instance.id,
            instance.worker,
            msgspec.json.encode(instance).decode(),
            int(instance.registered_at.timestamp() * 1000),
        ),
    )


def delete(tx: Transaction, instance_id: str) -> None:
    """Drop a row; no error where there is none."""
    tx.execute("DELETE FROM instance WHERE id = ?", (instance_id,))


def load(tx: Transaction, heartbeat_at: float) -> Sequence[Instance]:
    """Every stored instance, as if it had last beaten at this time."""
    rows = tx.all("SELECT document FROM instance ORDER BY id")
    return [
        replace(_decode(row["document"]), heartbeat_at=heartbeat_at, active={}, draining=False)
        for row in rows
    ]
