"""The statements on datasets."""

from collections.abc import Sequence
from typing import Any

import msgspec
from hivemesh_sdk.contracts.artifacts import DataClass

from hivemesh_platform.knowledge.model import DatasetState, DatasetVersion, Part
from hivemesh_platform.storage.transaction import Row, Transaction


def next_version(tx: Transaction, name: str, tenant: str) -> int:
    """Return the number of the version that comes next."""
    row = tx.one(
        "SELECT max(version) AS v FROM dataset WHERE name = ? AND tenant = ?", (name, tenant)
    )
    return 1 + (0 if row is None or row["v"] is None else int(row["v"]))


def class_of(tx: Transaction, name: str, tenant: str) -> DataClass | None:
    """Return the class of a dataset: that of its first version, None where there is none yet."""
    row = tx.one(
        "SELECT data_class FROM dataset WHERE name = ? AND tenant = ? ORDER BY version LIMIT 1",
        (name, tenant),
    )
    return None if row is None else DataClass(row["data_class"])


def insert(tx: Transaction, version: DatasetVersion) -> None:
    """Add a version without parts."""
    tx.send(
        """INSERT INTO dataset (name, version, state, run, node, provenance, created_at, tenant,
                                data_class)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        (
            version.name,
            version.version,
            version.state.value,
            version.run,
            version.node,
            msgspec.json.encode(version.provenance).decode(),
            version.created_at,
            version.tenant,
            version.data_class.value,
        ),
    )


def insert_parts(
    tx: Transaction, name: str, version: int, parts: Sequence[Part], tenant: str
) -> None:
    """Add parts and count their records."""
    if not parts:
        return
    tx.execute_many(
        """INSERT INTO dataset_part (name, version, seq, sha256, count, bytes, encoding, tenant)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?)""",
        [
            (name, version, part.seq, part.sha256, part.count, part.bytes, part.encoding, tenant)
            for part in parts
        ],
    )
    tx.send(
        """UPDATE dataset SET records = records + ?, bytes = bytes + ?
            WHERE name = ? AND version = ? AND tenant = ?""",
        (
            sum(part.count for part in parts),
            sum(part.bytes for part in parts),
            name,
            version,
            tenant,
        ),
    )


def set_state(
    tx: Transaction, name: str, version: int, state: DatasetState, tenant: str
) -> tuple[int, int]:
    """End the writing of a version; returns its records and bytes."""
    row = tx.one(
        """UPDATE dataset SET state = ? WHERE name = ? AND version = ? AND tenant = ?
            RETURNING records, bytes""",
        (state.value, name, version, tenant),
    )
    return (0, 0) if row is None else (row["records"], row["bytes"])


def clear(tx: Transaction, name: str, version: int, tenant: str) -> None:
    """Take the parts of a version away."""
    which = (name, version, tenant)
    tx.send("DELETE FROM dataset_part WHERE name = ? AND version = ? AND tenant = ?", which)
    tx.send(
        """UPDATE dataset SET records = 0, bytes = 0
            WHERE name = ? AND version = ? AND tenant = ?""",
        which,
    )


def find(tx: Transaction, name: str, version: int | None, tenant: str) -> DatasetVersion | None:
    """Return a version; without a number the newest that is not abandoned, else the newest."""
    if version is not None:
        row = tx.one(
            "SELECT * FROM dataset WHERE name = ? AND version = ? AND tenant = ?",
            (name, version, tenant),
        )
    else:
        row = tx.one(
            """SELECT * FROM dataset WHERE name = ? AND tenant = ?
                ORDER BY state = 'abandoned', version DESC LIMIT 1""",
            (name, tenant),
        )
    return None if row is None else _version(row)


def page(tx: Transaction, after: tuple[str, int], limit: int, tenant: str) -> list[DatasetVersion]:
    """Return versions by name, newest first, behind a name and version."""
    name, version = after
    rows = tx.all(
        """SELECT * FROM dataset WHERE tenant = ? AND (name > ? OR (name = ? AND version < ?))
            ORDER BY name, version DESC LIMIT ?""",
        (tenant, name, name, version, limit),
    )
    return [_version(row) for row in rows]


def parts(tx: Transaction, of: DatasetVersion, after: int, limit: int) -> list[Part]:
    """Return the parts of a version behind a seq, in order."""
    rows = tx.all(
        """SELECT * FROM dataset_part WHERE name = ? AND version = ? AND tenant = ? AND seq > ?
            ORDER BY seq LIMIT ?""",
        (of.name, of.version, of.tenant, after, limit),
    )
    return [Part(r["seq"], r["sha256"], r["count"], r["bytes"], r["encoding"]) for r in rows]


def workers_of(tx: Transaction, run: str, node: str) -> list[str]:
    """Return the worker types with version that made the batches of a node."""
    rows = tx.all(
        """SELECT DISTINCT worker FROM attempt
            WHERE run = ? AND node = ? AND worker != '' ORDER BY worker""",
        (run, node),
    )
    return [row["worker"] for row in rows]


def identities_of(tx: Transaction, run: str, node: str) -> list[str]:
    """Return the identities of the instances that made the batches of a node."""
    rows = tx.all(
        """SELECT DISTINCT identity FROM attempt
            WHERE run = ? AND node = ? AND identity != '' ORDER BY identity LIMIT 100""",
        (run, node),
    )
    return [row["identity"] for row in rows]


def missing_of(tx: Transaction, run: str) -> list[str]:
    """Return what the run went on without: fields, or steps."""
    row = tx.one("SELECT missing FROM run WHERE id = ?", (run,))
    return [] if row is None else msgspec.json.decode(row["missing"], type=list[str])


def _version(row: Row) -> DatasetVersion:
    provenance: dict[str, Any] = msgspec.json.decode(row["provenance"])
    return DatasetVersion(
        name=row["name"],
        version=row["version"],
        state=DatasetState(row["state"]),
        run=row["run"],
        node=row["node"],
        records=row["records"],
        bytes=row["bytes"],
        created_at=row["created_at"],
        provenance=provenance,
        tenant=row["tenant"],
        data_class=DataClass(row["data_class"]),
    )
