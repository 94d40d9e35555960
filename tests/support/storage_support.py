"""A database with the present schema, copied from one that is made once per test process."""

import functools
import tempfile
from pathlib import Path

from hivemesh_platform.storage.migrate import ensure_schema


@functools.cache
def _template():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "platform.db"
        ensure_schema(path)
        return path.read_bytes()


def prepare(path):
    """Make the file unless it is there."""
    if not path.exists():
        path.write_bytes(_template())
    return path
