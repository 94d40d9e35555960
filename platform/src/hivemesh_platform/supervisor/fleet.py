"""The processes of one worker: builds its environment, then keeps the wanted number running.

One task per worker; a worker that cannot be built or crashes never concerns another.
"""

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from hivemesh_sdk import signals
from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.instances import HEARTBEAT_S
from hivemesh_sdk.errors import HivemeshError

from hivemesh_platform.registry.model import InstanceState
from hivemesh_platform.registry.service import Listing, RegistryService
from hivemesh_platform.registry.types import InstalledWorker
from hivemesh_platform.supervisor.environment import EnvironmentBuilder, Recipe
from hivemesh_platform.supervisor.launcher import Launcher
from hivemesh_platform.supervisor.model import (
    RESTARTED,
    STABLE_S,
    Action,
    Backoff,
    Limits,
    Member,
    Phase,
    Sign,
    plan,
)
from hivemesh_platform.supervisor.outputs import WorkerLog
from hivemesh_platform.supervisor.processes import ProcessId, WorkerProcess
from hivemesh_platform.supervisor.records import Record, Records

SUSPICIOUS_S = 1.25 * HEARTBEAT_S  # who beats in time is not lost, whatever one call met


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What every fleet needs of the rest."""

    builder: EnvironmentBuilder
    registry: RegistryService
    launcher: Launcher
    records: Records
    clock: Clock
    limits: Limits
    busy: Callable[[str], bool]  # whether an instance holds steps


@dataclass(slots=True)
class _Managed:
    """One process and where it stands."""

    process: WorkerProcess
    instance: str
    phase: Phase
    since: float
    started: float
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    suspected: bool = False
    outdated: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the deny list keeps from being started.

    A ban of one instance by its name keeps nothing: names do not come back, so another one is started.
    """

    all: str = ""  # why nothing of this worker may run


