"""The queue: limits, rates, keys of submits, jobs that travel together.

Times are integers (milliseconds since 1970, UTC).
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

DEFAULT_TENANT = "default"


def upgrade() -> None:
    """Give each capability its own queue, and add limits and keys of submits."""
    _columns()
    _indexes()
    _fair_share()
    _limits()
    _submits()
    _travels()


def _columns() -> None:
    for table in ("work", "node"):
        _add(table, "limit_key")  # `<tenant>/<key>`: rows of one key have a limit of their own
    _add("work", "together")  # rows with the same value may travel in one request


def _indexes() -> None:
    queued = "state = 'queued'"
    _index("work_running", ["capability"], "state = 'running'")
    _index("work_running_key", ["limit_key"], "state = 'running' AND limit_key != ''")
    keyed = f"{queued} AND limit_key != ''"
    _index("work_queued_key", ["capability", "limit_key", "rank"], keyed)
    _index("work_parked", ["capability", "limit_key", "rank"], "state = 'waiting'")
    op.drop_index("work_jobs", "work")  # its condition had statements with `node = ?` planned anew
    op.drop_index("work_delayed", "work")  # most rows are never delayed
    _index("work_delayed", ["not_before"], f"{queued} AND not_before > 0")


def _fair_share() -> None:
    """Ranks are compared within a capability, so they are counted within it."""
    op.rename_table("queue_clock", "queue_clock_before")
    op.drop_table("queue_share")
    _table("queue_clock", _text("capability", primary_key=True), _float("v"))
    _table(
        "queue_share",
        _text("capability", primary_key=True),
        _text("submitter", primary_key=True),
        _number("priority", primary_key=True),
        _float("last_rank"),
    )
    op.execute(
        """INSERT INTO queue_clock (capability, v)
           SELECT capability, (SELECT coalesce(max(v), 0) FROM queue_clock_before)
             FROM work GROUP BY capability"""
    )
    op.execute(
        """INSERT INTO queue_share (capability, submitter, priority, last_rank)
           SELECT capability, submitter, priority, max(rank) FROM work
            WHERE ended_at IS NULL GROUP BY capability, submitter, priority"""
    )
    op.drop_table("queue_clock_before")


def _limits() -> None:
    _table(
        "work_limit",
        _text("scope", primary_key=True),  # all, capability, key
        _text("name", primary_key=True),  # "", the capability, `<tenant>/<key>` or `<tenant>/<k>*`
        _number("running", nullable=True),  # rows at a time
        _number("starts", nullable=True),  # rows in `per_ms`
        _number("per_ms", default=0),
        _number("burst", default=0),
        _text("origin"),  # settings, or who has set it
        _number("changed_at"),
    )
    _table(
        "limit_rate",  # how far a rate is used up; a name of its own for each key
        _text("scope", primary_key=True),
        _text("name", primary_key=True),
        _number("full_at"),  # microseconds since 1970: from then on the whole burst is free
        _number("due_at"),  # milliseconds since 1970: from then on one more may start
    )
    _table(
        "limit_parked",  # keys of which rows wait for their limit
        _text("capability", primary_key=True),
        _text("limit_key", primary_key=True),
        _number("look_at", default=0),  # ms since 1970: until then it is known to have no room
    )
    op.create_index("limit_parked_by_time", "limit_parked", ["capability", "look_at"])
    op.create_index("limit_parked_by_key", "limit_parked", ["limit_key"])


def _submits() -> None:
    _table(
        "submit_key",
        _text("submitter", primary_key=True),
        _text("key", primary_key=True),
        _text("digest"),  # of what was asked for
        _text("target"),  # the run, job or batch that was accepted
        _number("created_at"),
        tenant_in_key=True,
    )
    op.create_index("submit_key_by_age", "submit_key", ["created_at"])


def _travels() -> None:
    _table(
        "travel",  # a request in which small jobs are on their way
        _text("key", primary_key=True),
        _text("replica"),  # that asks the worker
        _number("epoch"),  # of the reader
        _text("endpoint"),  # where they are
        _text("members"),  # all of them: job and attempt
    )


def _add(table: str, name: str) -> None:
    op.add_column(table, sa.Column(name, sa.Text, nullable=False, server_default=""))


def _index(name: str, columns: list[str], where: str) -> None:
    op.create_index(
        name, "work", columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where)
    )


def _table(name: str, *columns: "sa.Column[Any]", tenant_in_key: bool = False) -> None:
    tenant: sa.Column[str] = sa.Column(
        "tenant",
        sa.Text,
        primary_key=tenant_in_key,
        nullable=False,
        server_default=DEFAULT_TENANT,
    )
    op.create_table(name, tenant, *columns)


def _text(name: str, *, primary_key: bool = False, default: str | None = None) -> "sa.Column[str]":
    return sa.Column(name, sa.Text, primary_key=primary_key, nullable=False, server_default=default)


def _number(
    name: str, *, primary_key: bool = False, default: int | None = None, nullable: bool = False
) -> "sa.Column[int]":
    return sa.Column(
        name,
        sa.BigInteger,
        primary_key=primary_key,
        nullable=nullable,
        server_default=None if default is None else str(default),
    )


def _float(name: str) -> "sa.Column[float]":
    return sa.Column(name, sa.Double, nullable=False)
