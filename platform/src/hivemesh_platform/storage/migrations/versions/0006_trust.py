"""Denials by package, who denied and why, and the package that a certificate was enrolled with."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    op.add_column("issued_certificate", _text("package", ""))
    op.add_column("trust_denial", _text("kind", "ban"))
    op.add_column("trust_denial", _text("denied_by", ""))


def _text(name: str, default: str) -> "sa.Column[str]":
    return sa.Column(name, sa.Text, nullable=False, server_default=default)
