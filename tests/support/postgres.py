"""A real PostgreSQL on a Unix socket, for what makes database users; skipped where there is none."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

PORT = 5432  # names the socket's file; nothing listens on the network


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running server."""

    programs: Path
    folder: Path

    @property
    def url(self) -> str:
        """As the database engine of a vault takes it."""
        return f"postgresql://{{{{username}}}}:{{{{password}}}}@/postgres?host={self.folder}"

    def query(self, sql: str, *, user: str = "root", password: str = "") -> str:
        """What a statement answers, as text."""
        command = [str(self.programs / "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-h"]
        command += [str(self.folder), "-U", user, "-d", "postgres", "-c", sql]
        environment = {"PGPASSWORD": password, "PATH": os.environ["PATH"]}
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=30, env=environment
        )
        if done.returncode:
            raise PermissionError(done.stderr)
        return done.stdout.strip()


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A server with the superuser `root`, who needs a password as all others do."""
    programs, account = _programs(), _account()
    folder = Path(tempfile.mkdtemp(prefix="hivemesh-postgres-"))
    try:
        if account is not None:
            os.chown(folder, account.pw_uid, account.pw_gid)
        folder.chmod(0o755)
        password = folder / "password"
        password.write_text("root-password")
        data = str(folder / "data")
        make = ["initdb", "-D", data, "-U", "root", "-N", f"--pwfile={password}"]
        _run(programs, [*make, "--auth=scram-sha-256"], account)
        options = f"-k {folder} -p {PORT} -c listen_addresses= -c fsync=off"
        start = ["pg_ctl", "-w", "-D", data, "-l", str(folder / "log"), "-o", options, "start"]
        _run(programs, start, account)
        try:
            yield Postgres(programs, folder)
        finally:
            _run(programs, ["pg_ctl", "-w", "-D", data, "-m", "immediate", "stop"], account)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(programs: Path, command: list[str], account: pwd.struct_passwd | None) -> None:
    subprocess.run(
        [str(programs / command[0]), *command[1:]],
        check=True,
        capture_output=True,
        timeout=60,
        cwd="/",
        user=None if account is None else account.pw_uid,
        group=None if account is None else account.pw_gid,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
    )


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    beside = shutil.which("initdb")
    if not found and beside is None:
        pytest.skip("no PostgreSQL here")
    return found[-1].parent if found else Path(str(beside)).parent


def _account() -> pwd.struct_passwd | None:
    """Who runs it: it refuses root."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
