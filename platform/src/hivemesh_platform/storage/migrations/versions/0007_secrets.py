"""What steps were lent. The secrets themselves are in their store, never in this database.

Times are integers (milliseconds since 1970, UTC).
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table of leases."""
    op.create_table(
        "secret_lease",
        sa.Column("id", sa.Text, nullable=False, primary_key=True),
        _text("path"),
        _number("version"),
        _text("run"),
        _text("step"),
        _number("attempt"),
        _text("identity"),
        _number("created_at"),
        _number("expires_at"),
        _number("revoked_at", nullable=True),
        _text("store_lease"),  # of the store, where it made the secret for this lease
        sa.Column("tenant", sa.Text, nullable=False, server_default="default", primary_key=True),
    )
    op.create_index("secret_lease_of_step", "secret_lease", ["step", "attempt"])
    op.create_index("secret_lease_of_run", "secret_lease", ["run"])
    op.create_index("secret_lease_open", "secret_lease", ["revoked_at"])


def _text(name: str) -> "sa.Column[str]":
    return sa.Column(name, sa.Text, nullable=False)


def _number(name: str, *, nullable: bool = False) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger, nullable=nullable)
