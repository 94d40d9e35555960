"""A real PgBouncer in transaction mode on a Unix socket before a PostgreSQL of ours.

Skipped where there is none, unless CI has promised one.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from postgres import Postgres, missing, private_copy

PORT = 6432  # names the socket's file; nothing listens on the network
_SETTINGS = """
[databases]
* = host={server.folder} port={server.port}

[pgbouncer]
pool_mode = transaction
default_pool_size = {connections}
listen_port = {port}
unix_socket_dir = {folder}
auth_type = scram-sha-256
auth_file = {folder}/users
logfile = {folder}/log
server_round_robin = 1
"""


@dataclass(frozen=True, slots=True)
class PgBouncer:
    """A running pooler: each transaction may get another connection of the server."""

    folder: Path

    def address(self, database: str) -> str:
        """As `database.url` takes it."""
        return f"postgresql://root:root-password@/{database}?host={self.folder}&port={PORT}"


@contextmanager
def pgbouncer(server: Postgres, *, connections: int = 6) -> Iterator[PgBouncer]:
    """A pooler with fewer connections to the server than it takes from us."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        missing("no PgBouncer here")
    folder = Path(tempfile.mkdtemp(prefix="hivemesh-pgbouncer-"))
    account = server.account
    try:
        if account is not None:
            os.chown(folder, account.pw_uid, account.pw_gid)
        text = _SETTINGS.format(server=server, folder=folder, port=PORT, connections=connections)
        for name, content in (("settings", text), ("users", '"root" "root-password"\n')):
            (folder / f"{name}.new").write_text(content)
            private_copy(folder / f"{name}.new", folder / name, account)
        process = subprocess.Popen(
            [program, "-q", str(folder / "settings")],
            cwd="/",
            user=None if account is None else account.pw_uid,
            group=None if account is None else account.pw_gid,
            stdin=subprocess.DEVNULL,
        )
        try:
            found = PgBouncer(folder)
            _until_up(found, process)
            yield found
        finally:
            process.kill()
            process.wait(20)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _until_up(found: PgBouncer, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(found.address("postgres")).close()
        except psycopg.OperationalError:
            assert process.poll() is None, (found.folder / "log").read_text()
            assert time.monotonic() < deadline, (found.folder / "log").read_text()
            time.sleep(0.02)  # another process announces nothing to us
        else:
            return
