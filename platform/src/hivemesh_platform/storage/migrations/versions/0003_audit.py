"""The index of the audit trail. The files are the truth; these rows are made from them again.

Times are integers (milliseconds since 1970, UTC).
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the index."""
    op.create_table(
        "audit_index",
        sa.Column("seq", sa.BigInteger, primary_key=True),
        _text("tenant", default="default"),
        sa.Column("at", sa.BigInteger, nullable=False),
        _text("actor"),
        _text("on_behalf_of"),
        _text("action"),
        _text("object"),
        _text("decision"),
        _text("run"),
        sa.Column("segment", sa.BigInteger, nullable=False),
        sa.Column("place", sa.BigInteger, nullable=False),  # byte of the segment's file
    )
    for column in ("actor", "on_behalf_of", "action", "object", "run", "at"):
        op.create_index(f"audit_by_{column}", "audit_index", [column, "seq"])


def _text(name: str, *, default: str | None = None) -> "sa.Column[str]":
    return sa.Column(name, sa.Text, nullable=False, server_default=default)
