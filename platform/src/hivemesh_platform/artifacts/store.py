"""The statements on artifacts: what people and steps have stored, and what still needs it."""

from collections.abc import Iterable, Mapping, Sequence

from hivemesh_sdk.contracts.artifacts import DataClass, highest

from hivemesh_platform.artifacts.model import ArtifactInfo, Holding
from hivemesh_platform.storage.transaction import Transaction, Value, listed

DIGESTS_PER_READ = 200


def insert(tx: Transaction, info: ArtifactInfo, origin: str, tenant: str) -> None:
    """Keep what is known of an artifact; the first name and media type stay, a class only rises."""
    before = tx.one(
        "SELECT data_class FROM artifact WHERE sha256 = ? AND tenant = ?", (info.sha256, tenant)
    )
    if before is not None:
        tx.execute(
            "UPDATE artifact SET created_at = ? WHERE sha256 = ? AND tenant = ? AND created_at < ?",
            (info.created_at, info.sha256, tenant, info.created_at),
        )
        if info.data_class.exceeds(DataClass(before["data_class"])):
            tx.execute(
                "UPDATE artifact SET data_class = ? WHERE sha256 = ? AND tenant = ?",
                (info.data_class.value, info.sha256, tenant),
            )
        return
    tx.execute(
        """INSERT INTO artifact (sha256, size, media_type, name, origin, created_at, tenant,
                                 data_class)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?)""",
        (
            info.sha256,
            info.size,
            info.media_type,
            info.name,
            origin,
            info.created_at,
            tenant,
            info.data_class.value,
        ),
    )


def classes(tx: Transaction, digests: Sequence[str]) -> dict[str, DataClass]:
    """Return the highest class under which each of the digests is known, as file or in a dataset."""
    found: dict[str, DataClass] = {}
    for first in range(0, len(digests), DIGESTS_PER_READ):
        marks, some = listed(digests[first : first + DIGESTS_PER_READ])
        rows = tx.all(
            f"""SELECT sha256, data_class FROM artifact WHERE sha256 IN ({marks})
                UNION SELECT part.sha256, dataset.data_class
                  FROM dataset_part AS part JOIN dataset
                    ON dataset.name = part.name AND dataset.version = part.version
                   AND dataset.tenant = part.tenant
                 WHERE part.sha256 IN ({marks})""",  # noqa: S608 - question marks only
            (*some, *some),
        )
        for row in rows:
            one = DataClass(row["data_class"])
            found[row["sha256"]] = highest((one, found.get(row["sha256"], one)))
    return found


def known_classes(
    tx: Transaction, digests: Iterable[str], folders: Mapping[str, frozenset[str]]
) -> dict[str, DataClass]:
    """Return the class of each of the digests: of a folder, the highest of what it holds."""
    inside = {one: folders.get(one, frozenset()) for one in digests}
    known = classes(tx, sorted(frozenset(inside).union(*inside.values())))
    default = DataClass.INTERNAL
    return {
        one: highest((known.get(one, default), *(known.get(part, default) for part in parts)))
        for one, parts in inside.items()
    }


def insert_of_step(tx: Transaction, step: Holding, sha256: str) -> None:
    """Remember that a step has stored an artifact."""
    tx.execute(
        """INSERT INTO step_artifact (run, node, seq, sha256) VALUES (?, ?, ?, ?)
           ON CONFLICT DO NOTHING""",
        (step.run, step.node, step.seq, sha256),
    )


def find(tx: Transaction, sha256: str, tenant: str) -> ArtifactInfo | None:
    """Return what a tenant knows of an artifact."""
    row = tx.one("SELECT * FROM artifact WHERE sha256 = ? AND tenant = ?", (sha256, tenant))
    if row is None:
        return None
    return ArtifactInfo(
        sha256=row["sha256"],
        size=row["size"],
        media_type=row["media_type"],
        name=row["name"],
        created_at=row["created_at"],
        data_class=DataClass(row["data_class"]),
    )


def tenant_of_step(tx: Transaction, step: Holding) -> str:
    """Return the tenant for which a step works."""
    row = tx.one(
        "SELECT tenant FROM work WHERE run = ? AND node = ? AND seq = ?",
        (step.run, step.node, step.seq),
    )
    return "default" if row is None else str(row["tenant"])


def known(tx: Transaction, digests: Sequence[str], tenant: str) -> set[str]:
    """Return those of the digests that a tenant has: uploaded, stored by a step, or of a dataset."""
    found: set[str] = set()
    for first in range(0, len(digests), DIGESTS_PER_READ):
        marks, some = listed(digests[first : first + DIGESTS_PER_READ])
        rows = tx.all(
            f"""SELECT sha256 FROM artifact WHERE tenant = ? AND sha256 IN ({marks})
                UNION SELECT sha256 FROM dataset_part WHERE tenant = ? AND sha256 IN ({marks})""",  # noqa: S608 - question marks only
            (tenant, *some, tenant, *some),
        )
        found.update(row["sha256"] for row in rows)
    return found


def owned(tx: Transaction, digests: Sequence[str], principal: str, tenant: str) -> set[str]:
    """Return those of the digests whose bytes the principal has uploaded."""
    marks, digests = listed(digests)
    rows = tx.all(
        f"""SELECT sha256 FROM artifact_owner
             WHERE tenant = ? AND principal = ? AND sha256 IN ({marks})""",  # noqa: S608 - as above
        (tenant, principal, *digests),
    )
    return {row["sha256"] for row in rows}


