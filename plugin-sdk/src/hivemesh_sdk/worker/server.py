"""Puts a worker together: table, runners, routes and shell; starts, drains and stops them.

What listens (mutual TLS) and what enrols stands above; tests call `app` without a socket.
"""

import asyncio
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import structlog

from hivemesh_sdk.clock import Clock, SystemClock
from hivemesh_sdk.contracts.artifacts import DataClass
from hivemesh_sdk.contracts.manifest import Capability as Declared
from hivemesh_sdk.contracts.manifest import Manifest
from hivemesh_sdk.contracts.names import PROTOCOL
from hivemesh_sdk.contracts.steps import WorkerStatus
from hivemesh_sdk.errors import ConfigurationError
from hivemesh_sdk.transport.balance import Caller
from hivemesh_sdk.worker import metrics
from hivemesh_sdk.worker.access import Access, Own
from hivemesh_sdk.worker.app import build_shell
from hivemesh_sdk.worker.asgi import Application, Receive, Scope, Send
from hivemesh_sdk.worker.definition import Worker
from hivemesh_sdk.worker.executor import load_worker
from hivemesh_sdk.worker.executor_process import ExecutorSettings
from hivemesh_sdk.worker.http import Http
from hivemesh_sdk.worker.inline import InlineRunner
from hivemesh_sdk.worker.kinds import Capability
from hivemesh_sdk.worker.platform import ArtifactService, PlatformPort
from hivemesh_sdk.worker.pool import ExecutorPool
from hivemesh_sdk.worker.quick import QuickRunner
from hivemesh_sdk.worker.refused import Refused
from hivemesh_sdk.worker.routes import PREFIX, StepRoutes
from hivemesh_sdk.worker.spoken import SpokenLines
from hivemesh_sdk.worker.steps import Runner, Slots, StepTable, Timing

TICK_S = 0.1  # how exactly deadlines are kept; costs a fiftieth of a percent of a CPU
WATCH_EVERY = 2  # ticks between two looks at the executors' memory
LAST_PAGES_S = 1.0  # for readers to fetch what ended while draining

MIB = 1024 * 1024

_log = structlog.get_logger("hivemesh.server")


class Usage(Protocol):
    """CPU and memory of the instance; fractions of its own limits."""

    @property
    def cpu(self) -> float: ...

    @property
    def memory(self) -> float: ...

    @property
    def rss_bytes(self) -> int: ...


@dataclass(frozen=True, slots=True)
class NoUsage:
    """Where nobody measures."""

    cpu: float = 0.0
    memory: float = 0.0
    rss_bytes: int = 0


class WorkerApp:
    """The ASGI application: steps by the shortest way, the rest through the shell."""

    def __init__(self, routes: StepRoutes, shell: Application) -> None:
        self._routes = routes
        self._shell = shell
        self.takes = routes.takes
        self.direct = routes.direct

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["path"].startswith(PREFIX):
            await self._routes(scope, receive, send)
        else:
            await self._shell(scope, receive, send)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """What an instance is started with."""

    own: Own
    scratch: Path  # of this instance alone: emptied at start, removed at stop
    instance: str = ""
    search_path: tuple[str, ...] = ()  # of a checkout; an installed worker needs none
    caller: Caller | None = None  # of other workers
    timing: Timing = field(default_factory=Timing)
    warm: bool = True  # start an executor before the first step
    internal: Callable[[], Sequence[str]] = tuple  # internal destinations the policy opens now
    log_class_max: DataClass = DataClass.INTERNAL  # of the data whose steps write text to the log


