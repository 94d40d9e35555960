"""The running platform: lock, log, listeners, background tasks, and the orderly end of all of them."""

import argparse
import asyncio
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec
import structlog
from hivemesh_sdk.clock import SystemClock
from hivemesh_sdk.contracts.problems import Problem, problem
from hivemesh_sdk.errors import ConfigurationError, HivemeshError
from hivemesh_sdk.heap import set_up_allocator
from hivemesh_sdk.transport import Limits, Listener, enrolment_listener, serve
from pydantic import JsonValue

from hivemesh_platform.configuration import Loaded, Surroundings, from_text, load
from hivemesh_platform.identity import OperatorFiles, OwnIdentity
from hivemesh_platform.listeners import Sockets
from hivemesh_platform.lock import locked
from hivemesh_platform.loops import forever
from hivemesh_platform.replicas.model import BEAT_S, Urls
from hivemesh_platform.settings import ApiSettings
from hivemesh_platform.storage.database import PATIENT_UNTIL
from hivemesh_platform.storage.errors import DatabaseUnreachableError
from hivemesh_platform.storage.migrate import make_apart
from hivemesh_platform.storage.opening import FILE
from hivemesh_platform.telemetry import logs

if TYPE_CHECKING:
    from hivemesh_platform.app import Platform
    from hivemesh_platform.replicas.service import Replicas
    from hivemesh_platform.supervisor.service import Supervisor

PORTS = "ports.json"
MAX_UPLOAD = 1 << 46  # what an operator uploads is bounded by the quota, and streamed to disk
_ANY = ("0.0.0.0", "::")  # noqa: S104 - compared only
CANCEL_AGAIN_S = 1.0  # where a task of the background does not end
STOP_PATIENCE_S = 5.0  # for a database server that does not answer; the next start mends the rest
DRAIN_S = 2.0  # for requests that run when the platform ends; those that only wait end at once
_log = structlog.get_logger("hivemesh.serve")


@dataclass(slots=True)
class Stop:
    """How a running platform is told to end; the second request ends it without draining."""

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)

    def ask(self) -> None:
        """End in order; asked again, end at once."""
        if self.asked.is_set():
            self.hurry.set()
        self.asked.set()


class Ready:
    """Tells who started us that we are ready, or the problem that kept us from it."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def tell(self, message: bytes) -> None:
        """Say it once."""
        if self._descriptor is None:
            return
        with suppress(BrokenPipeError):  # who started us is gone; we serve anyway
            os.write(self._descriptor, message)
        os.close(self._descriptor)
        self._descriptor = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the platform until a signal ends it; returns the exit code."""
    options = _parser().parse_args(arguments)
    ready = Ready(options.ready_fd)
    try:
        loaded = load(Surroundings.of_process(), _flags(options))
        _run(loaded, ready)
    except HivemeshError as error:
        return _failed(ready, error.problem())
    except Exception:
        _failed(ready, problem("internal", "see the log of the platform"))
        raise
    return 0


def _run(loaded: Loaded, ready: Ready) -> None:
    folder = _prepared(loaded.state_folder)
    set_up_allocator()
    with locked(folder):
        storage, telemetry = loaded.settings.storage, loaded.settings.telemetry
        logs.configure(
            folder / "logs" / "platform.log" if telemetry.log_to == "file" else None,
            level=telemetry.log_level,
            max_bytes=storage.log_bytes,
            files=storage.log_files,
        )
        if not loaded.settings.database.url.get_secret_value():
            make_apart(folder / FILE)
        import uvloop  # noqa: PLC0415 - the settings are checked before anything heavy is loaded

        try:
            uvloop.run(_until_stopped(loaded, ready))
        except Exception:
            _log.exception("platform_failed")
            raise


