"""Failures: dead letters, parts of a batch that kills, how far a gap between attempts may grow.

Times are integers (milliseconds since 1970, UTC); JSON is text that the database never looks into.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what the handling of failures keeps."""
    op.create_table(
        "dead_letter",
        sa.Column("id", sa.Text, primary_key=True),
        _text("run"),
        _text("node"),
        _number("seq"),
        _text("kind"),
        _text("capability"),
        _text("pipeline", default=""),  # "" for a job
        _text("submitter"),
        _text("input"),  # references to batches
        _number("first", default=0),  # of the lines of the input that are meant
        _number("last", default=0),  # 0: all of them
        _number("records", default=1),
        _text("spec", nullable=True),  # jobs: the request
        _text("options", default="{}"),
        _text("labels", default="{}"),
        _text("behalf", default="{}"),
        _text("problem"),
        _text("cause"),  # crashes, retries, refused
        _text("position", default="null"),  # sources: the checkpoint before it
        _number("attempts"),
        _text("data_class"),
        _text("output_class"),
        _text("state", default="open"),  # open, retried, discarded
        _text("replayed_as", default=""),
        _text("settled_by", default=""),
        _number("settled_at", nullable=True),
        _number("created_at"),
        _text("tenant", default="default"),
    )
    op.create_index("dead_letter_by_state", "dead_letter", ["tenant", "state", "id"])
    op.create_index("dead_letter_by_run", "dead_letter", ["run"])
    op.create_table(
        "work_part",  # of the lines of a row's input, in order; of a row that has crashed too often
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("node", sa.Text, primary_key=True),
        sa.Column("seq", sa.BigInteger, primary_key=True),
        sa.Column("first", sa.BigInteger, primary_key=True),
        _number("last"),
        _text("state", default="open"),  # open, done, dead
        _text("batch", nullable=True),  # a map's answer
        _text("output", nullable=True),  # a reducer's state
    )
    for column in (_number("halved", default=0), _number("suspect", default=0)):
        op.add_column("work", column)
    op.add_column("node", sa.Column("retry_max_s", sa.Float, nullable=False, server_default="300"))
    op.create_index(
        "attempt_lost",
        "attempt",
        ["started_at"],
        sqlite_where=sa.text("outcome = 'lost'"),
        postgresql_where=sa.text("outcome = 'lost'"),
    )


def _text(name: str, *, default: str | None = None, nullable: bool = False) -> "sa.Column[str]":
    return sa.Column(name, sa.Text, nullable=nullable, server_default=default)


def _number(name: str, *, default: int | None = None, nullable: bool = False) -> "sa.Column[int]":
    server = None if default is None else str(default)
    return sa.Column(name, sa.BigInteger, nullable=nullable, server_default=server)
