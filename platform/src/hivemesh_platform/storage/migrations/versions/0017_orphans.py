"""Jobs of batches whose first job went before the others, and the tenants of attempts in common.

Lists find a batch by its first job, which retention keeps until the last one goes since 0015.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_ORPHANS = """
INSERT INTO orphan_job (run, tenant)
SELECT run, tenant FROM work
 WHERE node = 'job' AND seq = 0 AND substr(run, 37, 1) = '-'
   AND NOT EXISTS (SELECT 1 FROM work AS head
                    WHERE head.run = substr(work.run, 1, 36) || '-000001'
                      AND head.node = 'job' AND head.seq = 0)
"""
_TENANTS = """
UPDATE attempt_group SET tenant = ended.tenant
  FROM (SELECT DISTINCT attempt_group AS id, tenant FROM work
         WHERE attempt_group != '' AND tenant != 'default') AS ended
 WHERE ended.id = attempt_group.id
"""
_BY_INSTANCE = "attempt_group_by_instance"


def upgrade() -> None:
    """Name the jobs that are left, and find attempts in common by their tenants."""
    op.create_table(
        "orphan_job",
        sa.Column("run", sa.Text, nullable=False, primary_key=True),
        sa.Column("tenant", sa.Text, nullable=False, server_default="default"),
    )
    op.execute(_ORPHANS)
    op.execute(_TENANTS)
    op.drop_index(_BY_INSTANCE, "attempt_group")
    op.create_index(_BY_INSTANCE, "attempt_group", ["instance", "tenant", "started_at"])
