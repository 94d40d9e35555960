"""The queue: limits, rates, keys of submits, jobs that travel together.

Times are integers (milliseconds since 1970, UTC).
"""

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Migrations go forward."""
    message = "restore the backup that was made before the upgrade"
    raise NotImplementedError(message)
