"""Failures: retry budgets, dead letters, halves of a poisoned batch.

Times are integers (milliseconds since 1970, UTC).
"""

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Migrations go forward."""
    message = "restore the backup that was made before the upgrade"
    raise NotImplementedError(message)
