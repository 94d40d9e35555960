"""Finds steps whose worker went away or whose execution does not move.

Liveness is asked, not told: each worker with running steps answers `GET /v1/status` every two
seconds on a connection of its own. Three questions without an answer mean that its steps are
lost. Alive and progressing are two clocks: an execution that shows neither an event nor CPU time
for its idle time-out is stuck, however well its worker answers.
"""

import asyncio
from dataclasses import dataclass

import structlog
from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.instances import Endpoint
from hivemesh_sdk.contracts.problems import problem
from hivemesh_sdk.contracts.steps import ExecutionState, ExecutionStatus
from hivemesh_sdk.errors import HivemeshError

from hivemesh_platform.execution.held import HeldStep, HeldSteps, Verdict
from hivemesh_platform.execution.ports import StepTransport
from hivemesh_platform.execution.steps.requests import DEFAULT_IDLE_MS
from hivemesh_platform.settings import ExecutionSettings

_log = structlog.get_logger("hivemesh.execution")


@dataclass(slots=True)
class _Movement:
    """When an execution last moved, by our own clock."""

    event: int
    cpu_s: float
    at: float


class LostStepWatch:
    """Asks the workers that run steps for this process."""

    def __init__(
        self, held: HeldSteps, transport: StepTransport, settings: ExecutionSettings, clock: Clock
    ) -> None:
        self._held = held
        self._transport = transport
        self._settings = settings
        self._clock = clock
        self._misses: dict[str, int] = {}
        self._movements: dict[tuple[str, int], _Movement] = {}

    async def run(self) -> None:
        """Ask every interval until cancelled."""
        while True:
            started = self._clock.monotonic()
            await self.ask_all()
            taken = self._clock.monotonic() - started
            await asyncio.sleep(max(0.0, self._settings.status_interval_s - taken))

    async def ask_all(self) -> None:
        """Ask each worker once, all at the same time."""
        endpoints = self._held.endpoints()
        alive = {endpoint.instance for endpoint in endpoints}
        self._misses = {name: n for name, n in self._misses.items() if name in alive}
        async with asyncio.TaskGroup() as group:
            for endpoint in endpoints:
                group.create_task(self._ask(endpoint))
        self._forget_ended()

    async def _ask(self, endpoint: Endpoint) -> None:
        try:
            status = await self._transport.status(
                endpoint, timeout_s=0.75 * self._settings.status_interval_s
            )
        except HivemeshError as error:
            self._missed(endpoint, error)
            return
        self._misses.pop(endpoint.instance, None)
        executions = {one.key: one for one in status.executions}
        for step in self._held.at(endpoint.instance):
            found = executions.get(str(step.claim.key))
            if found is not None and found.attempt == step.claim.fence.attempt:
                self._check_movement(step, found)

    def _missed(self, endpoint: Endpoint, error: HivemeshError) -> None:
        misses = self._misses.get(endpoint.instance, 0) + 1
        self._misses[endpoint.instance] = misses
        if misses < self._settings.status_misses:
            return
        del self._misses[endpoint.instance]  # what is placed there next has its own questions
        _log.warning("worker_lost", instance=endpoint.instance, detail=error.detail)
        detail = f"{endpoint.instance} did not answer {misses} questions: {error.detail}"
        for step in self._held.at(endpoint.instance):
            step.end(Verdict.LOST, problem("worker-lost", detail))

    def _check_movement(self, step: HeldStep, found: ExecutionStatus) -> None:
        """Compare with what was seen before; waiting for our acknowledgement is no standstill."""
        now = self._clock.monotonic()
        name = (found.key, found.attempt)
        seen = self._movements.get(name)
        moved = (
            seen is None
            or found.state is not ExecutionState.RUNNING
            or found.last_event != seen.event
            or found.executor_cpu_s > seen.cpu_s
        )
        if seen is None or moved:
            self._movements[name] = _Movement(found.last_event, found.executor_cpu_s, now)
            return
        limit = (step.claim.idle_timeout_ms or DEFAULT_IDLE_MS) / 1000
        if now - seen.at >= limit:
            detail = f"neither an event nor CPU time for {limit:.0f} s"
            step.end(Verdict.STUCK, problem("deadline-exceeded", detail, retryable=True))

    def _forget_ended(self) -> None:
        self._movements = {
            name: movement
            for name, movement in self._movements.items()
            if self._held.find(name[0]) is not None
        }
