"""What `make certs` makes for the PostgreSQL of Compose is what the platform and the server need."""

import os
import re
import runpy
import shutil
import stat
import sys
import tempfile
from pathlib import Path

import psycopg
import pytest
from hivemesh_platform.cli import init
from hivemesh_platform.settings import DatabaseSettings
from hivemesh_platform.storage import opening
from postgres import postgres

ROOT = Path(__file__).parents[3]
FILES = {"password", "url", "root.pem", "server.pem"}

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def made():
    """The folder, with what `make certs` makes in it."""
    folder = Path(tempfile.mkdtemp(prefix="hivemesh-compose-"))
    folder.chmod(0o755)
    arguments, sys.argv = sys.argv, ["database_files", str(folder / "certs"), str(os.geteuid())]
    try:
        for _ in range(2):
            with pytest.raises(SystemExit):
                runpy.run_path(str(ROOT / "scripts/database_files.py"), run_name="__main__")
        (folder / "pg_hba.conf").write_bytes((ROOT / "deploy/postgresql/pg_hba.conf").read_bytes())
        (folder / "pg_hba.conf").chmod(0o644)
        yield folder
    finally:
        sys.argv = arguments
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def server(made):
    options = f"-c fsync=off -c hba_file={made / 'pg_hba.conf'} -c ssl_min_protocol_version=TLSv1.3"
    with postgres(options=options, identity=made / "certs/database/server.pem") as found:
        password = (made / "certs/database/password").read_text()
        found.query(
            f"CREATE ROLE hivemesh SUPERUSER LOGIN PASSWORD '{password}'", password="root-password"
        )
        found.query("CREATE DATABASE hivemesh OWNER hivemesh", password="root-password")
        yield found


@pytest.fixture
def url(made, server):
    """What the containers read, where the name service knows `postgres`."""
    found = (made / "certs/database/url").read_text()
    found = found.replace("/run/secrets/database", str(made / "certs/database"))
    return f"{found}&hostaddr=127.0.0.1&port={server.port}"


def test_the_files_are_private_and_made_once(made):
    folder = made / "certs/database"
    assert {path.name for path in folder.iterdir()} == FILES
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert len((folder / "password").read_text()) >= 32
    assert b"PRIVATE" not in (folder / "root.pem").read_bytes()


async def test_the_server_is_verified_and_takes_no_plain_connection(url, tmp_path):
    await opening.wait_until_reachable(
        opening.place_of(DatabaseSettings(url=url), tmp_path, "p1"), 60
    )
    with pytest.raises(psycopg.OperationalError, match=r"no pg_hba\.conf entry"):
        psycopg.connect(f"{url}&sslmode=disable")


def test_the_credentials_are_made_in_the_database_and_recorded_for_the_first_replica(
    url, tmp_path, monkeypatch
):
    monkeypatch.setenv("HIVEMESH_DATABASE__URL", url)
    monkeypatch.setenv("HIVEMESH_REPLICA__ID", "p1")
    monkeypatch.setenv("HIVEMESH_REPLICA__SHARED_FOLDER", str(tmp_path / "shared"))
    assert init._make(tmp_path, ["one", "two"]) == [
        "bundle.pem",
        "credentials/one",
        "credentials/two",
    ]
    assert init._make(tmp_path, ["one", "two"]) == []
    assert (tmp_path / "shared/trust").is_dir()
    assert list((tmp_path / "shared/replicas/p1/audit").rglob("*"))


def test_no_secret_stands_in_the_file_of_compose():
    text = (ROOT / "docker-compose.postgresql.yml").read_text()
    assert re.findall(r"PASSWORD\w*: (.*)", text) == ["/run/secrets/database/password"]
    assert re.findall(r"DATABASE__URL: (.*)", text) == ['"$${file:/run/secrets/database/url}"']
    assert "trust" not in (ROOT / "deploy/postgresql/pg_hba.conf").read_text()
