"""On whose behalf work runs, and how sensitive its data is.

Times are integers (milliseconds since 1970, UTC).
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

NOBODY = "{}"  # rows from before: no roles, so that no rule that asks for one lets them pass


def upgrade() -> None:
    """Add the columns."""
    for table in ("run", "node"):
        _add(table, "behalf", NOBODY)  # JSON: sub, roles, grants; the tenant has its own column
        _add(table, "data_class", "internal")  # of the inputs
    _add("node", "output_class", "internal")
    _add("artifact", "data_class", "internal")
    _add("dataset", "data_class", "internal")
    _add("pipeline", "author", NOBODY)
    # What was written before there were classes may be personal: so it stays among those cleared.
    op.execute("UPDATE dataset SET data_class = 'personal'")


def _add(table: str, name: str, default: str) -> None:
    op.add_column(table, sa.Column(name, sa.Text, nullable=False, server_default=default))
