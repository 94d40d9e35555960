"""What the attempts of jobs have in common that ended together.

Times are integers (milliseconds since 1970, UTC).
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table, and what a job refers to it by; attempts from before keep rows of their own."""
    op.create_table(
        "attempt_group",
        sa.Column("id", sa.Text, nullable=False, primary_key=True),
        sa.Column("instance", sa.Text, nullable=False),
        sa.Column("identity", sa.Text, nullable=False),
        sa.Column("worker", sa.Text, nullable=False),
        sa.Column("explanation", sa.Text, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("ended_at", sa.BigInteger, nullable=False),
        sa.Column("runs", sa.Text, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False, server_default="default"),
    )
    op.create_index("attempt_group_by_instance", "attempt_group", ["instance", "started_at"])
    op.add_column("work", sa.Column("attempt_group", sa.Text, nullable=False, server_default=""))
