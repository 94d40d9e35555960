"""Runs the migrations on the connection that `storage.migrate` opened.

They go forward alone; the way back is the copy of the file, or the server's backup, from before.
"""

from typing import Any

import sqlalchemy as sa
from alembic import context
from sqlalchemy.ext.compiler import compiles


@compiles(sa.Text, "postgresql")
def _text(type_: sa.Text, compiler: Any, **options: Any) -> str:
    """Text is ordered by its bytes, as on SQLite, whatever language the server speaks."""
    return f'{compiler.visit_TEXT(type_, **options)} COLLATE "C"'


context.configure(
    connection=context.config.attributes["connection"],
    transaction_per_migration=True,
    render_as_batch=True,  # SQLite changes a table by copying it
)
with context.begin_transaction():
    context.run_migrations()
