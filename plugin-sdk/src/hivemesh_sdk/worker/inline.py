"""The second loop: runs inline capabilities in a thread of its own, and notices blocking."""

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import structlog

from hivemesh_sdk.contracts.steps import StepRequest
from hivemesh_sdk.errors import FatalError, HivemeshError
from hivemesh_sdk.worker.channel import BLOCK_BYTES
from hivemesh_sdk.worker.execution import Control, Execution
from hivemesh_sdk.worker.failures import problem_of, trace_of
from hivemesh_sdk.worker.http import NO_HTTP, Http
from hivemesh_sdk.worker.inline_step import Bodies, InlineStep
from hivemesh_sdk.worker.kinds import Capability
from hivemesh_sdk.worker.mailbox import Mailbox
from hivemesh_sdk.worker.platform import ArtifactService
from hivemesh_sdk.worker.remote_artifacts import decoded
from hivemesh_sdk.worker.secrets import LeasedValues

LAST_STEPS_S = 0.5
BLOCKED_S = 0.1  # code that holds the loop for longer makes its neighbours wait

NO_SECRETS: frozenset[str] = frozenset()

_log = structlog.get_logger("hivemesh.inline")


class InlineRunner:
    """Runs executions of inline capabilities; of quick functions those that `quick` hands on."""

    def __init__(
        self,
        capabilities: Mapping[str, Capability],
        artifacts: ArtifactService,
        scratch: Path,
        http: Http = NO_HTTP,
    ) -> None:
        self._http = http
        self.capabilities = capabilities
        self._artifacts = artifacts
        self._scratch = scratch
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._lost = False
        self._pinged_at: float | None = None
        self._reported = False
        self.blocked = 0
        self.left_behind = 0  # executions whose code did not stop when it was told to

    def open(self) -> None:
        """Start the thread and its loop; called on the loop that serves."""
        front = self._serving = asyncio.get_running_loop()
        self._loop = type(front)()  # of the same kind: uvloop where the server uses it
        self._front = Mailbox(self._loop, front)
        self._inside = Mailbox(front, self._loop, self._front)
        self._thread = threading.Thread(target=self._serve, name="inline", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the loop; code that blocks it is left behind."""
        self._closing = True
        with suppress(RuntimeError):  # it has ended by itself
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=1.0)
        self._front.close()

    def start(self, execution: Execution, request: StepRequest, bodies: Bodies) -> Control:
        """Give the execution to the second loop."""
        capability = self.capabilities[request.capability]
        step = InlineStep(
            self._front,
            self._inside,
            capability,
            execution,
            request,
            bodies,
            self._scratch,
            self._http,
            self._artifacts,
            self._serving,
            abandoned=self._abandon,
        )
        secrets = capability.secrets_of(request.parameters) if request.parameters else NO_SECRETS
        if secrets or not is_there(request):
            work = self._fetch(step, request, secrets)
            step.fetching = asyncio.get_running_loop().create_task(work)
            self._tasks.add(step.fetching)
            step.fetching.add_done_callback(self._tasks.discard)
            step.fetching.add_done_callback(step.fetched)
        else:
            self._inside.post(step.begin)
        return step

    @property
    def stuck(self) -> bool:
        """Whether the process has to be replaced: code does not stop, or the loop has ended."""
        return self.left_behind > 0 or self._lost

    def _abandon(self, count: int) -> None:
        """Nothing can end a thread: where its code does not stop, the process is replaced."""
        self.left_behind += count

    def watch(self) -> None:
        """Report code that has held the second loop since the last look; call every 0.1 s."""
        if self._pinged_at is None:
            self._pinged_at = time.monotonic()
            self._inside.post(self._pong)
        elif not self._reported and time.monotonic() - self._pinged_at >= BLOCKED_S:
            self._reported = True
            self.blocked += 1
            _log.warning("inline_blocked", at=self._whereabouts())

    def _pong(self) -> None:
        self._pinged_at = None
        self._reported = False

    def _whereabouts(self) -> list[str]:
        frame = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001 - the documented way to another thread's stack
        stack = traceback.extract_stack(frame)[-3:]
        return [f"{one.filename}:{one.lineno} {one.name}" for one in stack]

    async def _fetch(self, step: InlineStep, request: StepRequest, secrets: frozenset[str]) -> None:
        whole = list(step.bodies)
        try:
            if secrets:
                step.vault = vault = LeasedValues(_not_named)  # closed at the end of the step
                await self._lend(step, secrets, vault)
            for index, part in enumerate(request.inputs):
                data = whole[index]
                if part.artifact is not None:
                    data = await self._artifacts.read_all(
                        step.execution, part.artifact, BLOCK_BYTES
                    )
                whole[index] = decoded(data or b"", part.encoding)
        except Exception as error:  # noqa: BLE001 - it is answered, and logged where it is not ours
            if not isinstance(error, HivemeshError):
                trace = step.execution.trace_of(error)
                _log.error("fetch_failed", key=step.execution.key, exception=trace)
            step.end(problem_of(error))
        else:
            step.bodies = whole
            self._inside.post(step.begin)

    async def _lend(self, step: InlineStep, paths: frozenset[str], vault: LeasedValues) -> None:
        """All secrets of the options: nothing may wait for the platform on the second loop."""
        for path in sorted(paths):
            asked = time.monotonic()
            vault.take(await self._artifacts.lend(step.execution, path), asked)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            while not self._closing:
                self._run_loop()
            self._loop.run_until_complete(_let_end())
        finally:
            self._lost = not self._closing
            self._inside.close()
            self._loop.close()

    def _run_loop(self) -> None:
        """Run until the loop is told to stop; an exit in a task of the author's own is none of ours."""
        try:
            self._loop.run_forever()
        except (SystemExit, KeyboardInterrupt) as error:  # whose data it is about, nobody knows
            _log.error("exit_refused", exception=trace_of(error, withheld=True))


def _not_named(path: str) -> NoReturn:
    message = f"{path!r}: an `async def` capability is lent what its options name, once"
    raise FatalError(message, slug="secret-denied")


def is_there(request: StepRequest) -> bool:
    """Whether every input came with the request, as it is."""
    for part in request.inputs:  # a loop: `all` with a generator costs three times as much
        if part.artifact is not None or part.encoding != "identity":
            return False
    return True


async def _let_end() -> None:
    """Give cancelled code a moment to clean up."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=LAST_STEPS_S)
