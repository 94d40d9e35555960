"""Runs one fleet per installed worker; what the API and the composition root see of the supervisor."""

import asyncio
import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import structlog
from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.artifacts import DataClass
from hivemesh_sdk.errors import NotFoundError
from hivemesh_sdk.trust.keys import write_private_file

from hivemesh_platform.loops import forever
from hivemesh_platform.registry.service import RegistryService
from hivemesh_platform.registry.types import InstalledWorker, WorkerTypes
from hivemesh_platform.routing.service import RoutingService
from hivemesh_platform.supervisor import processes
from hivemesh_platform.supervisor.environment import EnvironmentBuilder, Recipe
from hivemesh_platform.supervisor.first_party import sdk_source
from hivemesh_platform.supervisor.fleet import Fleet, Refusal, Surroundings
from hivemesh_platform.supervisor.launcher import Launcher, TokenIssuer
from hivemesh_platform.supervisor.model import Limits, Phase
from hivemesh_platform.supervisor.outputs import WorkerLog
from hivemesh_platform.supervisor.records import Records
from hivemesh_platform.trust.model import Denial, DenialKind, DenyList
from hivemesh_platform.trust.revocation import PACKAGE

TICK_S = 5.0
STOP_GRACE_S = 10.0  # what still runs then is repeated after the next start
MEMORY_FACTOR = 1.5  # the worker minds its own limit; this is the second line
_INHERITED = ("LANG", "LC_ALL", "LC_CTYPE", "TZ", "PATH")


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorSettings:
    """How the supervisor is configured."""

    state_folder: Path
    project: Path | None
    default_instances: int
    instances: Mapping[str, int]
    host: str
    alone_s: float
    limits: Limits
    log_bytes: int
    log_files: int
    environment: Mapping[str, str]
    log_level: str = "info"
    log_class_max: DataClass = DataClass.INTERNAL  # of the data whose text a log may have


@dataclass(frozen=True, slots=True)
class Standing:
    """How one worker stands with the supervisor."""

    state: str
    reason: str
    wanted: int
    restarts: int