class WorkerServer:
    """One instance of a worker. `app` serves; call `start` first and `stop` at the end."""

    def __init__(
        self,
        manifest: Manifest,
        platform: PlatformPort,
        settings: ServerSettings,
        *,
        worker: Worker | None = None,
        clock: Clock | None = None,
        usage: Callable[[], Usage] = NoUsage,
    ) -> None:
        self._manifest = manifest
        self._settings = settings
        self._clock = clock or SystemClock()
        self._usage = usage
        self._started_at = self._clock.monotonic()
        artifacts = ArtifactService(
            platform, self._clock, settings.caller, manifest.permissions.call
        )
        self._pool = ExecutorPool(_executor_settings(manifest, settings), artifacts)
        self._inline = _inline(manifest, settings, worker, artifacts)
        self._quick = None if self._inline is None else QuickRunner(self._inline, self._clock)
        self._slots = {
            one.id: Slots(one.slots, self._runner(one), metrics.StepMetrics())
            for one in manifest.capabilities
        }
        self.refused = Refused(self._clock)
        access = self._access = Access(settings.own, self._clock, self.refused)
        spoken = SpokenLines(
            made={one.id: one.data_class for one in manifest.capabilities},
            cleared={one.id: one.data_class_max for one in manifest.capabilities},
            most=settings.log_class_max,
        )
        self._table = StepTable(self._slots, self._clock, settings.timing, spoken)
        self._routes = StepRoutes(self._table, access, self._clock)
        self.app = WorkerApp(self._routes, build_shell(self, access))
        self._expected: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._ticker: asyncio.Task[None] | None = None
        self._faulty: set[Callable[[], None]] = set()  # parts of a tick that failed the last time

    async def start(self) -> None:
        """Empty the scratch folder, start the second loop and a first executor."""
        shutil.rmtree(self._settings.scratch, ignore_errors=True)
        self._settings.scratch.mkdir(mode=0o700, parents=True)
        if self._inline is not None:
            self._inline.open()
        if self._settings.warm and any(
            one.run_in == "process" for one in self._manifest.capabilities
        ):
            self._pool.warm()
        self._ticker = asyncio.get_running_loop().create_task(self._tick_on())

    async def drain(self, seconds: float = 30.0) -> None:
        """Refuse new steps and wait until the running ones have ended, then end them."""
        self._table.draining = True
        await self._until(lambda: not self._table.busy, seconds)
        self._table.stop_all()
        await self._until(lambda: not self._routes.waiting, LAST_PAGES_S)

    async def stop(self) -> None:
        """End what runs and every process and thread of this instance."""
        self._table.draining = True
        self._table.stop_all()
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.wait((self._ticker,))
        if self._inline is not None:
            self._inline.close()
        await self._pool.close()

    def begin_drain(self) -> None:
        """Refuse new steps from now on."""
        self._table.draining = True

    @property
    def draining(self) -> bool:
        """Whether new steps are refused."""
        return self._table.draining

    @property
    def stuck(self) -> bool:
        """Whether nothing but the end of this process helps."""
        return self._inline is not None and self._inline.stuck

    @property
    def busy(self) -> bool:
        """Whether any step runs."""
        return self._table.busy

    @property
    def manifest(self) -> Manifest:
        """What this instance serves."""
        return self._manifest

    def slots(self) -> dict[str, int]:
        """Slots by capability, for registration and heartbeats."""
        return {name: slots.total for name, slots in self._slots.items()}

    def active(self) -> dict[str, int]:
        """Slots in use by capability."""
        return {name: slots.active for name, slots in self._slots.items()}

    def status(self) -> WorkerStatus:
        """The answer to `GET /v1/status`."""
        usage = self._usage()
        return WorkerStatus(
            worker=self._manifest.metadata.name,
            version=self._manifest.metadata.version,
            instance=self._settings.instance,
            protocol=PROTOCOL,
            draining=self._table.draining,
            uptime_s=self._clock.monotonic() - self._started_at,
            cpu=usage.cpu,
            memory=usage.memory,
            rss_bytes=usage.rss_bytes,
            slots=self._table.slot_status(),
            executions=self._table.statuses(),
        )

    def metrics(self) -> bytes:
        """The answer to `GET /metrics`."""
        readings = [
            metrics.Reading(name, one.total, one.active, one.metrics)
            for name, one in self._slots.items()
        ]
        policies = self._settings.own.policies
        gauges = {
            "hivemesh_worker_executors": self._pool.processes,
            "hivemesh_worker_kept_bytes": self._table.kept_bytes,
            "hivemesh_worker_draining": int(self._table.draining),
            "hivemesh_worker_uptime_seconds": self._clock.monotonic() - self._started_at,
            "hivemesh_worker_memory_bytes": self._pool.rss(),
            "hivemesh_worker_policy_version": policies.current().version,
            "hivemesh_worker_policy_stale": int(policies.stale),
        }
        totals = {
            "hivemesh_worker_executor_crashes": self._pool.crashes,
            "hivemesh_worker_memory_kills": self._pool.memory_kills,
            "hivemesh_worker_inline_blocked": self._blocked,
            "hivemesh_worker_policies_refused": policies.refused,
        }
        return metrics.render(readings, gauges, totals, self._access.refusals)

    def tick(self) -> None:
        """Let time pass for steps and for those who wait; one part's fault stops no other."""
        for part in (self._table.tick, self._routes.tick, self._watch_inline, self._tell_expected):
            self._guarded(part)

    def _guarded(self, part: Callable[[], None]) -> None:
        """Do it; a fault is told once until it works again."""
        try:
            part()
        except Exception:  # noqa: BLE001 - whatever it is, time goes on
            if part not in self._faulty:
                self._faulty.add(part)
                _log.exception("tick_failed", part=getattr(part, "__qualname__", ""))
        else:
            self._faulty.discard(part)

    def _watch_inline(self) -> None:
        if self._inline is not None and self._table.busy:
            self._inline.watch()

    def _tell_expected(self) -> None:
        for condition, waiter in self._expected:
            if condition() and not waiter.done():
                waiter.set_result(None)

    @property
    def _blocked(self) -> int:
        if self._inline is None or self._quick is None:
            return 0
        return self._inline.blocked + self._quick.blocked

    def _runner(self, capability: Declared) -> Runner:
        if capability.run_in != "inline" or self._inline is None or self._quick is None:
            return self._pool
        return self._quick if self._inline.capabilities[capability.id].quick else self._inline

    async def _until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Wait until a tick finds the condition true, or the time is over."""
        expected = (condition, asyncio.get_running_loop().create_future())
        self._expected.append(expected)
        try:
            await asyncio.wait((expected[1],), timeout=seconds)
        finally:
            self._expected.remove(expected)

    async def _tick_on(self) -> None:
        count = 0
        while True:
            await asyncio.sleep(TICK_S)
            self.tick()
            count += 1
            if count % WATCH_EVERY == 0:
                self._guarded(self._pool.watch)


def _executor_settings(manifest: Manifest, settings: ServerSettings) -> ExecutorSettings:
    scratch_mb = manifest.permissions.scratch_mb or manifest.resources.disk_mb
    return ExecutorSettings(
        entrypoint=manifest.runtime.entrypoint,
        search_path=settings.search_path,
        scratch=settings.scratch,
        memory_bytes=manifest.resources.memory_mb * MIB,
        file_bytes=scratch_mb * MIB,
        egress=manifest.permissions.egress,
        internal=settings.internal,
    )


def _inline(
    manifest: Manifest, settings: ServerSettings, worker: Worker | None, artifacts: ArtifactService
) -> InlineRunner | None:
    """The worker's code is imported here only where some of it runs in this process."""
    wanted = [one.id for one in manifest.capabilities if one.run_in == "inline"]
    if not wanted:
        return None
    worker = worker or load_worker(manifest.runtime.entrypoint, settings.search_path)
    missing = sorted(set(wanted) - set(worker.capabilities))
    if missing:
        message = (
            f"the manifest declares {missing} and the code does not; run `hivemesh-worker check`"
        )
        raise ConfigurationError(message)
    capabilities = {name: Capability(worker.capabilities[name]) for name in wanted}
    http = Http(manifest.permissions.egress, settings.internal)
    return InlineRunner(capabilities, artifacts, settings.scratch, http)
