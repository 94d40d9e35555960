"""Runs, the ledger, artifacts, datasets and pipelines.

Times are integers (milliseconds since 1970, UTC); JSON is text that the database never looks into.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create every table of the first version."""
    _runs()
    _work()
    _queue()
    _data()


def _runs() -> None:
    _table(
        "run",
        _text("id", primary_key=True),
        _text("pipeline"),
        _number("version"),
        _text("document"),
        _text("parameters"),
        _text("labels"),
        _text("submitter"),
        _text("state"),
        _text("reason", default=""),
        _text("problem", nullable=True),
        _text("outputs", default="{}"),
        _number("cancelling", default=0),
        _number("created_at"),
        _number("started_at", nullable=True),
        _number("ended_at", nullable=True),
    )
    op.create_index("run_by_state", "run", ["state", "id"])
    _table(
        "node",
        _text("run", primary_key=True),
        _text("name", primary_key=True),
        _number("position"),
        _text("capability"),
        _text("kind"),  # call, source, map, reduce
        _text("upstream", default=""),  # whose batches it takes
        _text("options", nullable=True),  # null until what they refer to is known
        _text("labels", default="{}"),
        _text("submitter"),
        _number("priority", default=0),
        _number("max_retries"),
        sa.Column("retry_base_s", sa.Float, nullable=False),
        _number("deadline_ms"),
        _number("idle_timeout_ms"),
        _text("dataset", default=""),  # name of the dataset that its batches become
        _number("dataset_version", default=0),
        _text("state"),
        _text("reason", default=""),
        _text("problem", nullable=True),
        _text("output", nullable=True),
        _number("batches_known", default=0),
        _number("batches_done", default=0),
        _number("batches_failed", default=0),
        _number("records_in", default=0),
        _number("records_out", default=0),
        _number("rejected", default=0),
        _number("attempts", default=0),
        _number("grouped", default=0),  # reduce: last seq of upstream that an `add` has taken
        _number("adds", default=0),  # reduce: rows of kind `add`
        sa.Column("done", sa.Float, nullable=False, server_default="0"),
        sa.Column("total", sa.Float, nullable=False, server_default="0"),
        _text("unit", default=""),
        _number("started_at", nullable=True),
        _number("ended_at", nullable=True),
    )
    _table(
        "run_event",
        _text("run", primary_key=True),
        _number("no", primary_key=True),
        _number("at"),
        _text("type"),
        _text("node", default=""),
        _text("data", default="{}"),
    )


