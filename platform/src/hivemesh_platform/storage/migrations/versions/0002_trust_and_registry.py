"""Join tokens, deployment credentials, issued certificates, denials, and known instances.

Times are integers (milliseconds since 1970, UTC); serials are hexadecimal text.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables of trust and registry."""
    _trust()
    _registry()


def _trust() -> None:
    op.create_table(
        "join_token",
        _text("id", primary_key=True),
        _text("secret_hash"),
        _text("worker"),
        _text("instance"),
        _text("manifest_digest"),
        _number("created_at"),
        _number("expires_at"),
        _number("used_at", nullable=True),
        _text("used_key"),
        _tenant(),
    )
    op.create_table(
        "deployment_credential",
        _text("id", primary_key=True),
        _text("secret_hash"),
        _text("worker"),
        _number("created_at"),
        _number("max_live"),
        _number("revoked_at", nullable=True),
        _tenant(),
    )
    op.create_table(
        "issued_certificate",
        _text("serial", primary_key=True),
        _text("identity"),
        _text("key_hash"),
        _number("issued_at"),
        _number("not_after"),
        _text("chain"),
        _text("credential"),
        _text("successor_key"),
        _tenant(),
    )
    op.create_index("issued_by_key", "issued_certificate", ["key_hash"])
    op.create_index("issued_by_identity", "issued_certificate", ["identity", "not_after"])
    op.create_index("issued_by_credential", "issued_certificate", ["credential", "not_after"])
    op.create_table(
        "trust_denial",
        _text("rule", primary_key=True),
        _text("reason"),
        _number("at"),
        _number("until", nullable=True),
        _tenant(),
    )


def _registry() -> None:
    op.create_table(
        "instance",
        _text("id", primary_key=True),
        _text("worker"),
        _text("document"),
        _number("registered_at"),
        _tenant(),
    )


def _tenant() -> "sa.Column[str]":
    return sa.Column("tenant", sa.Text, nullable=False, server_default="default", primary_key=True)


def _text(name: str, *, primary_key: bool = False) -> "sa.Column[str]":
    return sa.Column(name, sa.Text, nullable=False, primary_key=primary_key)


def _number(name: str, *, nullable: bool = False) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger, nullable=nullable)
