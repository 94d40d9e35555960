"""A standby that answers after a fail-over is behind: nothing is read there, and nothing decided."""

import asyncio
from dataclasses import replace

import pytest
from hivemesh_platform.storage.database import PATIENCE_S
from hivemesh_platform.storage.errors import DatabaseUnreachableError
from hivemesh_platform.storage.postgres import PostgresDatabase
from hivemesh_platform.storage.server import server
from postgres import postgres

pytestmark = pytest.mark.integration

WRITER = "CREATE TABLE writer (id TEXT PRIMARY KEY, no BIGINT, at BIGINT)"


def as_a_pooler_connects(direct):
    """It has connected to its servers before, whatever they are by now."""
    parameters = {**direct.parameters, "target_session_attrs": "any"}
    return replace(direct, parameters=parameters, pooled=True)


async def test_nothing_is_read_of_a_standby():
    with postgres() as one:
        root = {"password": "root-password"}
        one.query(WRITER, **root)
        direct = server(one.address())
        async with (
            PostgresDatabase(direct, direct, writers=1, readers=1) as plain,
            PostgresDatabase(as_a_pooler_connects(direct), direct, writers=1, readers=1) as pooled,
        ):
            ask = lambda found: found.read(lambda tx: tx.one("SELECT 7 AS n")["n"])  # noqa: E731 - twice
            assert await asyncio.gather(ask(plain), ask(pooled)) == [7, 7]
            one.stop()
            (one.folder / "data" / "standby.signal").touch()
            one.start()
            patience = PATIENCE_S.set(0.1)
            found = await asyncio.gather(ask(plain), ask(pooled), return_exceptions=True)
            PATIENCE_S.reset(patience)
            assert [type(answer) for answer in found] == [DatabaseUnreachableError] * 2
            one.query("SELECT pg_promote()", **root)
            assert await asyncio.gather(ask(plain), ask(pooled)) == [7, 7]