def _work() -> None:
    _table(
        "work",
        _text("run", primary_key=True),
        _text("node", primary_key=True),
        _number("seq", primary_key=True),
        _text("kind"),  # call, map, source, add, merge, result
        _text("capability"),
        _text("submitter"),
        _number("priority", default=0),
        sa.Column("rank", sa.Float, nullable=False),
        _number("not_before", default=0),
        _text("state"),
        _text("reason", default=""),
        _number("attempt", default=0),  # fences executions
        _number("epoch", default=0),  # fences readers
        _number("retries", default=0),
        _number("crashes", default=0),  # workers lost since the last recorded batch
        _text("instance", default=""),
        _text("input", default="[]"),
        _text("output", nullable=True),
        _text("problem", nullable=True),
        _text(
            "spec", nullable=True
        ),  # jobs: options and limits; rows of runs find them at the node
        _number("created_at"),
        _number("started_at", nullable=True),
        _number("ended_at", nullable=True),
    )
    op.create_index(
        "work_claimable",
        "work",
        ["capability", "rank"],
        sqlite_where=sa.text("state = 'queued'"),
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index(
        "work_delayed",
        "work",
        ["not_before"],
        sqlite_where=sa.text("state = 'queued'"),
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index(
        "work_open",
        "work",
        ["run", "node"],
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_index(
        "work_jobs",
        "work",
        ["run"],
        sqlite_where=sa.text("node = 'job'"),
        postgresql_where=sa.text("node = 'job'"),
    )
    _table(
        "source",
        _text("run", primary_key=True),
        _text("node", primary_key=True),
        _text("execution", default=""),
        _number("after", default=0),
        _text("checkpoint", default="null"),
        _number("next_seq", default=1),
        _number("rejected", default=0),  # of the node, when the last batch was recorded
        _text("endpoint", default=""),
    )
    _table(
        "batch",  # what a source or map answered, by seq; no sha256 where a row failed or was empty
        _text("run", primary_key=True),
        _text("node", primary_key=True),
        _number("seq", primary_key=True),
        _text("sha256", default=""),
        _number("count", default=0),
        _number("bytes", default=0),
        _text("encoding", default="identity"),
    )
    _table(
        "attempt",
        _text("run", primary_key=True),
        _text("node", primary_key=True),
        _number("seq", primary_key=True),
        _number("attempt", primary_key=True),
        _text("instance", default=""),
        _text("identity", default=""),
        _text("worker", default=""),
        _text("explanation", default="{}"),
        _number("started_at"),
        _number("ended_at", nullable=True),
        _text("outcome", default=""),
        _text("problem", nullable=True),
    )
    _table(
        "rejected",
        _text("run", primary_key=True),
        _text("node", primary_key=True),
        _number("seq", primary_key=True),
        _number("no", primary_key=True),
        _text("reason"),
        _text("detail", default=""),
        _text("position", default="null"),
    )


def _queue() -> None:
    _table(
        "queue_share",
        _text("submitter", primary_key=True),
        _number("priority", primary_key=True),
        sa.Column("last_rank", sa.Float, nullable=False),
    )
    _table("queue_clock", sa.Column("v", sa.Float, nullable=False))


def _data() -> None:
    _table(
        "artifact",
        _text("sha256", primary_key=True),
        _number("size"),
        _text("media_type"),
        _text("name", nullable=True),
        _text("origin", default=""),  # who stored it
        _number("created_at"),
    )
    _table(
        "step_artifact",  # what a step stored itself, and so may read again
        _text("run", primary_key=True),
        _text("node", primary_key=True),
        _number("seq", primary_key=True),
        _text("sha256", primary_key=True),
    )
    _table(
        "dataset",
        _text("name", primary_key=True),
        _number("version", primary_key=True),
        _text("state"),  # writing, complete, partial, abandoned
        _text("run"),
        _text("node"),
        _number("records", default=0),
        _number("bytes", default=0),
        _text("provenance", default="{}"),
        _number("created_at"),
    )
    _table(
        "dataset_part",
        _text("name", primary_key=True),
        _number("version", primary_key=True),
        _number("seq", primary_key=True),
        _text("sha256"),
        _number("count"),
        _number("bytes"),
        _text("encoding", default="identity"),
    )
    op.create_index("dataset_part_by_digest", "dataset_part", ["sha256"])
    _table(
        "pipeline",
        _text("name", primary_key=True),
        _number("version", primary_key=True),
        _text("document"),
        _text("origin", default="stored"),
        _number("created_at"),
    )


def _table(name: str, *columns: "sa.Column[Any]") -> None:
    """Create a table with a tenant; last in the key, so that a run is found by its id alone."""
    keyed = any(column.primary_key for column in columns)
    tenant = sa.Column(
        "tenant", sa.Text, nullable=False, server_default="default", primary_key=keyed
    )
    op.create_table(name, *columns, tenant, sqlite_with_rowid=name in _WITH_ROWID)


_WITH_ROWID = {"run", "node", "work", "queue_clock", "artifact", "pipeline", "attempt"}


def _text(
    name: str, *, default: str | None = None, nullable: bool = False, primary_key: bool = False
) -> "sa.Column[str]":
    return sa.Column(
        name, sa.Text, nullable=nullable, primary_key=primary_key, server_default=default
    )


def _number(
    name: str, *, default: int | None = None, nullable: bool = False, primary_key: bool = False
) -> "sa.Column[int]":
    return sa.Column(
        name,
        sa.BigInteger,
        nullable=nullable,
        primary_key=primary_key,
        server_default=None if default is None else str(default),
    )
