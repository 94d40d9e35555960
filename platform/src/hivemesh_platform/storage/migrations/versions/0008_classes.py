"""On whose behalf work runs, and how sensitive its data is.

Times are integers (milliseconds since 1970, UTC).
"""

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create them."""
