"""Versions of the policy, and when it was signed last.

Times are integers (milliseconds since 1970, UTC). `consented` holds the rules made from manifests.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables of the policy."""
    op.create_table(
        "policy_version",
        sa.Column("version", sa.BigInteger, nullable=False, primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("consented", sa.Text, nullable=False),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        _tenant(),
    )
    op.create_table(
        "policy_issue",
        sa.Column("issued_at", sa.BigInteger, nullable=False),
        _tenant(),
    )


def _tenant() -> "sa.Column[str]":
    return sa.Column("tenant", sa.Text, nullable=False, server_default="default", primary_key=True)
