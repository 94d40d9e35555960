"""Looks at the database as `hivemesh doctor` tells it: what is wrong, and how to mend it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple

from hivemesh_sdk.errors import HivemeshError

from hivemesh_platform.storage import migrate
from hivemesh_platform.storage.opening import Place

if TYPE_CHECKING:
    import psycopg

    from hivemesh_platform.storage.server import Server

DOCS = "docs/how-to/postgresql.md"
ENGINE_CONNECTIONS = 9  # of one replica, beside those that write and read


class Look(NamedTuple):
    """One thing that was looked at."""

    check: str
    verdict: Literal["ok", "warning", "failure"] = "ok"
    cause: str = ""
    fix: str = ""
    docs: str = ""


def examine(place: Place, connections: int) -> Iterator[Look]:
    """Look at everything that a platform needs of its database, without changing it."""
    if place.direct is not None and place.server is not None:
        looks = list(_server(place.direct, connections))
        yield from looks
        if any(
            look.verdict == "failure" and look.check == _answers(place.direct) for look in looks
        ):
            return
        if place.server.pooled:
            yield _pooler(place.server)
    yield _schema(place)


def _server(server: "Server", connections: int) -> Iterator[Look]:
    import psycopg  # noqa: PLC0415 - only where the settings name a server

    from hivemesh_platform.storage.server import check, is_encrypted  # noqa: PLC0415 - as above

    try:
        with server.connect() as connection:
            yield Look(_answers(server))
            check(connection)
            yield _durable(connection)
            yield _room(connection, connections)
    except HivemeshError as error:
        yield Look(f"the database {server} can be used", "failure", error.detail, _fix(error), DOCS)
    except psycopg.Error as error:
        yield _silent(server, error, "start the server, or correct database.url")
    if not is_encrypted(server):
        yield Look(
            "the way to the database is encrypted",
            "warning",
            "database.url says sslmode=disable",
            "sslmode=verify-full&sslrootcert=FILE",
            DOCS,
        )


def _pooler(server: "Server") -> Look:
    import psycopg  # noqa: PLC0415 - as above

    try:
        server.connect().close()
    except psycopg.Error as error:
        return _silent(server, error, "start the pooler, or correct database.url")
    return Look(_answers(server))


def _answers(server: "Server") -> str:
    return f"the {'pooler of the ' if server.pooled else ''}database {server} answers"


def _silent(server: "Server", error: Exception, fix: str) -> Look:
    return Look(_answers(server), "failure", str(error).strip().partition("\n")[0], fix, DOCS)


def _durable(connection: "psycopg.Connection[tuple[str, ...]]") -> Look:
    off = [
        name
        for name in ("fsync", "full_page_writes")
        if (row := connection.execute(f"SHOW {name}").fetchone()) is not None and row[0] == "off"
    ]
    return Look(
        "the database server keeps what it acknowledges",
        "failure" if off else "ok",
        f"{' and '.join(off)} is off" if off else "",
        "turn it on in postgresql.conf" if off else "",
        DOCS if off else "",
    )


def _room(connection: "psycopg.Connection[tuple[str, ...]]", connections: int) -> Look:
    row = connection.execute(
        "SELECT current_setting('max_connections')::int - count(*) FROM pg_stat_activity"
    ).fetchone()
    free, needed = 0 if row is None else int(row[0]), 2 * connections + ENGINE_CONNECTIONS
    enough = free >= needed
    return Look(
        "the database server has connections left",
        "ok" if enough else "warning",
        "" if enough else f"{free} are free, a replica takes up to {needed}",
        "" if enough else "raise max_connections, or lower database.connections",
        "" if enough else DOCS,
    )


def _schema(place: Place) -> Look:
    check = "the schema is this platform's"
    try:
        found = migrate.schema_version(place.schema)
    except HivemeshError as error:
        return Look(check, "failure", error.detail, _fix(error), "HM-1603")
    if found in {None, migrate.HEAD}:
        return Look(check)
    cause = f"it has schema {found}, this version needs {migrate.HEAD}"
    return Look(check, "failure", cause, "hivemesh state upgrade", "HM-1603")


def _fix(error: HivemeshError) -> str:
    return error.problem().remedy
