"""The last transaction of each connection that writes, where several write side by side.

Times are integers (milliseconds since 1970, UTC).
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table; SQLite has one writer, whose commits always answer."""
    if op.get_bind().dialect.name == "sqlite":
        return
    op.create_table(
        "writer",
        sa.Column("id", sa.Text, nullable=False, primary_key=True),
        sa.Column("no", sa.BigInteger, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        postgresql_with={"fillfactor": 20},  # each transaction writes its row anew in place
    )
