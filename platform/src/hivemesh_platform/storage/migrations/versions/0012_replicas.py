"""Replicas of the platform, who leads, which replica holds a row, and heartbeats that all see.

Times are integers (milliseconds since 1970, UTC) and for people alone: who is dead is decided by
`replica.beats`, which grow while a replica lives, and so by nobody's clock.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables of replicas, and say of rows and instances what replicas share."""
    op.create_table(
        "replica",
        _text("id", primary_key=True),
        _number("epoch"),  # raised when it joins and when it is declared dead: fences its commits
        _text("state"),  # live, dead (declared by another), left
        _number("beats"),
        _number("settled"),  # of one that is dead or left: its runs go on elsewhere
        _text("folder"),  # id of its state folder: one process at a time runs on it
        _text("shared"),  # id of the folder with the keys that all replicas use
        _text("mesh_url"),
        _text("enrolment_url"),
        _text("people_url"),
        _text("version"),
        _number("started_at"),
        _number("seen_at"),
        _tenant(),
    )
    op.create_table(
        "leader",
        _text("name", primary_key=True),
        _text("holder"),
        _number("holder_epoch"),  # of the replica: it leads for as long as it has this epoch
        _number("epoch"),  # raised with each change of the holder
        _number("since"),
        _tenant(),
    )
    op.add_column("work", sa.Column("replica", sa.Text, nullable=False, server_default=""))
    op.add_column(
        "work", sa.Column("replica_epoch", sa.BigInteger, nullable=False, server_default="0")
    )
    _audit_index()
    op.add_column("instance", sa.Column("beats", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("instance", sa.Column("load", sa.Text, nullable=False, server_default=""))


def _audit_index() -> None:
    """Each replica has a chain of its own; the index is made again from its files."""
    op.drop_table("audit_index")
    op.create_table(
        "audit_index",
        _text("chain", primary_key=True),
        sa.Column("seq", sa.BigInteger, nullable=False, primary_key=True),
        _tenant(),
        _number("at"),
        _text("actor"),
        _text("on_behalf_of"),
        _text("action"),
        _text("object"),
        _text("decision"),
        _text("run"),
        _number("segment"),
        _number("place"),  # byte of the segment's file
    )
    for column in ("actor", "on_behalf_of", "action", "object", "run", "at"):
        op.create_index(f"audit_by_{column}", "audit_index", [column, "seq"])


def _text(name: str, *, primary_key: bool = False) -> "sa.Column[str]":
    return sa.Column(name, sa.Text, nullable=False, primary_key=primary_key, server_default="")


def _number(name: str) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger, nullable=False, server_default="0")


def _tenant() -> "sa.Column[str]":
    return sa.Column("tenant", sa.Text, nullable=False, server_default="default")