async def _until_stopped(loaded: Loaded, ready: Ready) -> None:
    stop = Stop()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.ask)
    try:
        async with serving(loaded, stop) as platform:
            gc.enable()
            _log.info("platform_ready", address=platform.mesh_url, state=str(loaded.state_folder))
            ready.tell(b"ready")
            await stop.asked.wait()
            PATIENT_UNTIL.set(time.monotonic() + STOP_PATIENCE_S)
            _log.info("platform_stopping")
    except* DatabaseUnreachableError:
        if not stop.asked.is_set():
            raise
        _log.warning("stopped_without_database", detail="the next start goes on with what was held")


@asynccontextmanager
async def serving(loaded: Loaded, stop: Stop | None = None) -> AsyncIterator["Platform"]:
    """A platform that serves, on a prepared state folder whose lock the caller holds.

    What is entered last ends first: workers drain while the listeners still answer them.
    """
    from hivemesh_platform import app  # noqa: PLC0415 - as above

    async with AsyncExitStack() as stack:
        platform = await stack.enter_async_context(app.open_platform(loaded, SystemClock()))
        operator = OperatorFiles(
            loaded.state_folder / "operator", platform.authority, platform.clock
        )
        mesh, enrolment, people = await _listen(stack, platform)
        host = _callable(loaded.settings.api)
        platform.mesh_url = f"https://{host}:{mesh.port}"
        platform.enrolment_url = f"https://{host}:{enrolment.port}"
        platform.people_url = f"https://{_reachable(loaded.settings.api.people_host)}:{people.port}"
        await platform.replicas.announce(
            Urls(platform.mesh_url, platform.enrolment_url, platform.people_url)
        )
        await stack.enter_async_context(_background(platform, operator))
        if platform.supervisor is not None:
            supervising = _supervising(platform, platform.supervisor, stop or Stop())
            await stack.enter_async_context(supervising)
        operator.renew(force=True)
        stack.callback(operator.remove)
        operator.write_endpoint(_local(host), mesh.port)
        platform.ready = True
        if not platform.replicas.alone:
            naming = _naming_others(platform.replicas, operator, (_local(host), mesh.port))
            await stack.enter_async_context(naming)
        yield platform
        platform.ready = False


async def _listen(
    stack: AsyncExitStack, platform: "Platform"
) -> tuple[Listener, Listener, Listener]:
    api, clock = platform.settings.api, platform.clock
    sockets = Sockets.open(api, platform.state_folder / PORTS)
    stack.callback(sockets.close)
    limits = Limits(connections=api.max_connections, requests=api.max_requests, body=MAX_UPLOAD)
    mesh = await stack.enter_async_context(
        serve(
            platform.mesh_app,  # type: ignore[arg-type]  # Starlette types the protocol loosely
            platform.source,
            api.host,
            0,
            limits=limits,
            sock=sockets.mesh,
            clock=clock,
            denials=platform.denials,
            drain_s=DRAIN_S,
            on_close=platform.answer_waiting,
        )
    )
    enrolment = await stack.enter_async_context(
        enrolment_listener(
            platform.enrolment_app,  # type: ignore[arg-type]  # as above
            platform.sources.embedded,
            api.host,
            0,
            sock=sockets.enrolment,
            clock=clock,
        )
    )
    people = await stack.enter_async_context(
        platform.people.listen(
            platform.people_app,
            platform.source,
            sockets.people,
            limits=limits,
            on_close=platform.answer_waiting,
        )
    )
    return mesh, enrolment, people


@asynccontextmanager
async def _background(platform: "Platform", operator: OperatorFiles) -> AsyncIterator[None]:
    """Owns the tasks that run beside the requests; none of them ends before it."""
    own = OwnIdentity(platform.sources, platform.authority, operator, platform.clock)

    async def started_over() -> None:
        await own.tick()
        if platform.supervisor is not None:
            platform.supervisor.replace_all("the authority was started over")

    platform.rotation.on_start_over(started_over)
    jobs = [("identity", own.run), *platform.background]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(forever(name, run), name=name) for name, run in jobs]
        yield
        await _end(tasks)


