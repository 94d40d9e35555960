"""A real PostgreSQL on a Unix socket: skipped where there is none, unless CI has promised one."""

import itertools
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

import psutil
import pytest

PORT = 5432  # names the socket's file; nothing listens on the network
PROMISED = "HIVEMESH_TEST_POSTGRES"  # set by CI: tests fail where PostgreSQL is missing
TEMPLATE = "hivemesh_template"
UNSAFE = "-c fsync=off -c max_wal_size=128MB"  # nobody cuts the power, and room may be memory


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running server."""

    programs: Path
    folder: Path
    account: pwd.struct_passwd | None = None
    options: str = ""
    port: int = PORT
    copying: str = ""  # how a database is made from a template, where the server leaves a choice
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count, repr=False)
    _done: list[str] = field(default_factory=list, repr=False)

    @property
    def url(self) -> str:
        """As the database engine of a vault takes it."""
        return f"postgresql://{{{{username}}}}:{{{{password}}}}@/postgres?host={self.folder}"

    def address(self, database: str = "postgres") -> str:
        """As `database.url` takes it."""
        return f"postgresql://root:root-password@/{database}?host={self.folder}"

    def new_database(self, template: str = "template0") -> str:
        """Make a database, remove those that nobody needs any more, and return its name."""
        name = f"test_{next(self._numbers)}"
        how = f"TEMPLATE {template} ENCODING 'UTF8' {self.copying}"
        drop = [f"DROP DATABASE {one} WITH (FORCE)" for one in self._done]
        self._done.clear()
        self.query(*drop, f"CREATE DATABASE {name} {how}", password="root-password")
        return name

    def done_with(self, database: str) -> None:
        """Let the next database take the room of this one: each is 8 MB, perhaps of memory."""
        self._done.append(database)

    def database_in(self, place: Path) -> str:
        """Make a database whose tables are in a folder of their own, and return its name."""
        place.mkdir(mode=0o700)
        if self.account is not None:
            for folder in (place.parent, place):
                os.chown(folder, self.account.pw_uid, self.account.pw_gid)
        self.query(f"CREATE TABLESPACE apart LOCATION '{place}'", password="root-password")
        name = self.new_database()
        self.query(f"ALTER DATABASE {name} SET TABLESPACE apart", password="root-password")
        return name

    def start(self) -> None:
        """Start it (again) and wait until it answers."""
        data = str(self.folder / "data")
        log = str(self.folder / "log")
        _run(
            self.programs,
            ["pg_ctl", "-w", "-D", data, "-l", log, "-o", self.options, "start"],
            self.account,
        )

    def kill(self) -> None:
        """SIGKILL for the server and all of its processes, as a lost machine."""
        pid = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        server = psutil.Process(pid)
        for process in (server, *server.children()):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs([server], timeout=10)

    def stop(self) -> None:
        """Stop it at once; it may have been killed before."""
        data = str(self.folder / "data")
        try:
            _run(
                self.programs, ["pg_ctl", "-w", "-D", data, "-m", "immediate", "stop"], self.account
            )
        except subprocess.CalledProcessError:
            return

    def query(
        self, *sql: str, user: str = "root", password: str = "", database: str = "postgres"
    ) -> str:
        """What statements answer, as text; each is a transaction of its own."""
        command = [str(self.programs / "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-h"]
        command += [str(self.folder), "-p", str(self.port), "-U", user, "-d", database]
        command += [word for one in sql for word in ("-c", one)]
        environment = {"PGPASSWORD": password, "PATH": os.environ["PATH"]}
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=60, env=environment
        )
        if done.returncode:
            raise PermissionError(done.stderr)
        return done.stdout.strip()


@contextmanager
def postgres(*, options: str = UNSAFE, identity: Path | None = None) -> Iterator[Postgres]:
    """A server with the superuser `root`, who needs a password as all others do.

    With an `identity` (key and chain in one file) it speaks TLS on loopback too.
    """
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
        own = None
        if identity is not None:
            own = private_copy(identity, folder / "server.pem", account)
        found = Postgres(programs, folder, account, options, copying=_copying(programs))
        server = _started(found, own)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copying(programs: Path) -> str:
    """Whole files: half the CPU of writing each page to the log, as servers since 15 do."""
    command = [programs / "initdb", "--version"]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    return "STRATEGY FILE_COPY" if int(said.split()[2].partition(".")[0]) >= 15 else ""


def _started(server: Postgres, identity: Path | None) -> Postgres:
    """Start it; with an identity on a port that nobody else takes meanwhile."""
    common = f"-k {server.folder} -c max_connections=200 {server.options}"
    if identity is None:
        found = replace(server, options=f"-p {PORT} -c listen_addresses= {common}")
        found.start()
        return found
    tls = f"-c ssl=on -c ssl_cert_file={identity} -c ssl_key_file={identity}"
    common = f"-c listen_addresses=127.0.0.1 {tls} {common}"
    for _ in range(4):
        port = free_port()
        found = replace(server, options=f"-p {port} {common}", port=port)
        with suppress(subprocess.CalledProcessError):
            found.start()
            return found
    raise OSError((server.folder / "log").read_text())


def free_port() -> int:
    """A port of loopback that nobody uses at this moment."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def private_copy(source: Path, target: Path, account: pwd.struct_passwd | None) -> Path:
    """A file that only this account reads."""
    target.touch(mode=0o600)
    target.write_bytes(source.read_bytes())
    if account is not None:
        os.chown(target, account.pw_uid, account.pw_gid)
    return target


def _run(programs: Path, command: list[str], account: pwd.struct_passwd | None) -> None:
    subprocess.run(
        [str(programs / command[0]), *command[1:]],
        check=True,
        capture_output=True,
        timeout=180,
        cwd="/",
        user=None if account is None else account.pw_uid,
        group=None if account is None else account.pw_gid,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
    )


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    beside = shutil.which("initdb")
    if not found and beside is None:
        missing("no PostgreSQL here")
    return found[-1].parent if found else Path(str(beside)).parent


def _account() -> pwd.struct_passwd | None:
    """Who runs it: it refuses root."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        missing("PostgreSQL does not run as root, and there is no user postgres")


def missing(reason: str) -> NoReturn:
    if os.environ.get(PROMISED):
        pytest.fail(f"{reason}, and {PROMISED} promises it")
    pytest.skip(reason)
