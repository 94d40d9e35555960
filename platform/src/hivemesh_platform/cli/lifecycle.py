"""`hivemesh up`, `down` and `serve`: the platform as a process of this machine."""

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from hivemesh_platform.cli import asking, output, session

if TYPE_CHECKING:
    from hivemesh_sdk.client import Client
    from hivemesh_sdk.contracts.api import SystemStatus, WorkerView

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 45.0
ANY_PORTS = [
    "api.port=0",
    "api.enrolment_port=0",
    "api.people_port=0",
]  # for a platform that nobody else calls

Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting for this start, key=value; see `config show`."),
]


def up(
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when it is ready.")
    ] = False,
    set_: Set = None,
    fmt: output.Format = "table",
    state: session.State = None,
) -> int:
    """Start the platform and its workers; Ctrl-C (or `hivemesh down`) stops them.

    Examples:  hivemesh up  ·  hivemesh up -d  ·  hivemesh up --set workers.instances='{"email-classifier": 2}'
    """
    folder = session.state_folder(state)
    process = start(folder, set_ or [])
    with session.client(folder) as client:
        seen = client.status()
        workers = client.workers()
    if fmt in {"json", "yaml", "name"}:
        output.show_one(seen, fmt, name="mesh_url")
    else:
        _say_ready(seen, workers)
    if detach:
        return 0
    return _stay(process)


def down(
    purge: Annotated[
        bool, typer.Option("--purge", help="Also delete the state folder, data included.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before --purge.")] = False,
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Stop the platform and its workers; running steps are drained first.

    Examples:  hivemesh down  ·  hivemesh down --purge --yes
    """
    _refuse_remote("stop")
    folder = session.state_folder(state)
    if purge:
        _check_purge(folder, named=state is not None)
        asking.confirmed(f"stop, and delete {folder} with all data in it?", yes=yes)
    stopped = stop(folder)
    if purge and folder.exists():
        shutil.rmtree(folder)
    if fmt in {"json", "yaml"}:
        output.show_document({"stopped": stopped, "purged": purge}, fmt)
    else:
        nothing = f"nothing was running on {folder} (--state names another state folder)"
        typer.echo("stopped" if stopped else nothing, err=True)
        if purge:
            typer.echo(f"{folder} deleted", err=True)


def serve(set_: Set = None, state: session.State = None) -> None:
    """Run the platform in this process until it is told to stop; for containers and services.

    Example:  hivemesh serve --state /var/lib/hivemesh
    """
    os.execv(sys.executable, _command(session.state_folder(state), set_ or []))  # noqa: S606 - our own interpreter, no shell


def start(folder: Path, settings: list[str]) -> "subprocess.Popen[bytes]":
    """Start a platform on the state folder and wait until it says that it is ready.

    Raises:
        RemoteError: it ended before it was ready; the problem says why.
    """
    _refuse_remote("start")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    ready, told = os.pipe()
    process = subprocess.Popen(  # noqa: S603 - our own interpreter, no shell
        [*_command(folder, settings), "--ready-fd", str(told)],
        pass_fds=[told],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={name: text for name, text in os.environ.items() if name != session.TOKEN},
        start_new_session=True,  # Ctrl-C reaches the command, and it stops the platform in order
    )
    os.close(told)
    try:
        message = _message(ready, process, folder)
    except BaseException:
        process.terminate()
        raise
    finally:
        os.close(ready)
    if message != b"ready":
        _raise_problem(message, process, folder)
    return process


def stop(folder: Path) -> bool:
    """Stop the platform of a state folder, or the workers that a killed one left behind.

    False where nothing was running.
    """
    pid = running_pid(folder)
    if pid is None:
        return _stop_orphans(folder)
    try:
        process = os.pidfd_open(pid)  # readable when it has ended, our child or not
    except ProcessLookupError:
        return True
    try:
        signal.pidfd_send_signal(process, signal.SIGTERM)
        if not select.select([process], [], [], STOP_TIMEOUT_S)[0]:
            signal.pidfd_send_signal(process, signal.SIGKILL)
            _stop_orphans(folder)
    finally:
        os.close(process)
    return True


def _stop_orphans(folder: Path) -> bool:
    from hivemesh_platform.supervisor.orphans import stop_orphans

    return stop_orphans(folder) > 0


def running_pid(folder: Path) -> int | None:
    """The process that holds the state folder's lock, or None."""
    from hivemesh_platform.lock import holder

    return holder(folder)


@contextmanager
def running(folder: Path) -> "Iterator[Client]":
    """A client of the platform on the folder; one that had to be started is stopped at the end."""
    ours = session.remote() is None and running_pid(folder) is None
    if ours:
        start(folder, ANY_PORTS)
    try:
        with session.client(folder) as client:
            yield client
    finally:
        if ours:
            stop(folder)


def _check_purge(folder: Path, *, named: bool) -> None:
    """Delete nothing that no platform has made, and nothing that wrong settings may have named.

    Raises:
        ConfigurationError: the folder is not empty, and none has worked in it; or it was not named
            on the command line or by the environment, and the settings are not valid.
    """
    if not named:
        from hivemesh_platform.configuration import Surroundings, load

        load(Surroundings.of_process())
    found = {one.name for one in folder.iterdir()} if folder.exists() else set()
    if not found or "platform.db" in found or ("lock" in found and found & {"trust", "operator"}):
        return
    from hivemesh_sdk.errors import ConfigurationError

    message = f"{folder} is no state folder: no platform has worked there; correct --state"
    raise ConfigurationError(message, slug="configuration-invalid")


def _refuse_remote(what: str) -> None:
    """A platform starts and stops here, whatever platform elsewhere is named.

    Raises:
        ConfigurationError: one is named.
    """
    named = session.remote()
    if named is not None:
        from hivemesh_sdk.errors import ConfigurationError

        message = f"{named.url} is a platform elsewhere; leave --server out to {what} the one here"
        raise ConfigurationError(message, slug="configuration-invalid")


def _command(folder: Path, settings: list[str]) -> list[str]:
    words = [sys.executable, "-m", "hivemesh_platform.serve", "--state", str(folder)]
    for setting in settings:
        words += ["--set", setting]
    return words


def _message(ready: int, process: "subprocess.Popen[bytes]", folder: Path) -> bytes:
    """What the platform says when it is ready, or the problem that stopped it."""
    message = b""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if not select.select([ready], [], [], 0.2)[0]:
            continue
        block = os.read(ready, 65_536)
        message += block
        if not block or message == b"ready":
            break
    else:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)
        _raise_not_ready(f"was not ready after {START_TIMEOUT_S:.0f} s and was stopped", folder)
    return message


