"""Lists of jobs by capability and submitter: a batch is found by its first job.

All jobs of a batch have both in common, and lie between two ids: thousands need no entries of their
own.
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Put lone jobs and first jobs in indexes of their own."""
    for column in ("capability", "submitter"):
        op.drop_index(f"work_jobs_by_{column}", "work")
        _partial(f"work_jobs_by_{column}", column, "")
        _partial(f"work_batches_by_{column}", column, "-000001")


def _partial(name: str, column: str, number: str) -> None:
    """Index the jobs that have this behind the 36 characters of an id."""
    where = sa.text(f"spec IS NOT NULL AND substr(run, 37) = '{number}'")
    op.create_index(name, "work", [column, "run"], sqlite_where=where, postgresql_where=where)
