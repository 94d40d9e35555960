"""Credentials that a vault makes for each step: a real OpenBao, a real PostgreSQL."""

import asyncio

import pytest
from hivemesh_platform.credentials import vault
from hivemesh_platform.credentials.errors import SecretInvalidError, SecretMissingError
from hivemesh_platform.credentials.ports import StoreParts
from hivemesh_platform.settings import SecretsSettings
from hivemesh_sdk.clock import SystemClock
from openbao import openbao
from postgres import postgres

pytestmark = pytest.mark.integration

RIGHTS = """
path "database/creds/*" { capabilities = ["read"] }
path "sys/leases/revoke" { capabilities = ["update"] }
"""
MAKE = (
    "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'; "
    'GRANT SELECT ON TABLE sums TO "{{name}}";'
)


@pytest.fixture(scope="module")
def database():
    with postgres() as found:
        found.query("CREATE TABLE sums AS SELECT 42 AS n", password="root-password")
        yield found


@pytest.fixture(scope="module")
def server(tmp_path_factory, database):
    with openbao(tmp_path_factory.mktemp("openbao")) as found:
        found.ask("POST", "sys/mounts/database", {"type": "database"})
        config = {
            "plugin_name": "postgresql-database-plugin",
            "allowed_roles": ["reader"],
            "connection_url": database.url,
            "username": "root",
            "password": "root-password",
        }
        found.ask("POST", "database/config/sums", config)
        role = {
            "db_name": "sums",
            "creation_statements": [MAKE],
            "default_ttl": "5m",
            "max_ttl": "10m",
        }
        found.ask("POST", "database/roles/reader", role)
        found.ask("PUT", "sys/policies/acl/database", {"policy": RIGHTS})
        body = {"token_policies": ["hivemesh", "database"]}
        found.ask("POST", "auth/approle/role/hivemesh", body)
        yield found


@pytest.fixture
def store(server, tmp_path):
    settings = {**server.settings, "dynamic": {"db": "database/creds"}}
    parsed = SecretsSettings.model_validate({"vault": settings})
    return vault.make(StoreParts(settings=parsed, folder=tmp_path, clock=SystemClock()))


async def account(store, holder):
    user = await store.read("db.reader.username", holder=holder)
    password = await store.read("db.reader.password", holder=holder)
    return user, password


async def test_a_step_has_a_database_user_of_its_own_until_it_is_given_back(store, database):
    user, password = await account(store, "run_1.read.0#1")
    assert user.lease == password.lease != ""
    assert 60 < (user.lease_s or 0) <= 300
    login = {"user": user.value, "password": password.value}
    assert database.query("SELECT n FROM sums", **login) == "42"
    with pytest.raises(PermissionError):
        database.query("CREATE TABLE mine (n int)", **login)

    other, _ = await account(store, "run_1.read.0#2")
    assert other.value != user.value

    await store.revoke(user.lease)
    with pytest.raises(PermissionError):
        database.query("SELECT n FROM sums", **login)
    again, _ = await account(store, "run_1.read.0#1")
    assert again.value != user.value


async def test_all_fields_of_a_step_come_from_one_answer(store):
    paths = ["db.reader.username", "db.reader.password"] * 5
    found = await asyncio.gather(*(store.read(path, holder="one") for path in paths))
    assert len({one.lease for one in found}) == 1


async def test_nothing_is_made_for_nobody(store, database):
    before = database.query("SELECT count(*) FROM pg_roles", password="root-password")
    for path in ("db.reader.username", "db.reader", "db"):
        with pytest.raises(SecretMissingError):
            await store.read(path)
    assert await store.exists("db.reader.username")
    with pytest.raises(SecretMissingError):
        await store.read("db.reader.nothing.more", holder="x")
    with pytest.raises(SecretInvalidError):
        await store.write("db.reader.password", "mine")
    assert database.query("SELECT count(*) FROM pg_roles", password="root-password") == before
