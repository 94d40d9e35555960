"""One execution on the second loop: its control, its sink and the port of its context."""

import asyncio
import hashlib
import shutil
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import BinaryIO, NoReturn

import msgspec
import structlog

from hivemesh_sdk.contracts.artifacts import Artifact, Tree
from hivemesh_sdk.contracts.problems import Problem, problem
from hivemesh_sdk.contracts.steps import StepRequest
from hivemesh_sdk.errors import ConfigurationError, HivemeshError
from hivemesh_sdk.worker.batches import Batch
from hivemesh_sdk.worker.channel import CREDIT_BYTES
from hivemesh_sdk.worker.context import ArtifactReader, Context
from hivemesh_sdk.worker.execution import Execution
from hivemesh_sdk.worker.failures import problem_of
from hivemesh_sdk.worker.kinds import Capability, Job
from hivemesh_sdk.worker.line import MAX_DETAIL, MAX_REASON, PROGRESS_S, printable, short
from hivemesh_sdk.worker.mailbox import Mailbox
from hivemesh_sdk.worker.platform import Holder
from hivemesh_sdk.worker.records import Rejected

Bodies = Sequence[bytes | None]

_log = structlog.get_logger("hivemesh.inline")


class InlineStep:
    """Control methods are called on the loop that serves, all others on the second one."""

    __slots__ = (
        "_cancelled",
        "_capability",
        "_context",
        "_ends_at",
        "_entered",
        "_execution",
        "_front",
        "_inside",
        "_request",
        "_room",
        "_scratch",
        "_task",
        "_told_at",
        "_unacknowledged",
    )

    def __init__(
        self,
        front: Mailbox,
        inside: Mailbox,
        capability: Capability,
        execution: Execution,
        request: StepRequest,
        scratch: str,
    ) -> None:
        self._front = front
        self._inside = inside
        self._capability = capability
        self._execution = execution
        self._request = request
        self._scratch = scratch
        self._context: Context | None = None
        self._cancelled = self._entered = False
        self._ends_at = (
            time.monotonic() + request.deadline_ms / 1000 if request.deadline_ms else None
        )
        self._task: asyncio.Task[None] | None = None
        self._room: asyncio.Event | None = None
        self._unacknowledged = 0
        self._told_at = 0.0

    @property
    def holder(self) -> Holder:
        """On whose behalf artifacts are read."""
        return Holder(self._execution.key, self._execution.attempt, self._execution.ticket)

    def cancel(self) -> None:
        """Ask the author's code to stop."""
        self._inside.post(self._stop)

    def kill(self) -> None:
        """A thread cannot be ended: code that does not stop is left behind and its slot freed."""
        _log.warning("inline_step_left_behind", key=self._execution.key)
        self._execution.release()

    def credit(self, count: int) -> None:
        """Tell that so many bytes were acknowledged."""
        self._inside.post(partial(self._acknowledged, count))

    def cpu_s(self) -> float:
        """Not known: the thread is shared."""
        return 0.0

    def begin(self, bodies: Bodies) -> None:
        """Start the author's code."""
        self._task = asyncio.get_running_loop().create_task(self._run(bodies))

    def emit(self, rejected: Sequence[Rejected], batch: Batch | None) -> None:
        """Pass on rejected records and the batch that follows them."""
        follows = batch is not None
        for one in rejected:
            self._front.post(
                partial(
                    self._execution.rejected,
                    str(one.reason)[:MAX_REASON],
                    str(one.detail)[:MAX_DETAIL],
                    short(one.position),
                    cost=0,
                    more=follows,
                )
            )
        if batch is not None:
            self._unacknowledged += len(batch.data)
            self._front.post(
                partial(
                    self._execution.records,
                    batch.data,
                    count=batch.count,
                    sha256=batch.digest(),
                    checkpoint=batch.checkpoint,
                    cost=len(batch.data),
                    more=self._request.kind != "source",
                )
            )

    async def room(self) -> None:
        """Wait until a reader has acknowledged enough for another batch."""
        most = CREDIT_BYTES - self._request.limits.bytes
        while self._unacknowledged and self._unacknowledged > most:
            self._room = asyncio.Event()
            self._front.post(self._execution.suspend)
            await self._room.wait()

    def cancelled(self) -> bool:
        """Whether the step is not wanted any more."""
        return self._cancelled

    def progress(self, done: int, total: int, unit: str) -> None:
        """Tell how far the step is; words within a second are left out."""
        now = time.monotonic()
        if now - self._told_at >= PROGRESS_S or done == total:
            self._told_at = now
            self._front.post_from_anywhere(
                partial(self._execution.progress, int(done), int(total), str(unit))
            )

    def log(self, level: str, event: str, fields: Mapping[str, object]) -> None:
        """Send a line of the log."""
        copied = msgspec.json.decode(printable(fields), type=dict[str, object])
        self._front.post_from_anywhere(
            partial(self._execution.log, level, str(event)[:MAX_DETAIL], copied, cost=0)
        )

    def remaining_s(self) -> float | None:
        """Seconds until the deadline."""
        return None if self._ends_at is None else max(0.0, self._ends_at - time.monotonic())

    def end(self, problem: Problem, *, refused: bool = False) -> None:
        """End with a problem; called on the loop that serves."""
        self._execution.fail(problem, refused=refused)
        self._release()

    async def _run(self, bodies: Bodies) -> None:
        self._entered = True
        if self._cancelled:
            self._front.post(partial(self.end, problem("cancelled")))
            return
        request = self._request
        job = Job(
            kind=request.kind,
            inputs=[body for body in bodies if body is not None],
            parameters=request.parameters,
            checkpoint=bytes(request.checkpoint),
            limits=request.limits,
        )
        try:
            options = self._capability.accept(job)
        except HivemeshError as error:
            self._front.post(partial(self.end, problem_of(error), refused=True))
            return
        try:
            result = await self._capability.run_waiting(job, options, self._surroundings(), self)
        except asyncio.CancelledError:
            self._front.post(partial(self.end, problem("cancelled")))
            raise
        except HivemeshError as error:
            self._front.post(partial(self.end, problem_of(error)))
        except Exception as error:  # noqa: BLE001 - the boundary of the author's code
            _log.exception("step_raised", key=self._execution.key)
            self._front.post(partial(self.end, problem_of(error)))
        else:
            digest = "" if result is None else hashlib.sha256(result).hexdigest()
            self._front.post(partial(self._succeed, result, digest))

    def _surroundings(self) -> Context | None:
        if self._capability.asks_context:
            self._context = Context(
                key=self._execution.key,
                capability=self._capability.id,
                scratch=self._scratch,
                artifacts=NO_ARTIFACTS,
                port=self,
            )
        return self._context

    def _succeed(self, result: bytes | None, digest: str) -> None:
        self._execution.succeed(result, digest, ())
        self._release()

    def _release(self) -> None:
        if self._context is not None and self._context.scratch_used:
            loop = asyncio.get_running_loop()
            loop.run_in_executor(
                None, partial(shutil.rmtree, self._context.scratch, ignore_errors=True)
            )
        self._execution.release()

    def _stop(self) -> None:
        self._cancelled = True
        if self._task is not None and self._entered:  # else it sees the flag when it begins
            self._task.cancel()

    def _acknowledged(self, count: int) -> None:
        self._unacknowledged -= count
        if self._room is not None:
            self._room.set()


class _NoArtifacts:
    """Reading bytes blocks, and nothing may block the second loop."""

    def open(self, reference: Artifact, offset: int = 0) -> ArtifactReader:
        self._refuse()

    def size(self, reference: Artifact) -> int:
        return reference.size

    def tree(self, reference: Artifact | Tree) -> dict[str, Artifact]:
        self._refuse()

    def put(
        self,
        data: bytes | BinaryIO,
        *,
        media_type: str = "application/octet-stream",
        name: str | None = None,
    ) -> Artifact:
        self._refuse()

    def _refuse(self) -> NoReturn:
        message = "artifacts are read and stored by capabilities with run_in='process' only"
        raise ConfigurationError(message)


NO_ARTIFACTS = _NoArtifacts()
