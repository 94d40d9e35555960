"""Principals, roles, grants and API tokens.

Times are integers (milliseconds since 1970, UTC).
"""

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create them."""
