"""One execution on the second loop: its control, its sink and the port of its context."""

import asyncio
import hashlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
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
from hivemesh_sdk.worker.failures import problem_of, refuse_secrets
from hivemesh_sdk.worker.http import Http
from hivemesh_sdk.worker.kinds import Capability, Job
from hivemesh_sdk.worker.line import (
    MAX_DETAIL,
    MAX_REASON,
    PROGRESS_S,
    printable,
    short,
    within_limit,
)
from hivemesh_sdk.worker.mailbox import Mailbox
from hivemesh_sdk.worker.platform import ArtifactService
from hivemesh_sdk.worker.questions import Question
from hivemesh_sdk.worker.records import Rejected
from hivemesh_sdk.worker.secrets import NO_VAULT, LeasedValues, Vault
from hivemesh_sdk.worker.texts import counted, said

Bodies = Sequence[bytes | None]

_log = structlog.get_logger("hivemesh.inline")


class InlineStep(msgspec.Struct, eq=False):
    """Control methods are called on the loop that serves, all others on the second one.

    A struct because it is made for every small call, and its fields cost nothing there.
    """

    front: Mailbox
    inside: Mailbox
    capability: Capability
    execution: Execution
    request: StepRequest
    bodies: Bodies
    folder: Path  # its scratch folder is below
    http: Http
    artifacts: ArtifactService
    serving: asyncio.AbstractEventLoop
    context: Context | None = None
    stopped: bool = False
    entered: bool = False
    begun_at: float = 0.0
    told_at: float = 0.0
    lines: int = 0
    unacknowledged: int = 0
    task: asyncio.Task[None] | None = None
    fetching: asyncio.Task[None] | None = None  # its inputs and secrets, on the loop that serves
    read_on: asyncio.Event | None = None
    vault: Vault = NO_VAULT
    abandoned: Callable[[int], None] | None = None  # counts code that does not stop
    left: bool = False

    def call(self, question: Question) -> bytes:
        """Nothing may wait on the second loop."""
        message = f"`await context.call_async({question.capability!r}, …)` in an async capability"
        raise ConfigurationError(message)

    async def call_async(self, question: Question) -> bytes:
        """Ask another worker; the loop that serves does it."""
        front = asyncio.run_coroutine_threadsafe(
            self.artifacts.call(self.execution, question, self.remaining_s()), self.serving
        )
        return await asyncio.wrap_future(front)

    def cancel(self) -> None:
        """Ask the author's code to stop; what is still fetched for it is not waited for."""
        if self.fetching is not None and self.fetching.cancel():
            return  # `fetched` ends it
        self.inside.post(self._stop)

    def fetched(self, task: asyncio.Task[None]) -> None:
        """Its inputs are there, or are not wanted any more."""
        if task.cancelled():
            self.end(problem("cancelled"))

    def kill(self) -> None:
        """A thread cannot be ended: code that does not stop is left behind and its slot freed."""
        _log.warning("inline_step_left_behind", key=self.execution.key)
        if self.abandoned is not None:
            self.left = True
            self.abandoned(1)
        self.execution.release()

    def credit(self, count: int) -> None:
        """Tell that so many bytes were acknowledged."""
        self.inside.post(partial(self._acknowledged, count))

    def cpu_s(self) -> float:
        """Not known: the thread is shared."""
        return 0.0

    def begin(self) -> None:
        """Start the author's code."""
        self.task = asyncio.get_running_loop().create_task(self._run())

    def emit(self, rejected: Sequence[Rejected], batch: Batch | None) -> None:
        """Pass on rejected records and the batch that follows them."""
        follows = batch is not None
        for one in rejected:
            self.front.post(
                partial(
                    self.execution.rejected,
                    said(one.reason, MAX_REASON),
                    said(one.detail, MAX_DETAIL),
                    short(one.position),
                    cost=0,
                    more=follows,
                )
            )
        if batch is not None:
            refuse_secrets(batch.data, "a record")
            self.unacknowledged += len(batch.data)
            self.front.post(
                partial(
                    self.execution.records,
                    batch.data,
                    count=batch.count,
                    sha256=batch.digest(),
                    checkpoint=batch.checkpoint,
                    cost=len(batch.data),
                    more=self.request.kind != "source",
                )
            )

    async def room(self) -> None:
        """Wait until a reader has acknowledged enough for another batch."""
        most = CREDIT_BYTES - self.request.limits.bytes
        while self.unacknowledged and self.unacknowledged > most:
            self.read_on = asyncio.Event()
            self.front.post(self.execution.suspend)
            await self.read_on.wait()

    def cancelled(self) -> bool:
        """Whether the step is not wanted any more."""
        return self.stopped

    def progress(self, done: int, total: int, unit: str) -> None:
        """Tell how far the step is; words within a second are left out."""
        now = time.monotonic()
        if now - self.told_at >= PROGRESS_S or done == total:
            self.told_at = now
            self.front.post_from_anywhere(
                partial(
                    self.execution.progress, counted(done), counted(total), said(unit, MAX_REASON)
                )
            )

    def log(self, level: str, event: str, fields: Mapping[str, object]) -> None:
        """Send a line of the log; of a flood only the beginning."""
        self.lines += 1
        line = within_limit(self.lines, level, event, fields)
        if line is None:
            return
        level, event, fields = line
        copied = msgspec.json.decode(printable(fields), type=dict[str, object])
        self.front.post_from_anywhere(
            partial(
                self.execution.log,
                level,
                said(event, MAX_DETAIL),
                copied,
                cost=0,
            )
        )

    def remaining_s(self) -> float | None:
        """Seconds until the deadline."""
        total = self.request.deadline_ms / 1000
        return max(0.0, self.begun_at + total - time.monotonic()) if total else None

    def end(self, problem: Problem, *, refused: bool = False) -> None:
        """End with a problem; called on the loop that serves."""
        self.execution.fail(problem, refused=refused)
        self._release()

    async def _run(self) -> None:
        self.entered = True
        self.begun_at = time.monotonic()
        if self.stopped:
            self.front.post(partial(self.end, problem("cancelled")))
            return
        request = self.request
        job = Job(
            kind=request.kind,
            inputs=self.bodies,  # type: ignore[arg-type]  # the runner starts what is there
            parameters=request.parameters,
            checkpoint=bytes(request.checkpoint),
            limits=request.limits,
            vault=self.vault,
        )
        try:
            options = self.capability.accept(job)
        except HivemeshError as error:
            self.front.post(partial(self.end, problem_of(error), refused=True))
            return
        except BaseException as error:  # noqa: BLE001 - options may have code of the author's
            self.front.post(partial(self.end, self._failure(error, self.execution.key)))
            return
        if request.members:
            await self._run_members(job, options)
            return
        try:
            if self.capability.asks_context:
                self.context = self._surroundings()
            result = await self.capability.run_waiting(job, options, self.context, self)
            refuse_secrets(result or b"", "the answer")
        except asyncio.CancelledError as error:
            ended = problem("cancelled") if self.cancelled() else problem_of(error)
            self.front.post(partial(self.end, ended))
            raise
        except BaseException as error:  # noqa: BLE001 - the boundary of the author's code
            self.front.post(partial(self.end, self._failure(error, self.execution.key)))
        else:
            digest = "" if result is None else hashlib.sha256(result).hexdigest()
            self.front.post(partial(self._succeed, result, digest))

    async def _run_members(self, job: Job, options: object) -> None:
        """Several small calls, one after the other; each is answered before the next one begins."""
        lines = (self.bodies[0] or b"").split(b"\n")
        for member, line in zip(self.request.members, lines, strict=True):
            if self.stopped:
                self.front.post(partial(self.end, problem("cancelled")))
                return
            self.begun_at = time.monotonic()
            job.inputs = (line,)
            result, failed = b"null", None
            try:
                if self.capability.asks_context:
                    self.context = self._surroundings(member.key)
                found = await self.capability.run_waiting(job, options, self.context, self)
                refuse_secrets(found or b"", "the answer")
                result = b"null" if found is None else found
            except asyncio.CancelledError:
                self.front.post(partial(self.end, problem("cancelled")))
                raise
            except BaseException as error:  # noqa: BLE001 - the boundary of the author's code
                failed = self._failure(error, member.key)
            ended = self.execution.member_ended
            body = b"" if failed is not None else result
            self.front.post(partial(ended, body, failed, cost=0))
        self.front.post(partial(self._succeed, None, ""))

    def _failure(self, error: BaseException, key: str) -> Problem:
        """The problem of what the author's code raised, an exit of the interpreter included."""
        if isinstance(error, GeneratorExit):
            raise error  # the loop has gone, and nobody is left to be told
        if not isinstance(error, HivemeshError):
            _log.error("step_raised", key=key, exception=self.execution.trace_of(error))
        return problem_of(error)

    def _surroundings(self, key: str = "") -> Context:
        return Context(
            key=key or self.execution.key,
            capability=self.capability.id,
            scratch=self.folder / self.execution.id,
            artifacts=NO_ARTIFACTS,
            port=self,
            vault=self.vault,
            http=self.http,
            calls=self,
        )

    def _succeed(self, result: bytes | None, digest: str) -> None:
        self.execution.succeed(result, digest, ())
        self._release()

    def _release(self) -> None:
        if self.left and self.abandoned is not None:  # it has stopped after all
            self.left = False
            self.abandoned(-1)
        if isinstance(self.vault, LeasedValues):
            self.vault.close()
        if self.context is not None and self.context.scratch_used:
            loop = asyncio.get_running_loop()
            loop.run_in_executor(
                None, partial(shutil.rmtree, self.context.scratch, ignore_errors=True)
            )
        self.execution.release()

    def _stop(self) -> None:
        self.stopped = True
        if self.task is not None and self.entered:  # else it sees the flag when it begins
            self.task.cancel()

    def _acknowledged(self, count: int) -> None:
        self.unacknowledged -= count
        if self.read_on is not None:
            self.read_on.set()


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
