"""The known instances in the database, so that a restarted platform knows them; one row each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import msgspec
from hivemesh_sdk.contracts.instances import Heartbeat

from hivemesh_platform.registry.model import Instance
from hivemesh_platform.storage.transaction import Transaction, listed

AT_ONCE = 500  # ids in one statement
_decode = msgspec.json.Decoder(Instance).decode


class StoredLoad(msgspec.Struct, frozen=True, kw_only=True):
    """The last heartbeat of an instance, as replicas tell it each other."""

    heartbeat: Heartbeat
    expires_at: datetime  # of its certificate
    clock_off: str = ""


_decode_load = msgspec.json.Decoder(StoredLoad).decode


@dataclass(frozen=True, slots=True)
class StoredInstance:
    """A row: the instance as it registered, and its last heartbeat if it has beaten since."""

    instance: Instance
    load: StoredLoad | None


def save(tx: Transaction, instance: Instance) -> None:
    """Add an instance or replace its row."""
    tx.execute(
        "INSERT INTO instance (id, worker, document, registered_at) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (id, tenant) DO UPDATE SET worker = excluded.worker,"
        " document = excluded.document, registered_at = excluded.registered_at,"
        " beats = instance.beats + 1, load = ''",
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
        replace(
            _decode(row["document"]),
            heartbeat_at=heartbeat_at,
            active={},
            draining=False,
            clock_off="",
        )
        for row in rows
    ]


def beats(tx: Transaction) -> list[tuple[str, int]]:
    """How many heartbeats of each instance were written."""
    return [(row["id"], row["beats"]) for row in tx.all("SELECT id, beats FROM instance")]


def find(tx: Transaction, ids: Sequence[str]) -> list[StoredInstance]:
    """The rows of some instances; their heartbeats have no time, as clocks differ."""
    found: list[StoredInstance] = []
    for start in range(0, len(ids), AT_ONCE):
        marks, some = listed(ids[start : start + AT_ONCE])
        sql = f"SELECT document, load FROM instance WHERE id IN ({marks})"  # noqa: S608 - marks alone
        for row in tx.all(sql, some):
            load = _decode_load(row["load"]) if row["load"] else None
            found.append(StoredInstance(_decode(row["document"]), load))
    return found


def write_beats(tx: Transaction, loads: Mapping[str, StoredLoad]) -> None:
    """Write heartbeats, always in the same order: two replicas may write the same rows."""
    tx.execute_many(
        "UPDATE instance SET beats = beats + 1, load = ? WHERE id = ?",
        [(msgspec.json.encode(load).decode(), name) for name, load in sorted(loads.items())],
    )
