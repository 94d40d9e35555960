"""Graphs: conditions, what a failure does, runs inside runs, what is missing.

Times are integers (milliseconds since 1970, UTC).
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_RUN = (
    ("parent", "text", ""),  # the run whose step this run is
    ("parent_node", "text", ""),
    ("depth", "number", "0"),  # of runs inside runs
    ("backfill_of", "text", ""),  # the run whose missing parts it gives
    ("missing", "text", "[]"),  # names of fields and steps that it went on without
    ("turn", "number", "0"),  # how often it was set going again
)
_NODE = (
    ("condition", "text", ""),  # as it is written; "" where there is none
    ("decided", "number", "0"),  # its condition was true
    ("on_error", "text", "fail"),
    ("optional", "number", "0"),
    ("gives", "text", "[]"),  # the fields that an optional step adds
    ("missing", "number", "0"),  # it was left out, and the run goes on
    ("passing", "number", "0"),  # an optional map hands batches on as they come
    ("fresh", "number", "0"),  # how often its rows were made anew
    ("child", "text", ""),  # the run of a step that is a pipeline
)


def upgrade() -> None:
    """Add columns to runs and nodes, and the edges of graphs and the labels of runs."""
    for table, columns in (("run", _RUN), ("node", _NODE)):
        for name, kind, default in columns:
            type_ = sa.Text if kind == "text" else sa.BigInteger
            op.add_column(table, sa.Column(name, type_, nullable=False, server_default=default))
    op.create_index(
        "run_children",
        "run",
        ["parent"],
        sqlite_where=sa.text("parent != ''"),
        postgresql_where=sa.text("parent != ''"),
    )
    op.create_index(
        "node_optional",
        "node",
        ["run"],
        sqlite_where=sa.text("optional = 1 AND ended_at IS NULL"),
        postgresql_where=sa.text("optional = 1 AND ended_at IS NULL"),
    )
    op.create_table(
        "edge",  # why a node depends on another one: stream, value, order, any, look
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("node", sa.Text, primary_key=True),
        sa.Column("upstream", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("tenant", sa.Text, primary_key=True, server_default="default"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "run_label",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, primary_key=True),
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("tenant", sa.Text, primary_key=True, server_default="default"),
        sqlite_with_rowid=False,
    )
    op.execute(
        """INSERT INTO edge (run, node, upstream, kind, tenant)
           SELECT run, name, upstream, 'stream', tenant FROM node
            WHERE upstream != '' AND ended_at IS NULL"""
    )