class Supervisor:
    """Starts, watches, restarts, scales and stops the workers of this machine."""

    def __init__(  # noqa: PLR0913 - what it supervises with
        self,
        settings: SupervisorSettings,
        *,
        types: WorkerTypes,
        registry: RegistryService,
        routing: RoutingService,
        tokens: TokenIssuer,
        builder: EnvironmentBuilder,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._types = types
        self._registry = registry
        self._routing = routing
        self._tokens = tokens
        self._builder = builder
        self._clock = clock
        self._records = Records(settings.state_folder / "run")
        self._scratch = settings.state_folder / "scratch"
        self._scale_file = settings.state_folder / "scale.json"
        self._fleets: dict[str, Fleet] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._around: Surroundings | None = None
        self._denials: tuple[Denial, ...] = ()
        self._log = structlog.get_logger("hivemesh.supervisor")

    async def run(self, platform_url: str, enrolment_url: str) -> None:
        """Supervise until cancelled; `stop` ends the processes afterwards."""
        if not any(record.process.exists() for record in self._records.all()):
            await asyncio.to_thread(self._clear_scratch)  # what a crash left behind
        scratch = self._scratch
        scratch.mkdir(exist_ok=True, mode=0o700)
        self._around = Surroundings(
            builder=self._builder,
            registry=self._registry,
            launcher=Launcher(
                tokens=self._tokens,
                records=self._records,
                variables=self._variables(platform_url, enrolment_url, scratch),
                scratch=scratch,
            ),
            records=self._records,
            clock=self._clock,
            limits=self._settings.limits,
            busy=self._routing.busy,
        )
        self._update_fleets()
        self._adopt()
        async with asyncio.TaskGroup() as group:
            for loop in (self._follow_registry, self._follow_suspects, self._tick):
                group.create_task(forever(loop.__qualname__, loop))

    async def stop(self, hurry: asyncio.Event) -> None:
        """End every worker process; nothing is left running."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks.clear()
        grace = min(STOP_GRACE_S, self._settings.limits.grace_s)
        await asyncio.gather(*(fleet.stop(hurry, grace) for fleet in self._fleets.values()))
        self._fleets.clear()
        await asyncio.to_thread(self._clear_scratch)

    def scale(self, worker: str, instances: int) -> None:
        """Keep so many instances running, now and after a restart of the platform.

        Raises:
            NotFoundError: no such worker.
        """
        fleet = self._fleet(worker)
        stored = {**self._stored_scale(), worker: instances}
        write_private_file(self._scale_file, msgspec.json.encode(stored))
        fleet.scale(instances)

    def restart(self, worker: str) -> None:
        """Replace every process of a worker, one after the other.

        Raises:
            NotFoundError: no such worker.
        """
        self._fleet(worker).restart()

    def refuse(self, deny_list: DenyList) -> None:
        """Start nothing that the deny list bans."""
        self._denials = deny_list.denials
        for fleet in self._fleets.values():
            fleet.refuse(refusal_of(fleet.installed, self._denials))

    def expel(self, instances: Collection[str], reason: str) -> None:
        """End the processes whose certificates are refused; what may come back is started anew."""
        for fleet in self._fleets.values():
            for instance in instances:
                fleet.expel(instance, reason)

    def replace_all(self, reason: str) -> None:
        """End every process at once and start others, which enrol anew."""
        for fleet in self._fleets.values():
            for instance in fleet.instances:
                fleet.expel(instance, reason)

    def log_tail(self, worker: str, lines: int) -> bytes:
        """The end of a worker's log.

        Raises:
            NotFoundError: no such worker.
        """
        return self._fleet(worker).log.tail(lines)

    def wanted(self) -> int:
        """Instances that should run, over all workers."""
        return sum(fleet.wanted for fleet in self._fleets.values())

    def knows(self, worker: str) -> bool:
        """Whether this worker is supervised."""
        return worker in self._fleets

    def standing(self, worker: str, live: int) -> Standing:
        """How a worker stands; `live` is what the registry counts."""
        fleet = self._fleet(worker)
        state, reason = _state(fleet, live, self._clock.monotonic())
        return Standing(state, reason, fleet.wanted, fleet.restarts)

    def pid(self, worker: str, instance: str) -> int:
        """The pid of an instance, 0 where it is not ours."""
        fleet = self._fleets.get(worker)
        return fleet.pid(instance) if fleet is not None else 0

    def _fleet(self, worker: str) -> Fleet:
        fleet = self._fleets.get(worker)
        if fleet is None:
            message = f"no worker here is named {worker!r}; `hivemesh worker list` shows them"
            raise NotFoundError(message)
        return fleet

    def _update_fleets(self) -> None:
        """Begin to supervise workers that have appeared; take over changed manifests."""
        if self._around is None:
            return
        for installed in self._types.all():
            fleet = self._fleets.get(installed.type.name)
            if fleet is None:
                self._fleets[installed.type.name] = self._new_fleet(installed, self._around)
            elif fleet.installed.type.digest != installed.type.digest:
                fleet.installed = installed
                fleet.refuse(refusal_of(installed, self._denials))
                fleet.replace("its manifest has changed")

        for name, fleet in self._fleets.items():
            if self._types.get(name) is None and fleet.wanted:
                fleet.scale(0)  # its folder is gone; shown until the platform ends

    def _clear_scratch(self) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _new_fleet(self, installed: InstalledWorker, around: Surroundings) -> Fleet:
        name, settings = installed.type.name, self._settings
        log = WorkerLog(
            settings.state_folder / "logs" / f"worker-{name}.log",
            max_bytes=settings.log_bytes,
            files=settings.log_files,
        )
        recipe = partial(_recipe, installed, settings.project)
        fleet = Fleet(installed, recipe, self._wanted_of(name), log, around)
        fleet.refuse(refusal_of(installed, self._denials))
        self._tasks[name] = asyncio.create_task(fleet.run(), name=f"fleet {name}")
        return fleet

    def _adopt(self) -> None:
        for record in self._records.all():
            fleet = self._fleets.get(record.worker)
            if fleet is None or record.manifest_digest != fleet.installed.type.digest:
                processes.kill_session(record.process)
                self._records.remove(record.instance)
            elif not fleet.adopt(record):
                self._records.remove(record.instance)

    async def _follow_registry(self) -> None:
        version = -1
        while True:
            version = await self._registry.changed(version, 3600.0)
            for fleet in self._fleets.values():
                fleet.wake()

    async def _follow_suspects(self) -> None:
        while True:
            for instance in await self._routing.suspects():
                for fleet in self._fleets.values():
                    fleet.suspect(instance)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            if self._types.refresh():
                self._update_fleets()
            await asyncio.to_thread(self._look_after)

    def _look_after(self) -> None:
        """Bound the logs and, as a second line, the memory and number of processes."""
        running = {
            identity.pid: (fleet, identity)
            for fleet in tuple(self._fleets.values())
            for identity in fleet.processes()
        }
        for fleet in tuple(self._fleets.values()):
            fleet.log.rotate()
        for pid, (count, held) in processes.usage(running).items():
            fleet, identity = running[pid]
            resources = fleet.installed.type.manifest.resources
            most = MEMORY_FACTOR * resources.memory_mb * 1024 * 1024
            if held > most or count > resources.pids:
                self._log.error(
                    "worker_over_limit",
                    worker=fleet.name,
                    pid=pid,
                    memory_bytes=held,
                    processes=count,
                )
                processes.kill_session(identity)

    def _variables(self, platform_url: str, enrolment_url: str, scratch: Path) -> dict[str, str]:
        settings = self._settings
        inherited = {
            name: settings.environment[name] for name in _INHERITED if name in settings.environment
        }
        return {
            **inherited,
            "HOME": str(scratch),
            "TMPDIR": str(scratch),
            "HIVEMESH_PLATFORM": platform_url,
            "HIVEMESH_ENROLMENT": enrolment_url,
            "HIVEMESH_HOST": settings.host,
            "HIVEMESH_PORT": "0",
            "HIVEMESH_ALONE_S": f"{settings.alone_s:.0f}",
            "HIVEMESH_LOG_LEVEL": settings.log_level,
            "HIVEMESH_LOG_CLASS_MAX": settings.log_class_max,
        }

    def _wanted_of(self, worker: str) -> int:
        stored = self._stored_scale()
        if worker in stored:
            return stored[worker]
        return self._settings.instances.get(worker, self._settings.default_instances)

    def _stored_scale(self) -> dict[str, int]:
        try:
            return msgspec.json.decode(self._scale_file.read_bytes(), type=dict[str, int])
        except (OSError, msgspec.MsgspecError):
            return {}


def refusal_of(installed: InstalledWorker, denials: Iterable[Denial]) -> Refusal:
    """What bans say of a worker: of all of it, or of its package."""
    for denial in denials:
        if denial.kind is not DenialKind.BAN:
            continue
        if denial.rule == f"{PACKAGE}{installed.type.digest}":
            return Refusal(all=f"its package is banned: {denial.reason}")
        _, found, path = denial.rule.partition("/worker/")
        if found and path in {f"{installed.type.name}/*", "*"}:
            return Refusal(all=f"banned: {denial.reason}")
    return Refusal()


def _recipe(installed: InstalledWorker, project: Path | None) -> Recipe:
    return Recipe(
        worker=installed.type.name,
        worker_source=installed.folder,
        sdk_source=sdk_source(project),
    )


def _state(fleet: Fleet, live: int, now: float) -> tuple[str, str]:
    if fleet.refusal.all:
        return "banned", fleet.refusal.all
    if fleet.building_since is not None:
        return (
            "building",
            f"its environment is being built, {now - fleet.building_since:.0f} s so far",
        )
    if fleet.looping and live < fleet.wanted:
        return "crash-loop", fleet.problem
    if live >= fleet.wanted:
        return ("live" if fleet.wanted else "stopped"), ""
    if live > 0:
        return "degraded", fleet.problem or "not all wanted instances are live"
    starting = any(phase is Phase.STARTING for phase in fleet.instances.values())
    return "starting", fleet.problem or ("" if starting else "no instance runs")
