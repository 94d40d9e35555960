"""The statements on leases."""

from hivemesh_platform.credentials.model import Lease
from hivemesh_platform.storage.transaction import Row, Transaction


def insert(tx: Transaction, lease: Lease) -> None:
    """Add a lease."""
    tx.execute(
        """INSERT INTO secret_lease (id, path, version, run, step, attempt, identity, created_at,
                                     expires_at, store_lease, tenant)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        (
            lease.id,
            lease.path,
            lease.version,
            lease.run,
            lease.step,
            lease.attempt,
            lease.identity,
            lease.created_at,
            lease.expires_at,
            lease.store_lease,
            lease.tenant,
        ),
    )


def revoke_of_step(tx: Transaction, step: str, attempt: int, now: int) -> list[str]:
    """End the leases of one attempt; returns what the store has to be given back."""
    return _revoke(tx, "step = ? AND attempt = ?", (step, attempt), now)


def revoke_all(tx: Transaction, now: int) -> list[str]:
    """End every lease: the steps of a former process hold nothing any more."""
    return _revoke(tx, "1 = 1", (), now)


def revoke_ended(tx: Transaction, now: int) -> list[str]:
    """End the leases of attempts that no replica holds any more."""
    held = """NOT EXISTS (SELECT 1 FROM work
                           WHERE work.run = secret_lease.run AND work.state = 'running'
                             AND work.attempt = secret_lease.attempt
                             AND work.run || '.' || work.node || '.' || CAST(work.seq AS TEXT)
                                 = secret_lease.step)"""
    return _revoke(tx, held, (), now)


def open_steps(tx: Transaction) -> set[tuple[str, int]]:
    """Return the attempts that have leases."""
    rows = tx.all("SELECT DISTINCT step, attempt FROM secret_lease WHERE revoked_at IS NULL")
    return {(row["step"], row["attempt"]) for row in rows}


def of_run(tx: Transaction, run: str) -> list[Lease]:
    """Return the leases of a run, the oldest first."""
    rows = tx.all("SELECT * FROM secret_lease WHERE run = ? ORDER BY created_at, id", (run,))
    return list(map(_lease, rows))


def forget_before(tx: Transaction, time: int) -> None:
    """Remove the rows of leases that ended before a time; the audit trail keeps who had what."""
    tx.execute("DELETE FROM secret_lease WHERE revoked_at < ?", (time,))


def _revoke(tx: Transaction, which: str, parameters: tuple[str | int, ...], now: int) -> list[str]:
    condition = f"revoked_at IS NULL AND {which}"
    lent = tx.all(
        f"SELECT store_lease FROM secret_lease WHERE store_lease != '' AND {condition}",  # noqa: S608 - two conditions of this module
        parameters,
    )
    tx.execute(
        f"UPDATE secret_lease SET revoked_at = ? WHERE {condition}",  # noqa: S608 - as above
        (now, *parameters),
    )
    return [row["store_lease"] for row in lent]


def _lease(row: Row) -> Lease:
    return Lease(
        id=row["id"],
        path=row["path"],
        version=row["version"],
        run=row["run"],
        step=row["step"],
        attempt=row["attempt"],
        identity=row["identity"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        store_lease=row["store_lease"],
        tenant=row["tenant"],
    )
