"""Versions of the policy.

Times are integers (milliseconds since 1970, UTC).
"""

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create them."""
