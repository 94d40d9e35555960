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
    _partial("run_open", "run", ["id"], "ended_at IS NULL")
    jobs = "spec IS NOT NULL"  # only they have one; no statement compares it with a parameter
    _partial("work_jobs_by_capability", "work", ["capability", "run"], jobs)
    _partial("work_jobs_by_submitter", "work", ["submitter", "run"], jobs)
    bad = f"{jobs} AND state IN ('failed', 'cancelled')"
    _partial("work_jobs_by_state", "work", ["state", "run"], bad)
    first = f"{jobs} AND substr(run, 37) = '-000001'"
    _partial("work_batches", "work", ["run"], first)  # the first job of each batch
    op.create_index("dead_letter_by_capability", "dead_letter", ["tenant", "capability", "id"])
    op.create_index("run_label_by_run", "run_label", ["run"])
    op.create_index("attempt_by_instance", "attempt", ["instance", "started_at"])  # its history
    op.create_index("step_artifact_by_digest", "step_artifact", ["sha256"])
    _partial("run_backfills", "run", ["backfill_of"], "backfill_of != ''")


def _partial(name: str, table: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, sqlite_where=where, postgresql_where=where)
