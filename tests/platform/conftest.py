"""Fixtures of the platform's tests: both kinds of database, and answers as they are described."""

import described
import pytest
import storage_support
import structlog
from hivemesh_platform import app
from postgres import postgres


@pytest.fixture(scope="session", autouse=True)
def _described_platforms():
    """Have each platform in this process held against the published description of its API."""
    build = app._routes

    def held(name, routers):
        found = build(name, routers)
        found.add_middleware(described.Held)
        return found

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(app, "_routes", held)
        yield


@pytest.fixture(autouse=True)
def _described_answers():
    """Fail where a platform was asked or has answered what its description does not say."""
    yield
    found, described.broken[:] = list(described.broken), []
    assert found == []


@pytest.fixture(autouse=True)
def _logging_as_before():
    """Undo what a command has set for its process, which is here that of many tests."""
    before = structlog.get_config()["wrapper_class"]
    yield
    if structlog.get_config()["wrapper_class"] is not before:
        structlog.reset_defaults()


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
