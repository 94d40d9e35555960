"""The audit trail.

Times are integers (milliseconds since 1970, UTC).
"""

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create them."""
