"""Principals, roles, grants and API tokens.

Times are integers (milliseconds since 1970, UTC).
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables of people and what they may do."""
    _table("principal", _text("name", key=True), _number("created_at"))
    op.create_index("principal_name", "principal", ["name"], unique=True)
    _table("role", _text("name", key=True), _text("description"), _text("grants"))
    _table(
        "entitlement",  # a role (`role:analyst`) or grant (`read:dataset/x`) of a user or group
        _text("subject_kind", key=True),  # user, group
        _text("subject", key=True),
        _text("what", key=True),
        _number("created_at"),
    )
    _table("group_member", _text("group_name", key=True), _text("member", key=True))
    _table(
        "api_token",
        _text("id", key=True),
        _text("secret_hash"),
        _text("name"),
        _text("owner"),
        _text("scope"),  # JSON list of roles and grants
        _text("created_by"),
        _number("created_at"),
        _number("expires_at"),
        _number("revoked_at", nullable=True),
        _number("last_used_at", nullable=True),
    )
    op.create_index("api_token_by_owner", "api_token", ["owner"])
    _table("artifact_owner", _text("sha256", key=True), _text("principal", key=True))


def _table(name: str, *columns: "sa.Column[Any]") -> None:
    tenant = sa.Column(
        "tenant", sa.Text, nullable=False, server_default="default", primary_key=True
    )
    op.create_table(name, *columns, tenant)


def _text(name: str, *, key: bool = False) -> "sa.Column[str]":
    return sa.Column(name, sa.Text, nullable=False, primary_key=key)


def _number(name: str, *, nullable: bool = False) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger, nullable=nullable)
