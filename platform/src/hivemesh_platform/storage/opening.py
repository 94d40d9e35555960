"""Opens the database that the settings name: a file of the state folder, or a server."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from hivemesh_platform.settings import DatabaseSettings
from hivemesh_platform.storage import migrate
from hivemesh_platform.storage.damage import refuse_damaged
from hivemesh_platform.storage.database import Database
from hivemesh_platform.storage.errors import DatabaseUnreachableError, DatabaseUnsuitableError
from hivemesh_platform.storage.sqlite import SqliteDatabase

if TYPE_CHECKING:
    from hivemesh_platform.storage.server import Server

FILE = "platform.db"
_PAUSE_S = 0.5
_TELL_EVERY_S = 5.0

_log = structlog.get_logger("hivemesh.storage")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the rows of an installation are; with a server, how it is reached without a pooler."""

    file: Path
    server: "Server | None" = None
    direct: "Server | None" = None

    def __str__(self) -> str:
        return str(self.file if self.server is None else self.server)

    @property
    def schema(self) -> "Path | Server":
        """Where the schema is made and read."""
        return self.direct or self.file

    def exists(self) -> bool:
        """Whether there is a schema already."""
        return migrate.schema_version(self.schema) is not None

    def ensure_schema(self) -> None:
        """Create the schema in a new database; accept a sound one of this version.

        Raises:
            DatabaseDamagedError: the file does not hold together.
            StateIncompatibleError: it holds the schema of another version.
        """
        if self.direct is None:
            refuse_damaged(self.file)
        migrate.ensure_schema(self.schema)


def place_of(settings: DatabaseSettings, folder: Path, replica: str = "") -> Place:
    """Read where the database is; `replica` names our connections to it.

    Raises:
        DatabaseUnsuitableError: the address is no address, or nobody would check who answers.
    """
    url = settings.url.get_secret_value()
    if not url:
        return Place(folder / FILE)
    from hivemesh_platform.storage.server import server  # noqa: PLC0415 - 10 MiB, only with a server

    direct = settings.direct_url.get_secret_value()
    return Place(
        folder / FILE,
        server(url, pooled=bool(direct), name=replica),
        server(direct or url, name=replica),
    )


def open_database(settings: DatabaseSettings, place: Place) -> Database:
    """Make the database of a place; it is open inside `async with`."""
    if place.server is None:
        return SqliteDatabase(place.file)
    from hivemesh_platform.storage.postgres import PostgresDatabase  # noqa: PLC0415 - as above

    count = settings.connections
    return PostgresDatabase(place.server, place.direct, writers=count, readers=count)


async def wait_until_reachable(place: Place, timeout_s: float) -> None:
    """Wait for the database server, and for the pooler before it; a file is always there.

    Raises:
        DatabaseUnsuitableError: the server refuses us, which waiting does not mend.
        DatabaseUnreachableError: it did not answer in time.
    """
    if place.direct is None or place.server is None:
        return
    until = time.monotonic() + timeout_s
    told = 0.0
    ways = (place.direct, place.server) if place.server.pooled else (place.direct,)
    while (error := await asyncio.to_thread(_try_all, ways)) is not None:
        now = time.monotonic()
        if now >= until:
            message = f"the database {place} has not answered for {timeout_s:g} s: {error}"
            raise DatabaseUnreachableError(message, delay_s=5.0)
        if now - told >= _TELL_EVERY_S:
            told = now
            _log.warning("database_awaited", server=str(place), error=error)
        await asyncio.sleep(min(_PAUSE_S, until - now))


def _try_all(servers: "Sequence[Server]") -> str | None:
    return next((error for one in servers if (error := _try(one)) is not None), None)


def _try(server: "Server") -> str | None:
    """Connect once; returns why it failed and may succeed later."""
    import psycopg  # noqa: PLC0415 - as above

    from hivemesh_platform.storage.server import refuses_us  # noqa: PLC0415 - as above

    try:
        server.connect().close()
    except psycopg.Error as error:
        text = str(error).strip().partition("\n")[0]
        if refuses_us(error):
            message = f"the database {server} refuses us: {text}"
            raise DatabaseUnsuitableError(message) from error
        return text
    return None
