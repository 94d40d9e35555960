"""Secrets, their versions and leases.

Times are integers (milliseconds since 1970, UTC).
"""

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create them."""
