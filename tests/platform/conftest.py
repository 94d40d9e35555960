"""Fixtures of everything that stands on the database: each test runs on both kinds of it."""

import pytest
import storage_support
from postgres import postgres


@pytest.fixture(scope="session")
def postgres_server():
    """One server per test process, with a template of the schema."""
    with postgres() as server:
        storage_support.make_template(server)
        yield server


@pytest.fixture(params=storage_support.DIALECTS)
def each_database(request, tmp_path):
    """Have the core of this test run on both kinds of database."""
    storage_support.choose(request, tmp_path)


@pytest.fixture(params=storage_support.DIALECTS)
async def database(request, tmp_path):
    """An open database with the schema."""
    async with storage_support.open_prepared(request, tmp_path) as opened:
        yield opened
