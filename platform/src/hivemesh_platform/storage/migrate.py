"""Schema versions: creates the schema, refuses a state folder of another version, upgrades it."""

import sqlite3
from pathlib import Path

from hivemesh_platform.storage.errors import StateIncompatibleError

HEAD = "0013"  # the newest file of migrations/versions
_MIGRATIONS = Path(__file__).parent / "migrations"


def ensure_schema(path: Path) -> None:
    """Create the schema in a new file; accept one of this version.

    Raises:
        StateIncompatibleError: the file holds the schema of another version.
    """
    found = schema_version(path)
    if found == HEAD:
        return
    if found is not None:
        raise StateIncompatibleError(_explain(found))
    _run_migrations(path)


def upgrade(path: Path) -> tuple[str | None, str]:
    """Bring the file to this version; returns the versions before and after.

    Raises:
        StateIncompatibleError: a newer version of the platform wrote the file.
    """
    found = schema_version(path)
    if found is not None:
        check_known(found)
    if found != HEAD:
        _run_migrations(path)
    return found, HEAD


def check_known(version: str) -> None:
    """Refuse the schema of a newer platform.

    Raises:
        StateIncompatibleError: this platform does not know it.
    """
    if version not in known_versions():
        raise StateIncompatibleError(_explain(version))


def schema_version(path: Path) -> str | None:
    """Read the version of the schema in the file, or None where there is no schema yet.

    Raises:
        StateIncompatibleError: the file is no database of ours.
    """
    if not path.exists() or path.stat().st_size == 0:
        return None
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


def known_versions() -> tuple[str, ...]:
    """The schema versions that this platform knows, oldest first."""
    files = (_MIGRATIONS / "versions").glob("[0-9]*.py")
    return tuple(sorted(file.name.partition("_")[0] for file in files))


def _explain(found: str) -> str:
    if found in known_versions():
        return f"the state folder has schema {found}, this version needs {HEAD}"
    return f"the state folder has schema {found!r}, which this version ({HEAD}) does not know"


def _run_migrations(path: Path) -> None:
    import sqlalchemy  # noqa: PLC0415 - a start with a current schema needs neither of the two
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    path.touch(mode=0o600, exist_ok=True)
    engine = sqlalchemy.create_engine(f"sqlite:///{path.absolute()}")
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.set_main_option("path_separator", "os")
    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        engine.dispose()
