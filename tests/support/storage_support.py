"""Databases with the present schema, copied from one that is made once per test process."""

import functools
import sqlite3
import tempfile
from pathlib import Path

from hivemesh_platform.settings import DatabaseSettings
from hivemesh_platform.storage import opening
from hivemesh_platform.storage.migrate import ensure_schema
from postgres import TEMPLATE

DIALECTS = ("sqlite", "postgresql")
ADDRESS, DIRECT = "database.url", "database.direct_url"


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


def settings_of(server, database):
    """As a person writes them."""
    return DatabaseSettings(url=server.address(database))


def make_template(server):
    """Make the database that all others are copies of."""
    server.query(f"CREATE DATABASE {TEMPLATE} TEMPLATE template0", password="root-password")
    opening.place_of(settings_of(server, TEMPLATE), Path()).ensure_schema()


def open_prepared(request, folder):
    """The database of the parameter `sqlite` or `postgresql`, with the schema; not yet open."""
    choose(request, folder)
    return opened_in(folder)


def choose(request, folder):
    """Give a state folder the database of the parameter, for as long as the folder is there."""
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres_server")
        name = server.new_database(TEMPLATE)
        request.addfinalizer(lambda: server.done_with(name))
        (folder / ADDRESS).write_text(server.address(name))


def opened_in(folder):
    """The database of a state folder; a file unless another was chosen."""
    settings = settings_in(folder)
    if not settings.url:
        prepare(folder / opening.FILE)
    return opening.open_database(settings, opening.place_of(settings, folder))


def settings_in(folder):
    """What was chosen for a state folder."""
    found = {path.name: path.read_text() for path in folder.glob("database.*url")}
    return DatabaseSettings(url=found.get(ADDRESS, ""), direct_url=found.get(DIRECT, ""))


def place_in(folder):
    """Where the database of a state folder is."""
    return opening.place_of(settings_in(folder), folder)


def write_other_version(path: Path) -> None:
    """Write the database of a platform that this one does not know."""
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
    connection.execute("INSERT INTO alembic_version VALUES ('9999')")
    connection.commit()
    connection.close()
