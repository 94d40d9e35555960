"""The tables of replicas and leaders; one function per statement."""

from hivemesh_platform.replicas.model import Leadership, Replica, ReplicaState, Urls
from hivemesh_platform.storage.names import application_name
from hivemesh_platform.storage.transaction import Row, Transaction, Value

_JOIN = """
INSERT INTO replica (id, epoch, state, beats, settled, folder, shared, version, started_at, seen_at)
VALUES (:id, 1, 'live', 1, 0, :folder, :shared, :version, :now, :now)
ON CONFLICT (id) DO UPDATE SET epoch = replica.epoch + 1, state = 'live',
       beats = replica.beats + 1, settled = 0, folder = excluded.folder, shared = excluded.shared,
       mesh_url = '', enrolment_url = '', people_url = '',
       version = excluded.version, started_at = excluded.started_at, seen_at = excluded.seen_at
RETURNING epoch
"""
_LEAD = """
INSERT INTO leader (name, holder, holder_epoch, epoch, since)
VALUES (:name, :holder, :holder_epoch, 1, :now)
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, holder_epoch = excluded.holder_epoch,
       epoch = leader.epoch + 1, since = excluded.since
 WHERE leader.epoch = :before
"""


def join(tx: Transaction, replica: str, *, folder: str, shared: str, version: str, now: int) -> int:
    """Write that a replica lives from now on; returns its epoch, which nobody has had before."""
    names: dict[str, Value] = {
        "id": replica,
        "folder": folder,
        "shared": shared,
        "version": version,
        "now": now,
    }
    _after_commits(tx, replica)
    row = tx.one(_JOIN, names)
    if row is None:
        message = "a statement with RETURNING gave no row"
        raise AssertionError(message)
    return int(row["epoch"])


def announce(tx: Transaction, replica: str, epoch: int, urls: Urls) -> None:
    """Write where a replica is reached."""
    tx.execute(
        """UPDATE replica SET mesh_url = ?, enrolment_url = ?, people_url = ?
            WHERE id = ? AND epoch = ?""",
        (urls.mesh, urls.enrolment, urls.people, replica, epoch),
    )


def beat(tx: Transaction, replica: str, epoch: int, now: int) -> bool:
    """Write a heartbeat; False where the replica has been declared dead."""
    changed = tx.execute(
        """UPDATE replica SET beats = beats + 1, seen_at = ?
            WHERE id = ? AND epoch = ? AND state = 'live'""",
        (now, replica, epoch),
    )
    return changed == 1


def leave(tx: Transaction, replica: str, epoch: int, now: int) -> bool:
    """Write that a replica ends in order; what it holds may go to others at once."""
    _after_commits(tx, replica)
    changed = tx.execute(
        """UPDATE replica SET state = 'left', epoch = epoch + 1, settled = 0, seen_at = ?
            WHERE id = ? AND epoch = ?""",
        (now, replica, epoch),
    )
    return changed == 1


def declare_dead(tx: Transaction, seen: Replica) -> bool:
    """Fence a replica that was silent; False where it has beaten, or been fenced, since."""
    _after_commits(tx, seen.id)
    changed = tx.execute(
        """UPDATE replica SET state = 'dead', epoch = epoch + 1, settled = 0
            WHERE id = ? AND epoch = ? AND beats = ? AND state = 'live'""",
        (seen.id, seen.epoch, seen.beats),
    )
    return changed == 1


def _after_commits(tx: Transaction, replica: str) -> None:
    """Wait for what commits under a replica's epoch, which is about to change."""
    if tx.for_update:
        tx.send("SELECT 1 FROM replica WHERE id = ?" + tx.for_update, (replica,))  # noqa: S608 - a word of the dialect


def cut_off(tx: Transaction, replica: str) -> None:
    """End a replica's connections: one that was stopped inside a transaction holds its locks.

    The server ends an idle transaction by itself, but not one that waits for the rest of a
    pipeline.
    """
    if tx.dialect == "postgresql":
        tx.all(
            """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE application_name = ? AND datname = current_database()
                  AND usename = current_user AND pid != pg_backend_pid()""",
            (application_name(replica),),
        )


def settle(tx: Transaction, seen: Replica) -> None:
    """Write that everything of a replica that is gone goes on elsewhere."""
    tx.execute("UPDATE replica SET settled = 1 WHERE id = ? AND epoch = ?", (seen.id, seen.epoch))


def is_current(tx: Transaction, replica: str, epoch: int) -> bool:
    """Whether a replica still has this epoch, and keeps it until the transaction ends.

    Heartbeats go on meanwhile: a transaction that waits must not silence its own replica.
    """
    sql = "SELECT 1 FROM replica WHERE id = ? AND epoch = ?" + tx.for_key_share  # noqa: S608 - a word of the dialect
    return tx.one(sql, (replica, epoch)) is not None


def get(tx: Transaction, replica: str) -> Replica | None:
    """One replica."""
    row = tx.one("SELECT * FROM replica WHERE id = ?", (replica,))
    return None if row is None else _replica(row)


def all_replicas(tx: Transaction) -> list[Replica]:
    """Every replica that has ever joined and was not forgotten."""
    return [_replica(row) for row in tx.all("SELECT * FROM replica ORDER BY id")]


def forget_before(tx: Transaction, when: int) -> None:
    """Forget replicas that are gone for good: dead or left since before `when`, and settled."""
    tx.execute("DELETE FROM replica WHERE state != 'live' AND settled = 1 AND seen_at < ?", (when,))


def leaders(tx: Transaction) -> list[Leadership]:
    """Who leads in what."""
    return [
        Leadership(
            name=row["name"],
            holder=row["holder"],
            holder_epoch=row["holder_epoch"],
            epoch=row["epoch"],
            since=row["since"],
        )
        for row in tx.all("SELECT * FROM leader ORDER BY name")
    ]


def lead(tx: Transaction, name: str, holder: tuple[str, int], before: int, now: int) -> bool:
    """Take over a leadership whose epoch is `before` (0: there is none); False: another did."""
    replica, epoch = holder
    names: dict[str, Value] = {
        "name": name,
        "holder": replica,
        "holder_epoch": epoch,
        "before": before,
        "now": now,
    }
    return tx.execute(_LEAD, names) == 1


def _replica(row: Row) -> Replica:
    return Replica(
        id=row["id"],
        epoch=row["epoch"],
        state=ReplicaState(row["state"]),
        beats=row["beats"],
        settled=bool(row["settled"]),
        folder=row["folder"],
        shared=row["shared"],
        urls=Urls(row["mesh_url"], row["enrolment_url"], row["people_url"]),
        version=row["version"],
        started_at=row["started_at"],
        seen_at=row["seen_at"],
    )