@asynccontextmanager
async def _naming_others(
    replicas: "Replicas", operator: OperatorFiles, own: tuple[str, int]
) -> AsyncIterator[None]:
    """Keep the operator's files at those replicas that live: the next command may need them."""

    async def keep() -> None:
        named: list[tuple[str, int]] = []
        told = ""
        while True:
            found = sorted(filter(None, (_host_and_port(one.urls.mesh) for one in replicas.others)))
            try:
                if found != named:
                    operator.write_endpoint(*own, found)
                    named, told = found, ""
            except OSError as error:  # the next beat tries again
                if str(error) != told:
                    told = str(error)
                    _log.warning("operator_files_not_written", detail=told)
            await asyncio.sleep(BEAT_S)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(keep(), name="others")
        try:
            yield
        finally:
            task.cancel()


def _host_and_port(url: str) -> tuple[str, int] | None:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    return (host, port) if host and port else None


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended: one that a library swallowed is asked again, and named."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=CANCEL_AGAIN_S)
        if left:
            _log.warning("tasks_not_ended", tasks=sorted(task.get_name() for task in left))


@asynccontextmanager
async def _supervising(
    platform: "Platform", supervisor: "Supervisor", stop: Stop
) -> AsyncIterator[None]:
    """Workers run while this is open, and none of them afterwards."""
    urls = [_local_url(url) for url in (platform.mesh_url, platform.enrolment_url)]
    async with asyncio.TaskGroup() as group:
        task = group.create_task(supervisor.run(*urls), name="supervisor")
        try:
            yield
        finally:
            task.cancel()
            await supervisor.stop(stop.hurry)


def _flags(options: argparse.Namespace) -> dict[str, JsonValue]:
    flags: dict[str, JsonValue] = {}
    for setting in options.set:
        key, separator, value = setting.partition("=")
        if not separator:
            message = f"--set {setting!r} must look like api.port=8443"
            raise ConfigurationError(message, slug="configuration-invalid")
        flags[key] = from_text(key, value)
    if options.state is not None:
        flags["state.folder"] = str(options.state.expanduser().absolute())
    return flags


def _prepared(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if folder.stat().st_mode & 0o077:
            with suppress(PermissionError):  # a mounted volume may belong to somebody else
                folder.chmod(0o700)
        for name in ("logs", "run"):
            (folder / name).mkdir(exist_ok=True, mode=0o700)
    except OSError as error:
        message = f"the state folder {str(folder)!r} cannot be made: {error.strerror}"
        raise ConfigurationError(message, slug="file-unreadable") from error
    return folder


def _failed(ready: Ready, document: Problem) -> int:
    ready.tell(msgspec.json.encode(document))
    text = f"error[{document.code}]: {document.title}: {document.detail}\nfix: {document.remedy}\n"
    sys.stderr.write(text)
    return 5 if document.status == 409 else 1


def _callable(api: ApiSettings) -> str:
    """The host that others are told to call."""
    if api.advertise_host:
        return api.advertise_host
    return socket.gethostname() if api.host in _ANY else api.host


def _reachable(host: str) -> str:
    """The people listener's host as it stands in an address."""
    if host in {*_ANY, "127.0.0.1"}:
        return "localhost" if host == "127.0.0.1" else socket.gethostname()
    return f"[{host}]" if ":" in host else host


def _local_url(url: str) -> str:
    host, _, port = url.removeprefix("https://").rpartition(":")
    return f"https://{_local(host)}:{port}"


def _local(host: str) -> str:
    return host if host != socket.gethostname() else "127.0.0.1"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m hivemesh_platform.serve")
    parser.add_argument("--state", type=Path, help="state folder")
    parser.add_argument("--set", action="append", default=[], help="a setting, key=value")
    parser.add_argument("--ready-fd", type=int, help="descriptor that is told when it is ready")
    return parser