class Fleet:
    """Supervises one worker."""

    def __init__(
        self,
        installed: InstalledWorker,
        recipe: Callable[[], Recipe],
        wanted: int,
        log: WorkerLog,
        around: Surroundings,
    ) -> None:
        self.installed = installed
        self.log = log
        self.wanted = wanted
        self.refusal = Refusal()
        self.restarts = 0
        self.problem = ""
        self.building_since: float | None = None
        self._recipe = recipe
        self._around = around
        self._backoff = Backoff()
        self._members: dict[str, _Managed] = {}
        self._wake = asyncio.Event()
        self._logger = structlog.get_logger("hivemesh.supervisor").bind(worker=self.name)

    @property
    def name(self) -> str:
        """The worker's name."""
        return self.installed.type.name

    @property
    def instances(self) -> dict[str, Phase]:
        """The processes of this worker."""
        return {name: one.phase for name, one in self._members.items()}

    @property
    def looping(self) -> bool:
        """Whether the worker ends again and again right after its start."""
        return self._backoff.looping

    def pid(self, instance: str) -> int:
        """The pid of an instance, 0 where it is not ours."""
        one = self._members.get(instance)
        return one.process.id.pid if one is not None else 0

    def processes(self) -> list[ProcessId]:
        """The processes that run now."""
        return [one.process.id for one in tuple(self._members.values())]

    def wake(self) -> None:
        """Look again: something has changed."""
        self._wake.set()

    def scale(self, wanted: int) -> None:
        """Change the wanted number."""
        self.wanted = wanted
        self._backoff = Backoff()
        self.wake()

    def restart(self) -> None:
        """Replace every process, one after the other; each drains first.

        Those that do not serve yet are replaced at once.
        """
        self._backoff = Backoff()
        for one in self._members.values():
            one.outdated = one.phase in {Phase.LIVE, Phase.CONDEMNED}  # it may come back
            if one.phase is Phase.STARTING:
                self._stop(one, RESTARTED)
        self.wake()

    def replace(self, reason: str) -> None:
        """Replace every process now; each drains first."""
        self._backoff = Backoff()
        for one in self._members.values():
            self._stop(one, reason)
        self.wake()

    def refuse(self, refusal: Refusal) -> None:
        """Start nothing that is banned; what was lifted is started again."""
        if refusal != self.refusal:
            self.refusal = refusal
            self._backoff = Backoff()
            self.wake()

    def expel(self, instance: str, reason: str) -> None:
        """End a process whose certificate is refused: nobody answers it any more."""
        one = self._members.get(instance)
        if one is None:
            return
        self._move(one, Phase.STOPPING, self._around.clock.monotonic())
        self._logger.warning("worker_expelled", instance=instance, reason=reason)
        one.process.kill()

    def suspect(self, instance: str) -> None:
        """The instance does not answer for its steps."""
        one = self._members.get(instance)
        if one is not None:
            one.suspected = True
            self.wake()

    def adopt(self, record: Record) -> bool:
        """Take over a process that a former platform started; False where it is gone."""
        if not record.process.exists():
            return False
        process = WorkerProcess(ProcessId(record.pid, record.started), None)
        self._manage(process, record.instance)
        self._logger.info("worker_adopted", instance=record.instance, pid=record.pid)
        return True

    async def run(self) -> None:
        """Supervise until cancelled; then `stop` is called."""
        while True:
            look_again_at = await self._look_safely()
            await self._sleep(look_again_at)

    async def stop(self, hurry: asyncio.Event, grace_s: float) -> None:
        """End every process: drain, then kill what is left after the grace or when in a hurry."""
        for one in self._members.values():
            self._stop(one, "the platform stops")
        ends = asyncio.create_task(self._all_ended())
        hurried = asyncio.create_task(hurry.wait())
        waiting: set[asyncio.Task[Any]] = {ends, hurried}
        await asyncio.wait(waiting, timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        for one in self._members.values():
            one.process.kill()
        await ends
        for one in tuple(self._members.values()):
            await self._forget(one)

    async def _all_ended(self) -> None:
        for one in tuple(self._members.values()):
            await one.process.wait()

    async def _look_safely(self) -> float | None:
        """One worker's trouble must not end the supervision of the others."""
        try:
            return await self._look()
        except Exception:
            self._logger.exception("fleet_failed")
            return self._around.clock.monotonic() + 1.0

    async def _look(self) -> float | None:
        self._wake.clear()
        now = self._around.clock.monotonic()
        for one in [one for one in self._members.values() if one.process.ended]:
            await self._ended(one, now)
        listings = {item.instance.id: item for item in self._around.registry.instances()}
        members = [self._member(one, listings.get(one.instance)) for one in self._members.values()]
        decided = plan(members, self._allowed(), self._backoff, self._around.limits, now)
        starts = sum(action.kind == "start" for action in decided.actions)
        for action in decided.actions:
            if action.kind != "start":
                self._act(action, now)
        if starts:
            await self._start(starts)
        return decided.look_again_at

    def _allowed(self) -> int:
        return 0 if self.refusal.all else self.wanted

    def _member(self, one: _Managed, listing: Listing | None) -> Member:
        active = listing.instance.active_steps if listing is not None else 0
        return Member(
            instance=one.instance,
            phase=one.phase,
            since=one.since,
            sign=_sign(one, listing),
            active=active,
            outdated=one.outdated,
        )

    def _act(self, action: Action, now: float) -> None:
        one = self._members[action.instance]
        match action.kind:
            case "live" | "pardon":
                self._move(one, Phase.LIVE, now)
                self.problem = ""
            case "condemn":
                self._move(one, Phase.CONDEMNED, now)
                self.restarts += 1
                self._logger.warning("worker_replaced", instance=one.instance, reason=action.reason)
            case "stop":
                self._stop(one, action.reason)
                self.wake()  # another one may take its place
            case "kill":
                if one.phase is Phase.STARTING:
                    self.problem = action.reason
                self._logger.warning("worker_killed", instance=one.instance, reason=action.reason)
                one.process.kill()
            case "start":
                pass

    def _stop(self, one: _Managed, reason: str) -> None:
        if one.phase is Phase.STOPPING:
            return
        self._move(one, Phase.STOPPING, self._around.clock.monotonic())
        self._logger.info("worker_stopping", instance=one.instance, reason=reason)
        one.process.signal(signal.SIGTERM)
        one.process.signal(signal.SIGCONT)  # a suspended process cannot drain

    def _move(self, one: _Managed, phase: Phase, now: float) -> None:
        one.phase, one.since, one.suspected = phase, now, False

    async def _ended(self, one: _Managed, now: float) -> None:
        expected = one.phase in {Phase.STOPPING, Phase.CONDEMNED}
        of_a_step = one.phase is Phase.LIVE and self._is_busy(one.instance)
        lived = now - one.started
        code = one.process.exit_code()
        await self._forget(one)
        if expected:
            return
        self.restarts += 1
        self.problem = f"it ended by itself {_how(code)}; see its log"
        fresh = Backoff() if lived > STABLE_S else self._backoff
        self._backoff = fresh.failed(now, of_a_step=of_a_step)
        report = self._logger.error if self._backoff.looping else self._logger.warning
        report("worker_ended", instance=one.instance, exit_code=code, lived_s=round(lived, 1))

    def _is_busy(self, instance: str) -> bool:
        """Whether steps are there; those that other replicas have placed show in its heartbeats."""
        listings = self._around.registry.instances()
        active = sum(one.instance.active_steps for one in listings if one.instance.id == instance)
        return active > 0 or self._around.busy(instance)

    async def _forget(self, one: _Managed) -> None:
        self._members.pop(one.instance, None)
        self._unwatch(one)
        await self._around.registry.forget(one.instance)
        self._around.records.remove(one.instance)

    async def _start(self, number: int) -> None:
        try:
            python = await self._environment()
            for _ in range(number):
                await self._start_one(python)
        except (HivemeshError, OSError) as error:
            self.problem = str(error)
            self._backoff = self._backoff.failed(self._around.clock.monotonic())
            self._logger.warning("worker_not_started", detail=str(error))
            self.wake()

    async def _environment(self) -> Path:
        recipe = self._recipe()
        if not self._around.builder.prepared(recipe):
            self.building_since = self._around.clock.monotonic()
        try:
            python = await self._around.builder.build(recipe, self.log.path)
        finally:
            self.building_since = None
        if not self._members:
            await asyncio.to_thread(self._around.builder.remove_others, recipe)
        return python

    async def _start_one(self, python: Path) -> None:
        started = await self._around.launcher.launch(self.installed, python, self.log)
        managed = self._manage(started.process, started.instance)
        managed.tasks.append(asyncio.create_task(started.serve_tokens()))
        self._logger.info("worker_started", instance=started.instance, pid=started.process.id.pid)

    def _manage(self, process: WorkerProcess, instance: str) -> _Managed:
        now = self._around.clock.monotonic()
        managed = _Managed(process, instance, Phase.STARTING, now, now)
        managed.tasks.append(asyncio.create_task(self._watch(process)))
        self._members[instance] = managed
        return managed

    def _unwatch(self, one: _Managed) -> None:
        for task in one.tasks:
            task.cancel()
        one.process.release()

    async def _watch(self, process: WorkerProcess) -> None:
        await process.wait()
        self.wake()

    async def _sleep(self, until: float | None) -> None:
        timeout = None if until is None else max(0.0, until - self._around.clock.monotonic())
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._wake.wait()


def _sign(one: _Managed, listing: Listing | None) -> Sign:
    if listing is None:
        return Sign.UNSEEN
    match listing.state:
        case InstanceState.OFFLINE:
            return Sign.LOST
        case InstanceState.UNHEALTHY:
            return Sign.SUSPENDED if one.process.id.stopped() else Sign.SILENT
        case InstanceState.LIVE | InstanceState.DRAINING | InstanceState.INCOMPATIBLE:
            silent = listing.heartbeat_age_s > SUSPICIOUS_S
            return Sign.LOST if one.suspected and silent else Sign.BEATING


def _how(code: int | None) -> str:
    if code is None:
        return "for an unknown reason"
    if code < 0:
        return f"by signal {signals.name_of(-code)}"
    return f"with exit code {code}"
