"""The enrolment records in the platform's database; one method per statement.

Times are milliseconds since 1970; serials are hexadecimal text, being longer than any integer
column.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from hivemesh_platform.storage.database import Database
from hivemesh_platform.storage.transaction import Row, Transaction
from hivemesh_platform.trust.model import (
    CredentialRecord,
    Denial,
    DenialKind,
    IssuedRecord,
    TokenRecord,
)
from hivemesh_platform.trust.ports import EnrolmentRecords

T = TypeVar("T")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class SqlEnrolmentStore:
    """Implements `EnrolmentStore` on the platform's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write(self, work: Callable[[EnrolmentRecords], T]) -> T:
        """Run `work` in a transaction; it decides by what it reads, so it runs alone."""
        return await self._database.write(lambda tx: work(SqlEnrolmentRecords(tx)), alone=True)

    async def read(self, work: Callable[[EnrolmentRecords], T]) -> T:
        """Run `work` on what is committed."""
        return await self._database.read(lambda tx: work(SqlEnrolmentRecords(tx)))


class SqlEnrolmentRecords:
    """Implements `EnrolmentRecords` on one transaction."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def add_token(self, token: TokenRecord) -> None:
        """Store a new token."""
        self._tx.execute(
            "INSERT INTO join_token (id, secret_hash, worker, instance, manifest_digest,"
            " created_at, expires_at, used_at, used_key) VALUES (?, ?, ?, ?, ?, ?, ?, NULL, '')",
            (
                token.id,
                token.secret_hash.hex(),
                token.worker,
                token.instance,
                token.manifest_digest,
                _ms(token.created_at),
                _ms(token.expires_at),
            ),
        )

    def token(self, token_id: str) -> TokenRecord | None:
        """One token."""
        row = self._tx.one("SELECT * FROM join_token WHERE id = ?", (token_id,))
        return None if row is None else _token(row)

    def use_token(self, token_id: str, key_hash: str, now: datetime) -> bool:
        """Mark an unused token as used; False where somebody was faster."""
        changed = self._tx.execute(
            "UPDATE join_token SET used_at = ?, used_key = ? WHERE id = ? AND used_at IS NULL",
            (_ms(now), key_hash, token_id),
        )
        return changed == 1

    def add_credential(self, credential: CredentialRecord) -> None:
        """Store a new deployment credential."""
        self._tx.execute(
            "INSERT INTO deployment_credential (id, secret_hash, worker, created_at, max_live,"
            " revoked_at) VALUES (?, ?, ?, ?, ?, NULL)",
            (
                credential.id,
                credential.secret_hash.hex(),
                credential.worker,
                _ms(credential.created_at),
                credential.max_live,
            ),
        )

    def credential(self, credential_id: str) -> CredentialRecord | None:
        """One deployment credential."""
        row = self._tx.one("SELECT * FROM deployment_credential WHERE id = ?", (credential_id,))
        return None if row is None else _credential(row)

    def credentials(self) -> Sequence[CredentialRecord]:
        """All deployment credentials, oldest first."""
        rows = self._tx.all("SELECT * FROM deployment_credential ORDER BY created_at, id")
        return [_credential(row) for row in rows]

    def revoke_credential(self, credential_id: str, now: datetime) -> bool:
        """Mark a credential as revoked; False where there is none."""
        changed = self._tx.execute(
            "UPDATE deployment_credential SET revoked_at = COALESCE(revoked_at, ?) WHERE id = ?",
            (_ms(now), credential_id),
        )
        return changed == 1

    def add_issued(self, issued: IssuedRecord) -> None:
        """Store an issued certificate."""
        self._tx.execute(
            "INSERT INTO issued_certificate (serial, identity, key_hash, issued_at, not_after,"
            " chain, credential, successor_key, package) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                f"{issued.serial:x}",
                issued.identity,
                issued.key_hash,
                _ms(issued.issued_at),
                _ms(issued.not_after),
                issued.chain,
                issued.credential,
                issued.successor_key,
                issued.package,
            ),
        )

    def issued(self, serial: int) -> IssuedRecord | None:
        """One issued certificate."""
        row = self._tx.one("SELECT * FROM issued_certificate WHERE serial = ?", (f"{serial:x}",))
        return None if row is None else _issued(row)

    def issued_to_key(self, key_hash: str) -> IssuedRecord | None:
        """The certificate of a public key."""
        row = self._tx.one("SELECT * FROM issued_certificate WHERE key_hash = ?", (key_hash,))
        return None if row is None else _issued(row)

    def valid_certificates(self, identity: str, now: datetime) -> Sequence[IssuedRecord]:
        """The certificates of one identity that have not expired."""
        rows = self._tx.all(
            "SELECT * FROM issued_certificate WHERE identity = ? AND not_after > ?",
            (identity, _ms(now)),
        )
        return [_issued(row) for row in rows]

    def valid_of_credential(self, credential_id: str, now: datetime) -> Sequence[IssuedRecord]:
        """The certificates that go back to a credential and have not expired."""
        rows = self._tx.all(
            "SELECT * FROM issued_certificate WHERE credential = ? AND not_after > ?",
            (credential_id, _ms(now)),
        )
        return [_issued(row) for row in rows]

    def valid(self, now: datetime) -> Sequence[IssuedRecord]:
        """Every certificate that has not expired."""
        rows = self._tx.all("SELECT * FROM issued_certificate WHERE not_after > ?", (_ms(now),))
        return [_issued(row) for row in rows]

    def set_successor(self, serial: int, key_hash: str) -> None:
        """Remember which key renewed from a certificate."""
        self._tx.execute(
            "UPDATE issued_certificate SET successor_key = ? WHERE serial = ?",
            (key_hash, f"{serial:x}"),
        )

    def add_denial(self, denial: Denial) -> None:
        """Refuse an identity, a prefix or a serial from now on."""
        self._tx.execute(
            "INSERT INTO trust_denial (rule, reason, at, until, kind, denied_by)"
            " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (rule, tenant) DO UPDATE SET"
            " reason = excluded.reason, until = excluded.until, kind = excluded.kind,"
            " denied_by = excluded.denied_by",
            (
                denial.rule,
                denial.reason,
                _ms(denial.at),
                None if denial.until is None else _ms(denial.until),
                denial.kind.value,
                denial.by,
            ),
        )

    def remove_denial(self, rule: str) -> bool:
        """Refuse it no longer; False where it was not refused."""
        return self._tx.execute("DELETE FROM trust_denial WHERE rule = ?", (rule,)) > 0

    def denials(self, now: datetime) -> Sequence[Denial]:
        """What is refused now."""
        rows = self._tx.all(
            "SELECT * FROM trust_denial WHERE until IS NULL OR until > ?", (_ms(now),)
        )
        return [_denial(row) for row in rows]

    def forget_before(self, when: datetime) -> None:
        """Drop tokens, certificates and denials that ended before `when`."""
        for statement in (
            "DELETE FROM join_token WHERE expires_at < ?",
            "DELETE FROM issued_certificate WHERE not_after < ?",
            "DELETE FROM trust_denial WHERE until < ?",
        ):
            self._tx.execute(statement, (_ms(when),))


def _token(row: Row) -> TokenRecord:
    return TokenRecord(
        id=row["id"],
        secret_hash=bytes.fromhex(row["secret_hash"]),
        worker=row["worker"],
        instance=row["instance"],
        manifest_digest=row["manifest_digest"],
        created_at=_time(row["created_at"]),
        expires_at=_time(row["expires_at"]),
        used_at=None if row["used_at"] is None else _time(row["used_at"]),
        used_key=row["used_key"],
    )


def _credential(row: Row) -> CredentialRecord:
    return CredentialRecord(
        id=row["id"],
        secret_hash=bytes.fromhex(row["secret_hash"]),
        worker=row["worker"],
        created_at=_time(row["created_at"]),
        max_live=row["max_live"],
        revoked_at=None if row["revoked_at"] is None else _time(row["revoked_at"]),
    )


def _issued(row: Row) -> IssuedRecord:
    return IssuedRecord(
        serial=int(row["serial"], 16),
        identity=row["identity"],
        key_hash=row["key_hash"],
        issued_at=_time(row["issued_at"]),
        not_after=_time(row["not_after"]),
        chain=row["chain"],
        credential=row["credential"],
        successor_key=row["successor_key"],
        package=row["package"],
    )


def _denial(row: Row) -> Denial:
    return Denial(
        rule=row["rule"],
        reason=row["reason"],
        at=_time(row["at"]),
        until=None if row["until"] is None else _time(row["until"]),
        kind=DenialKind(row["kind"]),
        by=row["denied_by"],
    )


def _ms(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def _time(milliseconds: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=milliseconds)
