"""The versions of the policy in the platform's database; one method per statement."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hivemesh_sdk.errors import ConflictError

from hivemesh_platform.storage.database import Database
from hivemesh_platform.storage.transaction import Row, Transaction

# A condition of earlier documents that decided nothing, in its flow and its block form.
_FORMER = re.compile(
    r",\s*tenants:\s*(?:same|any)\b"
    r"|\btenants:\s*(?:same|any)\s*,\s*"
    r"|(?<=\{)\s*tenants:\s*(?:same|any)\s*(?=\})"
    r"|(?m:^\s+tenants:\s*(?:same|any)\s*$\n?)"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class PolicyChangedError(ConflictError):
    """Somebody else made a version meanwhile."""

    slug = "policy-changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyVersion:
    """One version as it is stored; it never changes."""

    version: int
    document: str
    consented: str  # JSON, rules made from manifests
    author: str
    reason: str
    created_at: datetime


class PolicyStore:
    """Append-only: the highest version counts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def newest(self) -> PolicyVersion | None:
        """The version in force."""
        return await self._database.read(_newest)

    async def newest_number(self) -> int:
        """The number of the version in force; 0 where there is none."""
        row = await self._database.read(
            lambda tx: tx.one("SELECT MAX(version) AS newest FROM policy_version")
        )
        return 0 if row is None else int(row["newest"] or 0)

    async def get(self, version: int) -> PolicyVersion | None:
        """One version."""
        row = await self._database.read(
            lambda tx: tx.one("SELECT * FROM policy_version WHERE version = ?", (version,))
        )
        return None if row is None else _version(row)

    async def all(self) -> Sequence[PolicyVersion]:
        """Every version, the newest first."""
        rows = await self._database.read(
            lambda tx: tx.all("SELECT * FROM policy_version ORDER BY version DESC")
        )
        return [_version(row) for row in rows]

    async def add(self, version: PolicyVersion) -> None:
        """Append the next version.

        Raises:
            PolicyChangedError: it is not the next one any more.
        """

        def work(tx: Transaction) -> None:
            newest = _newest(tx)
            present = 0 if newest is None else newest.version
            if version.version != present + 1:
                message = f"version {present} is in force, not {version.version - 1}"
                raise PolicyChangedError(message)
            tx.execute(
                "INSERT INTO policy_version (version, document, consented, author, reason,"
                " created_at) VALUES (?, ?, ?, ?, ?, ?)",
                (
                    version.version,
                    version.document,
                    version.consented,
                    version.author,
                    version.reason,
                    _ms(version.created_at),
                ),
            )

        await self._database.write(work, alone=True)

    async def next_issue(self, now: datetime) -> int:
        """The time of the next signature in milliseconds: always later than the last one."""

        def work(tx: Transaction) -> int:
            row = tx.one("SELECT issued_at FROM policy_issue")
            issued_at = max(_ms(now), row["issued_at"] + 1 if row is not None else 0)
            tx.execute("DELETE FROM policy_issue")
            tx.execute("INSERT INTO policy_issue (issued_at) VALUES (?)", (issued_at,))
            return issued_at

        return await self._database.write(work, alone=True)


def _newest(tx: Transaction) -> PolicyVersion | None:
    row = tx.one("SELECT * FROM policy_version ORDER BY version DESC LIMIT 1")
    return None if row is None else _version(row)


def _version(row: Row) -> PolicyVersion:
    return PolicyVersion(
        version=row["version"],
        document=_FORMER.sub("", row["document"]),
        consented=row["consented"],
        author=row["author"],
        reason=row["reason"],
        created_at=_EPOCH + timedelta(milliseconds=row["created_at"]),
    )


def _ms(when: datetime) -> int:
    return (when - _EPOCH) // timedelta(milliseconds=1)
