"""The statements on people, roles, grants and API tokens. Times are milliseconds since 1970."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from hivemesh_platform.access.roles import Role
from hivemesh_platform.storage.transaction import Row, Transaction


@dataclass(frozen=True, slots=True, order=True)
class Subject:
    """Who has roles and grants: a user or a group of a tenant."""

    kind: str  # user, group
    name: str
    tenant: str = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """What is kept of an API token."""

    id: str
    secret_hash: str
    name: str
    owner: str
    scope: tuple[str, ...]
    created_by: str
    created_at: int
    expires_at: int
    tenant: str = "default"
    revoked_at: int | None = None
    last_used_at: int | None = None


def tenant_of(tx: Transaction, user: str) -> str | None:
    """Return the tenant of a user, or None where nobody has named the user yet."""
    row = tx.one("SELECT tenant FROM principal WHERE name = ?", (user,))
    return None if row is None else str(row["tenant"])


def users(tx: Transaction, tenant: str) -> list[str]:
    """Return the names of the users of a tenant."""
    rows = tx.all("SELECT name FROM principal WHERE tenant = ? ORDER BY name", (tenant,))
    return [row["name"] for row in rows]


def add_user(tx: Transaction, user: str, tenant: str, now: int) -> None:
    """Name a user; nothing changes where he is known."""
    tx.execute(
        "INSERT INTO principal (name, tenant, created_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        (user, tenant, now),
    )


def groups_of(tx: Transaction, user: str, tenant: str) -> list[str]:
    """Return the groups of a user."""
    rows = tx.all(
        "SELECT group_name FROM group_member WHERE member = ? AND tenant = ? ORDER BY group_name",
        (user, tenant),
    )
    return [row["group_name"] for row in rows]


def groups(tx: Transaction, tenant: str) -> list[str]:
    """Return the groups that have members, roles or grants."""
    rows = tx.all(
        """SELECT group_name AS name FROM group_member WHERE tenant = ?
           UNION SELECT subject FROM entitlement WHERE subject_kind = 'group' AND tenant = ?
           ORDER BY name""",
        (tenant, tenant),
    )
    return [row["name"] for row in rows]


def members(tx: Transaction, group: str, tenant: str) -> list[str]:
    """Return the members of a group."""
    rows = tx.all(
        "SELECT member FROM group_member WHERE group_name = ? AND tenant = ? ORDER BY member",
        (group, tenant),
    )
    return [row["member"] for row in rows]


def add_member(tx: Transaction, group: str, user: str, tenant: str) -> None:
    """Put a user into a group."""
    tx.execute(
        """INSERT INTO group_member (group_name, member, tenant) VALUES (?, ?, ?)
           ON CONFLICT DO NOTHING""",
        (group, user, tenant),
    )


def remove_member(tx: Transaction, group: str, user: str, tenant: str) -> bool:
    """Take a user out of a group; False where he was not in it."""
    changed = tx.execute(
        "DELETE FROM group_member WHERE group_name = ? AND member = ? AND tenant = ?",
        (group, user, tenant),
    )
    return changed > 0


def entitlements(tx: Transaction, subject: Subject) -> list[str]:
    """Return roles (`role:<name>`) and grants of a user or group."""
    rows = tx.all(
        """SELECT what FROM entitlement
            WHERE subject_kind = ? AND subject = ? AND tenant = ? ORDER BY what""",
        (subject.kind, subject.name, subject.tenant),
    )
    return [row["what"] for row in rows]


def entitle(tx: Transaction, subject: Subject, what: str, now: int) -> None:
    """Give a role or grant."""
    tx.execute(
        """INSERT INTO entitlement (subject_kind, subject, tenant, what, created_at)
           VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING""",
        (subject.kind, subject.name, subject.tenant, what, now),
    )


def withdraw(tx: Transaction, subject: Subject, what: str) -> bool:
    """Take a role or grant away; False where the subject had it not."""
    changed = tx.execute(
        """DELETE FROM entitlement
            WHERE subject_kind = ? AND subject = ? AND tenant = ? AND what = ?""",
        (subject.kind, subject.name, subject.tenant, what),
    )
    return changed > 0


def roles(tx: Transaction, tenant: str) -> list[Role]:
    """Return the roles that an admin of the tenant has defined."""
    rows = tx.all("SELECT * FROM role WHERE tenant = ? ORDER BY name", (tenant,))
    return [
        Role(
            name=row["name"],
            description=row["description"],
            grants=tuple(msgspec.json.decode(row["grants"], type=list[str])),
            built_in=False,
        )
        for row in rows
    ]


def put_role(tx: Transaction, role: Role, tenant: str) -> None:
    """Define a role, or define it anew."""
    tx.execute(
        """INSERT INTO role (name, tenant, description, grants) VALUES (?, ?, ?, ?)
           ON CONFLICT (name, tenant) DO UPDATE
             SET description = excluded.description, grants = excluded.grants""",
        (role.name, tenant, role.description, _text(role.grants)),
    )


def delete_role(tx: Transaction, name: str, tenant: str) -> bool:
    """Delete a defined role and take it from everybody; False where there is none."""
    tx.execute("DELETE FROM entitlement WHERE what = ? AND tenant = ?", (f"role:{name}", tenant))
    return tx.execute("DELETE FROM role WHERE name = ? AND tenant = ?", (name, tenant)) > 0


def add_token(tx: Transaction, token: TokenRecord) -> None:
    """Keep a new token."""
    tx.execute(
        """INSERT INTO api_token (id, tenant, secret_hash, name, owner, scope, created_by,
                                  created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        (
            token.id,
            token.tenant,
            token.secret_hash,
            token.name,
            token.owner,
            _text(token.scope),
            token.created_by,
            token.created_at,
            token.expires_at,
        ),
    )


def token(tx: Transaction, token_id: str) -> TokenRecord | None:
    """Return a token by its id, which is unique among all tenants."""
    row = tx.one("SELECT * FROM api_token WHERE id = ?", (token_id,))
    return None if row is None else _token(row)


def tokens(tx: Transaction, tenant: str) -> list[TokenRecord]:
    """Return the tokens of a tenant, newest first."""
    rows = tx.all(
        "SELECT * FROM api_token WHERE tenant = ? ORDER BY created_at DESC, id", (tenant,)
    )
    return [_token(row) for row in rows]


def revoke_token(tx: Transaction, token_id: str, now: int) -> None:
    """Accept a token no longer."""
    tx.execute(
        "UPDATE api_token SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", (now, token_id)
    )


def note_use(tx: Transaction, used: Sequence[tuple[str, int]]) -> None:
    """Remember when tokens were used last."""
    for token_id, at in used:
        tx.execute("UPDATE api_token SET last_used_at = ? WHERE id = ?", (at, token_id))


def _token(row: Row) -> TokenRecord:
    return TokenRecord(
        id=row["id"],
        secret_hash=row["secret_hash"],
        name=row["name"],
        owner=row["owner"],
        scope=tuple(msgspec.json.decode(row["scope"], type=list[str])),
        created_by=row["created_by"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        tenant=row["tenant"],
        revoked_at=row["revoked_at"],
        last_used_at=row["last_used_at"],
    )


def _text(items: Sequence[str]) -> str:
    return msgspec.json.encode(list(items)).decode()
