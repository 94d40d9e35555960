"""Denials by package and the rotation of roots and issuers.

Times are integers (milliseconds since 1970, UTC).
"""

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create them."""
