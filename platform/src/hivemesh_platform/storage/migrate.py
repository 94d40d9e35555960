"""Schema versions: creates the schema, refuses a state folder of another version, upgrades it."""

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hivemesh_platform.omitted import omit_unused
from hivemesh_platform.storage.damage import refuse_incomplete
from hivemesh_platform.storage.errors import StateIncompatibleError

if TYPE_CHECKING:
    import sqlalchemy

    from hivemesh_platform.storage.server import Server

HEAD = "0017"  # the newest file of migrations/versions
_MIGRATIONS = Path(__file__).parent / "migrations"
CONNECT_AGAIN_S = 0.5
_PATIENTLY = "SET LOCAL idle_in_transaction_session_timeout = '60s'"  # a busy machine is no loss
_LOCK = 0x48697665  # of the server: one process at a time makes or changes the schema


def ensure_schema(where: "Path | Server") -> None:
    """Create the schema in a new file or database; accept one of this version.

    Raises:
        StateIncompatibleError: it holds the schema of another version.
    """
    found = schema_version(where)
    if found == HEAD:
        return
    if found is not None:
        raise _incompatible(found)
    run_migrations(where)


def make_apart(path: Path) -> None:
    """Create the schema of a new file in a process of its own, whose libraries' memory goes with it.

    What that cannot do is left to `ensure_schema`, which says why.
    """
    if not path.exists():
        command = [sys.executable, "-m", __name__, str(path)]
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603 - this file


def upgrade(where: "Path | Server") -> tuple[str | None, str]:
    """Bring the file or database to this version; returns the versions before and after.

    Raises:
        StateIncompatibleError: a newer version of the platform wrote it.
    """
    found = schema_version(where)
    if found is not None:
        check_known(found)
    if found != HEAD:
        run_migrations(where)
    return found, HEAD


def check_known(version: str) -> None:
    """Refuse the schema of a newer platform.

    Raises:
        StateIncompatibleError: this platform does not know it.
    """
    if version not in known_versions():
        raise _incompatible(version)


def schema_version(where: "Path | Server") -> str | None:
    """Read the version of the schema, or None where there is no schema yet.

    Raises:
        StateIncompatibleError: the file or database is none of ours.
        DatabaseDamagedError: the last commits of a file are gone.
    """
    if isinstance(where, Path):
        return _version_of_file(where)
    return _version_of_server(where)


def known_versions() -> tuple[str, ...]:
    """The schema versions that this platform knows, oldest first."""
    files = (_MIGRATIONS / "versions").glob("[0-9]*.py")
    return tuple(sorted(file.name.partition("_")[0] for file in files))


def _version_of_file(path: Path) -> str | None:
    if not path.exists() or path.stat().st_size == 0:
        return None
    refuse_incomplete(path)
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        if not tables:
            return None
        if "alembic_version" not in tables:
            message = f"{path.name} is no database of this platform; choose another state folder"
            raise StateIncompatibleError(message)
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.DatabaseError as error:
        message = f"{path.name} cannot be read ({error}); restore it from a backup"
        raise StateIncompatibleError(message) from error
    finally:
        connection.close()
    return None if row is None else str(row[0])


def _version_of_server(server: "Server") -> str | None:
    import psycopg  # noqa: PLC0415 - only where the settings name a server

    from hivemesh_platform.storage.server import ours  # noqa: PLC0415 - as above

    try:
        with server.connect() as connection:
            names = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
            tables = {row[0] for row in connection.execute(names)}
            if not tables:
                return None
            if "alembic_version" not in tables:
                message = (
                    f"{server} holds tables of others; give the platform a database of its own"
                )
                raise StateIncompatibleError(message)
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except psycopg.Error as error:
        raise ours(error) from error
    return None if row is None else str(row[0])


def _incompatible(found: str) -> StateIncompatibleError:
    if found in known_versions():
        message = f"the state folder has schema {found}, this version needs {HEAD}"
        return StateIncompatibleError(message)
    message = f"the state folder has schema {found!r}, which this version ({HEAD}) does not know"
    remedy = "use the version that wrote it, or a newer one, or choose another --state"
    return StateIncompatibleError(message, remedy=remedy)


def run_migrations(where: "Path | Server", to: str = "head") -> None:
    """Run the migrations that are missing, up to a version."""
    from alembic import command  # noqa: PLC0415 - a start with a current schema needs it not
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.set_main_option("path_separator", "os")
    with _connected(where) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, to)


@contextmanager
def _connected(where: "Path | Server") -> Iterator["sqlalchemy.Connection"]:
    """One transaction for all migrations; on a server nobody else changes the schema meanwhile."""
    import sqlalchemy  # noqa: PLC0415 - as above

    if isinstance(where, Path):
        where.touch(mode=0o600, exist_ok=True)
        engine = sqlalchemy.create_engine(f"sqlite:///{where.absolute()}")
    else:
        engine = engine_of(where)
    try:
        with engine.begin() as connection:
            if not isinstance(where, Path):
                lock = sqlalchemy.text("SELECT pg_advisory_xact_lock(:key)")
                connection.execute(lock, {"key": _LOCK})
                connection.execute(sqlalchemy.text(_PATIENTLY))
            yield connection
    finally:
        engine.dispose()


def engine_of(
    server: "Server", stop: threading.Event | None = None, **options: Any
) -> "sqlalchemy.Engine":
    """SQLAlchemy's way to a server, for its libraries; its pool holds no dead connection.

    With `stop` a connection is waited for until it is set: DBOS lets a run fail where a server
    refuses in words that it does not know, and else waits up to a minute between two tries.
    """
    import psycopg  # noqa: PLC0415 - as above
    import sqlalchemy  # noqa: PLC0415 - as above

    def connect() -> Any:
        while True:
            try:
                connection = server.connect()
            except psycopg.OperationalError as error:
                if stop is None or stop.wait(CONNECT_AGAIN_S):
                    message = f"connection failed: {error}"  # the words that DBOS looks for
                    raise psycopg.OperationalError(message) from error
            else:
                connection.autocommit = False
                return connection

    return sqlalchemy.create_engine(
        "postgresql+psycopg://", creator=connect, pool_pre_ping=True, **options
    )


if __name__ == "__main__":
    omit_unused()
    run_migrations(Path(sys.argv[1]))