def _raise_problem(message: bytes, process: "subprocess.Popen[bytes]", folder: Path) -> None:
    import msgspec
    from hivemesh_sdk.contracts.problems import Problem
    from hivemesh_sdk.errors import RemoteError

    try:
        document = msgspec.json.decode(message, type=Problem)
    except msgspec.MsgspecError:
        with suppress(subprocess.TimeoutExpired):  # it has closed its end: it ends, or has ended
            process.wait(STOP_TIMEOUT_S)
        killed = process.returncode == -signal.SIGKILL
        how = "was killed (perhaps for want of memory)" if killed else "ended"
        _raise_not_ready(f"{how} before it was ready", folder)
    raise RemoteError(document)


def _raise_not_ready(how: str, folder: Path) -> NoReturn:
    from hivemesh_sdk.contracts.problems import problem
    from hivemesh_sdk.errors import RemoteError

    log = folder / "logs" / "platform.log"
    raise RemoteError(problem("internal", f"the platform {how}; see {str(log)!r}"))


def _say_ready(seen: "SystemStatus", workers: "list[WorkerView]") -> None:
    tick = "✓" if output.colour_allowed() else "ok"
    typer.echo(
        f"{tick} trust domain {seen.trust_domain}, certificates renew by themselves", err=True
    )
    typer.echo(f"{tick} API {seen.mesh_url} (mutual TLS), pid {seen.pid}", err=True)
    if seen.people_url:
        root = f"{seen.state_folder}/trust/web-root.pem"
        typer.echo(f"{tick} API {seen.people_url} (API tokens; --ca-file {root})", err=True)
    for line in worker_lines(workers, tick):
        typer.echo(line, err=True)
    undo = session.here("hivemesh down --purge")
    typer.echo(f"state in {seen.state_folder} (undo: {undo})", err=True)
    further = ("hivemesh demo email", "hivemesh status", "hivemesh down")
    typer.echo(f"next: {' · '.join(map(session.here, further))}", err=True)


def worker_lines(workers: "list[WorkerView]", tick: str) -> list[str]:
    """What `up` says of the workers: which are installed, and which are not live yet."""
    names = ", ".join(one.name for one in workers) or "none"
    lines = [f"{tick} {len(workers)} workers installed: {names}"]
    if not workers:
        lines.append("  name folders of workers: --set workers.folders='[\"FOLDER\"]'")
    waiting = [f"{one.name} ({one.state})" for one in workers if one.live < one.wanted]
    if waiting:
        lines.append(
            f"  not live yet: {', '.join(waiting)}; `{session.here('hivemesh status')}` follows them"
        )
    return lines


def _stay(process: "subprocess.Popen[bytes]") -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a service manager stops us so
    try:
        return process.wait()
    except KeyboardInterrupt:
        typer.echo("stopping: workers finish their steps; Ctrl-C again ends them at once", err=True)
        process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except (KeyboardInterrupt, subprocess.TimeoutExpired):
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()
    return 0
