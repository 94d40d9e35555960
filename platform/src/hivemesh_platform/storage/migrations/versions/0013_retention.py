"""Retention of what has ended, and lists of what has not been removed yet.

Times are integers (milliseconds since 1970, UTC).
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what runs that are being removed are remembered by, and what a sweep looks up."""
    op.create_table(
        "expired_run",  # its row is gone; its other rows go in small transactions
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False, server_default="default"),
    )
    op.create_index("run_by_pipeline", "run", ["pipeline", "id"])  # lists of very many runs
    op.create_index("run_by_submitter", "run", ["submitter", "id"])
    jobs = sa.text("node = 'job'")
    op.create_index(
        "work_jobs",  # has all that a list asks for, and is written once for a job
        "work",
        ["run", "node", "tenant", "capability", "submitter"],
        sqlite_where=jobs,
        postgresql_where=jobs,
    )
    failed = sa.text("node = 'job' AND state = 'failed'")
    op.create_index(
        "work_jobs_failed", "work", ["run"], sqlite_where=failed, postgresql_where=failed
    )
    op.create_index("step_artifact_by_digest", "step_artifact", ["sha256"])
    op.create_index(
        "run_backfills",
        "run",
        ["backfill_of"],
        sqlite_where=sa.text("backfill_of != ''"),
        postgresql_where=sa.text("backfill_of != ''"),
    )


def downgrade() -> None:
    """Migrations go forward."""
    message = "restore the backup that was made before the upgrade"
    raise NotImplementedError(message)