def own(tx: Transaction, sha256: str, principal: str, tenant: str) -> None:
    """Remember that a principal has uploaded these bytes."""
    tx.execute(
        """INSERT INTO artifact_owner (sha256, principal, tenant) VALUES (?, ?, ?)
           ON CONFLICT DO NOTHING""",
        (sha256, principal, tenant),
    )


def datasets_with(tx: Transaction, sha256: str, tenant: str) -> list[str]:
    """Return the names of the datasets of which the bytes are a part."""
    rows = tx.all(
        "SELECT DISTINCT name FROM dataset_part WHERE sha256 = ? AND tenant = ?", (sha256, tenant)
    )
    return [row["name"] for row in rows]


def runs_with(tx: Transaction, sha256: str, tenant: str) -> list[str]:
    """Return the newest runs and jobs of the tenant whose steps have stored the bytes."""
    rows = tx.all(
        """SELECT DISTINCT step_artifact.run AS run FROM step_artifact
             JOIN work ON work.run = step_artifact.run AND work.node = step_artifact.node
                      AND work.seq = step_artifact.seq
            WHERE step_artifact.sha256 = ? AND work.tenant = ?
            ORDER BY step_artifact.run DESC LIMIT 100""",
        (sha256, tenant),
    )
    return [row["run"] for row in rows]


def stored_by_run(tx: Transaction, run: str, sha256: str) -> bool:
    """Whether a step of the run has stored the artifact, or of those that it has its parts from.

    These are the runs that are its steps, and the one whose missing parts it gives.
    """
    found = tx.one(
        """WITH RECURSIVE family (id) AS (
               SELECT id FROM run WHERE id = ? UNION
               SELECT other.id FROM family JOIN run AS other
                   ON (other.parent != '' AND other.parent = family.id)
                   OR other.id = (SELECT backfill_of FROM run WHERE run.id = family.id))
           SELECT 1 FROM step_artifact
            WHERE sha256 = ? AND (run = ? OR run IN (SELECT id FROM family))""",
        (run, sha256, run),
    )
    return found is not None


def referenced(tx: Transaction, digests: Sequence[str]) -> set[str]:
    """Return those of the digests that something which is kept still needs."""
    marks, digests = listed(digests)
    rows = tx.all(
        f"""SELECT sha256 FROM artifact WHERE sha256 IN ({marks})
            UNION SELECT sha256 FROM step_artifact WHERE sha256 IN ({marks})
            UNION SELECT sha256 FROM dataset_part WHERE sha256 IN ({marks})""",  # noqa: S608 - question marks only
        (*digests, *digests, *digests),
    )
    return {row["sha256"] for row in rows}


_UNNEEDED = """
SELECT sha256, tenant FROM artifact
 WHERE created_at < :before
   AND NOT EXISTS (SELECT 1 FROM dataset_part WHERE dataset_part.sha256 = artifact.sha256)
   AND NOT EXISTS (SELECT 1 FROM step_artifact WHERE step_artifact.sha256 = artifact.sha256)
"""


def unneeded(
    tx: Transaction, after: tuple[str, str], before: int, limit: int
) -> list[tuple[str, str]]:
    """Return digest and tenant of old entries that no dataset has and no kept step has stored."""
    names: dict[str, Value] = {
        "after": after[0],
        "tenant": after[1],
        "before": before,
        "limit": limit,
    }
    following = " AND (sha256 > :after OR (sha256 = :after AND tenant > :tenant))"
    rows = tx.all(_UNNEEDED + following + " ORDER BY sha256, tenant LIMIT :limit", names)
    return [(row["sha256"], row["tenant"]) for row in rows]


def remove(tx: Transaction, digests: Sequence[tuple[str, str]], before: int) -> int:
    """Forget entries, but none that was stored or needed again; returns how many."""
    removed = 0
    for sha256, tenant in digests:
        names: dict[str, Value] = {
            "before": before,
            "sha256": sha256,
            "tenant": tenant,
        }
        still = " AND sha256 = :sha256 AND tenant = :tenant"
        if tx.one(_UNNEEDED + still + tx.for_update, names) is None:
            continue
        tx.send("DELETE FROM artifact_owner WHERE sha256 = ? AND tenant = ?", (sha256, tenant))
        tx.send("DELETE FROM artifact WHERE sha256 = ? AND tenant = ?", (sha256, tenant))
        removed += 1
    return removed


def folders(tx: Transaction, digests: Sequence[str], media_type: str) -> list[str]:
    """Return those of the digests that are folders."""
    marks, digests = listed(digests)
    rows = tx.all(
        f"SELECT sha256 FROM artifact WHERE media_type = ? AND sha256 IN ({marks})",  # noqa: S608 - as above
        (media_type, *digests),
    )
    return [row["sha256"] for row in rows]


def oldest_open_run(tx: Transaction) -> int | None:
    """Return when the oldest run or job that has not ended was accepted."""
    row = tx.one(
        """SELECT min(at) AS at FROM (
               SELECT min(created_at) AS at FROM run WHERE ended_at IS NULL
               UNION ALL SELECT min(created_at) FROM work WHERE ended_at IS NULL) AS open"""
    )
    return None if row is None or row["at"] is None else int(row["at"])
