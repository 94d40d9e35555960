"""The way to a PostgreSQL that speaks TLS: who answers is checked, and what does not fit is said."""

import pytest
from hivemesh_platform.settings import DatabaseSettings
from hivemesh_platform.storage import opening
from hivemesh_platform.storage.errors import DatabaseUnsuitableError
from hivemesh_platform.storage.examination import examine
from postgres import postgres
from web_support import WebAuthority

pytestmark = pytest.mark.integration

NAME = "db.test"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return WebAuthority(tmp_path_factory.mktemp("authority"), NAME)


@pytest.fixture(scope="module")
def server(authority):
    with postgres(identity=authority.identity) as found:
        yield found


def place(server, folder, *, host=NAME, **parameters):
    """`hostaddr` is where the name would be found by a name service."""
    query = "&".join(f"{name}={value}" for name, value in parameters.items())
    address = f"postgresql://root:root-password@{host}:{server.port}/postgres"
    return opening.place_of(
        DatabaseSettings(url=f"{address}?hostaddr=127.0.0.1&{query}"), folder, "p1"
    )


async def refused(where):
    with pytest.raises(DatabaseUnsuitableError) as error:
        await opening.wait_until_reachable(where, 60)
    return error.value.problem()


@pytest.mark.parametrize("mode", [{}, {"sslmode": "verify-full"}, {"sslmode": "verify-ca"}])
async def test_a_server_of_the_named_root_is_used_and_the_way_is_encrypted(
    server, authority, tmp_path, mode
):
    where = place(server, tmp_path, sslrootcert=authority.root, **mode)
    await opening.wait_until_reachable(where, 60)
    with where.direct.connect() as connection:
        seen = connection.execute(
            "SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        ).fetchone()
    assert seen == (True, "TLSv1.3")


async def test_a_server_of_another_name_is_refused_at_once(server, authority, tmp_path):
    found = await refused(place(server, tmp_path, host="other.test", sslrootcert=authority.root))
    assert found.code == "HM-1312"
    assert NAME in found.detail
    assert "database.url" in found.remedy


async def test_a_server_of_a_foreign_root_is_refused_at_once(server, tmp_path):
    foreign = WebAuthority(tmp_path, NAME)
    found = await refused(place(server, tmp_path, sslrootcert=foreign.root))
    assert (found.code, "SSL error" in found.detail) == ("HM-1312", True)


async def test_a_server_of_no_public_root_is_refused_where_no_root_is_named(
    server, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    found = await refused(place(server, tmp_path))
    assert (found.code, "certificate verify failed" in found.detail) == ("HM-1312", True)


async def test_a_root_that_is_not_there_is_refused_at_once(server, tmp_path):
    found = await refused(place(server, tmp_path, sslrootcert=tmp_path / "absent.pem"))
    assert (found.code, "absent.pem" in found.detail) == ("HM-1312", True)


async def test_a_server_without_tls_is_refused_at_once(authority, tmp_path):
    with postgres(options="-c fsync=off -c ssl=off", identity=authority.identity) as plain:
        found = await refused(place(plain, tmp_path, sslrootcert=authority.root))
    assert (found.code, "SSL" in found.detail) == ("HM-1312", True)


def test_doctor_says_what_does_not_fit(server, authority, tmp_path):
    where = place(server, tmp_path, host="other.test", sslrootcert=authority.root)
    looks = list(examine(where, 4))
    assert [one.verdict for one in looks] == ["failure"]
    assert NAME in looks[0].cause


async def test_transactions_run_over_tls(server, authority, tmp_path):
    where = place(server, tmp_path, sslrootcert=authority.root)
    where.ensure_schema()
    async with opening.open_database(DatabaseSettings(), where) as database:
        await database.write(lambda tx: tx.execute("CREATE TABLE one (n BIGINT)"))
        await database.write(lambda tx: tx.execute("INSERT INTO one VALUES (7)"))
        row = await database.read(lambda tx: tx.one("SELECT n FROM one"))
    assert row["n"] == 7
