"""One executor process as its front sees it: from its start to its last message and its end."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec
import psutil
import structlog

from hivemesh_sdk import signals
from hivemesh_sdk.contracts.problems import Problem, problem
from hivemesh_sdk.contracts.steps import StepRequest
from hivemesh_sdk.errors import FatalError, HivemeshError
from hivemesh_sdk.worker import channel
from hivemesh_sdk.worker.execution import Execution
from hivemesh_sdk.worker.failures import problem_of
from hivemesh_sdk.worker.platform import ArtifactService
from hivemesh_sdk.worker.questions import Question

MOST_BUFFERED_BYTES = channel.CREDIT_BYTES + 16 * 1024 * 1024  # hostile or broken beyond
LAST_WORDS_S = 0.5  # a dead process may have children that keep its socket open
_INHERITED = ("PATH", "LANG", "LC_ALL", "TZ", "HOME", "TMPDIR", "LD_LIBRARY_PATH")
_INHERITED_SUFFIX = "_NUM_THREADS"  # OMP, OPENBLAS, MKL …

Bodies = Sequence[bytes | None]

_log = structlog.get_logger("hivemesh.executor")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorSettings:
    """What every executor of a worker is started with."""

    entrypoint: str
    search_path: tuple[str, ...]
    scratch: Path
    memory_bytes: int
    file_bytes: int
    egress: tuple[str, ...] = ()
    internal: Callable[[], Sequence[str]] = tuple


class Owner(Protocol):
    """The pool."""

    def executor_idle(self, executor: "Executor") -> None: ...

    def executor_gone(self, executor: "Executor", *, crashed: bool, was_ready: bool) -> None: ...


class Executor(asyncio.Protocol):
    """Starts the process, speaks the channel, and reports to the execution it computes."""

    def __init__(
        self, settings: ExecutorSettings, artifacts: ArtifactService, owner: Owner
    ) -> None:
        self._settings = settings
        self._artifacts = artifacts
        self._owner = owner
        self._deframer = channel.Deframer()
        self._unsent: list[bytes] = []  # until the channel is connected
        self._transport: asyncio.WriteTransport | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._execution: Execution | None = None
        self._ready = False
        self._load_problem: Problem | None = None
        self._kill_reason = ""
        self._exited = self._closed = False
        self.last_capability = self.last_key = ""
        self.apart = False  # for steps that may kill it
        self.gone = asyncio.Event()

    def spawn(self) -> None:
        """Start the interpreter; it imports the worker and then waits for steps.

        Raises:
            OSError: the system does not start another process.
        """
        ours, theirs = socket.socketpair()
        try:
            self._process = _start_interpreter(theirs)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._usage = psutil.Process(self._process.pid)
        loop = asyncio.get_running_loop()
        self._pidfd = os.pidfd_open(self._process.pid)
        loop.add_reader(self._pidfd, self._bury)
        ours.settimeout(0)
        self._connecting = loop.create_task(self._connect(ours))
        self._send(
            channel.Load(
                entrypoint=self._settings.entrypoint,
                search_path=list(self._settings.search_path),
                parent=os.getpid(),
                file_bytes=self._settings.file_bytes,
                egress=list(self._settings.egress),
            )
        )

    def begin(self, execution: Execution, request: StepRequest, bodies: Bodies) -> None:
        """Give it a step; it must be idle or not yet ready."""
        self._execution = execution
        self.last_capability, self.last_key = execution.capability, execution.key
        remaining = None if not request.deadline_ms else request.deadline_ms / 1000
        message = channel.Begin(
            execution=execution.id,
            key=execution.key,
            capability=request.capability,
            kind=request.kind,
            inputs=request.inputs,
            parameters=msgspec.json.encode(request.parameters),
            checkpoint=bytes(request.checkpoint),
            limits=request.limits,
            bodies=request.bodies,
            remaining_s=remaining,
            scratch=str(self._settings.scratch / execution.id),
            members=[one.key for one in request.members],
            internal=list(self._settings.internal()),
            withheld=execution.withholds_text,
        )
        self._send(message, *(body for body in bodies if body))

    def cancel(self) -> None:
        """Ask the author's code to stop."""
        if self._execution is not None:
            self._send(channel.Cancel(execution=self._execution.id))

    def kill(self, reason: str = "it did not stop when it was asked to") -> None:
        """End the process and whatever it has started."""
        if not self._exited:
            self._kill_reason = self._kill_reason or reason
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def credit(self, count: int) -> None:
        """Tell that so many bytes were acknowledged."""
        if self._execution is not None:
            self._send(channel.Credit(execution=self._execution.id, bytes=count))

    def cpu_s(self) -> float:
        """CPU seconds of the process and of the children it has waited for."""
        try:
            times = self._usage.cpu_times()
        except psutil.Error:
            return 0.0
        return float(times.user + times.system + times.children_user + times.children_system)

    def rss(self) -> int:
        """Resident bytes of the process."""
        try:
            return int(self._usage.memory_info().rss)
        except psutil.Error:
            return 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send what was said before the channel was there."""
        channel_out: asyncio.WriteTransport = transport  # type: ignore[assignment]  # uvloop's are no subclasses
        self._transport = channel_out
        channel_out.writelines(self._unsent)
        self._unsent.clear()

    def data_received(self, data: bytes) -> None:
        """Take messages; those of a batch arrive in one go, and its reader is woken once."""
        try:
            for document, body in self._deframer.feed(data):
                self._take(channel.decode_from_executor(document), body, len(document) + len(body))
        except (channel.ChannelError, msgspec.DecodeError) as error:
            self.kill(f"it sent what is no message: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        """The process closed its end or is gone."""
        self._closed = True
        if not self._exited:  # what died has closed its end a moment earlier
            loop = asyncio.get_running_loop()
            loop.call_later(LAST_WORDS_S, self.kill, "it closed its channel")
        self._finish()

    def _take(self, message: channel.FromExecutor, body: bytes, size: int) -> None:
        execution = self._execution
        match message:
            case channel.Ready():
                self._ready = True
            case channel.LoadFailed():
                self._load_problem = message.problem
            case _ if execution is None:
                return  # said after its step had ended
            case channel.ReadBlock():
                block = self._artifacts.read(
                    execution.asking, message.artifact, message.offset, message.length
                )
                self._spawn_task(self._answer(execution, message.call, block))
            case channel.Store():
                self._spawn_task(
                    self._answer(execution, message.call, self._store(execution, message, body))
                )
            case channel.Call():
                self._spawn_task(
                    self._answer(execution, message.call, self._call(execution, message, body))
                )
            case channel.Borrow():
                self._spawn_task(
                    self._answer(execution, message.call, self._lend(execution, message))
                )
            case channel.Ended() | channel.Failed() | channel.Refused():
                self._end(execution, message, body)
            case _:
                _report(execution, message, body, size + channel.HEAD.size)
                if execution.buffered > MOST_BUFFERED_BYTES:
                    self.kill("it sent more than was asked for")

    def _end(
        self,
        execution: Execution,
        message: channel.Ended | channel.Failed | channel.Refused,
        body: bytes,
    ) -> None:
        self._execution = None
        self._owner.executor_idle(self)
        if isinstance(message, channel.Ended):
            result = body if message.has_result else None
            execution.succeed(result, message.sha256, message.artifacts)
        else:
            execution.fail(message.problem, refused=isinstance(message, channel.Refused))
        self._release(execution)

    def _release(self, execution: Execution) -> None:
        for task in tuple(self._tasks):
            task.cancel()  # artifacts that nobody waits for any more
        scratch = self._settings.scratch / execution.id
        if scratch.exists():
            asyncio.get_running_loop().run_in_executor(None, shutil.rmtree, scratch, True)  # noqa: FBT003 - ignore_errors is positional here
        execution.release()

    async def _connect(self, ours: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_unix_connection(lambda: self, sock=ours)
        except OSError as error:
            ours.close()
            self.kill(f"its channel could not be opened: {error.strerror}")

    async def _answer(self, execution: Execution, call: int, work: Awaitable[bytes]) -> None:
        """Answer a question whatever becomes of it: the author's code waits."""
        try:
            body = await work
        except Exception as error:  # noqa: BLE001 - it is answered, and logged where it is not ours
            if not isinstance(error, HivemeshError):
                trace = execution.trace_of(error)
                _log.error("question_failed", key=execution.key, exception=trace)
            self._send(channel.Answer(call=call, problem=problem_of(error)))
        else:
            self._send(channel.Answer(call=call), body)

    async def _store(self, execution: Execution, question: channel.Store, body: bytes) -> bytes:
        data: bytes | Path = Path(question.path) if question.path else body
        self._check_inside(data)
        await self._artifacts.store(execution.asking, question.artifact, data)
        return b""

    async def _lend(self, execution: Execution, question: channel.Borrow) -> bytes:
        return msgspec.json.encode(await self._artifacts.lend(execution.asking, question.path))

    async def _call(self, execution: Execution, asked: channel.Call, body: bytes) -> bytes:
        question = Question(
            asked.capability, body, asked.options, asked.name, asked.submit, asked.how
        )
        left_s = None
        if execution.deadline_at is not None:
            left_s = max(0.0, execution.deadline_at - execution.now())
        return await self._artifacts.call(execution.asking, question, left_s)

    def _check_inside(self, data: bytes | Path) -> None:
        """The executor is not trusted with the front's files: only its scratch folder is read."""
        if isinstance(data, Path) and not data.resolve().is_relative_to(
            self._settings.scratch.resolve()
        ):
            message = "an artifact is stored from the scratch folder only"
            raise FatalError(message, slug="artifact-unavailable")

    def _send(self, message: channel.ToExecutor, *bodies: bytes) -> None:
        chunks = [channel.frame(message, sum(map(len, bodies))), *bodies]
        if self._transport is None:
            self._unsent += chunks
        elif not self._transport.is_closing():
            self._transport.writelines(chunks)

    def _spawn_task(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _bury(self) -> None:
        """The process has ended: end its children too, while its number is still its own."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._exited = True
        if not self._closed:
            loop.call_later(LAST_WORDS_S, self._hang_up)
        self._finish()

    def _hang_up(self) -> None:
        """End the channel of a process that is gone; one that was never connected has no end."""
        if self._transport is not None:
            self._transport.abort()
        elif not self._closed:
            self._connecting.cancel()
            self._closed = True
            self._finish()

    def _finish(self) -> None:
        if not (self._exited and self._closed) or self.gone.is_set():
            return
        self.gone.set()
        execution, self._execution = self._execution, None
        try:
            self._tell_end(execution)
        finally:
            if execution is not None:
                self._release(execution)

    def _tell_end(self, execution: Execution | None) -> None:
        cause = self._cause()
        if execution is not None:
            execution.fail(self._load_problem or problem("executor-crashed", cause))
        crashed = not self._kill_reason and self._process.returncode != 0
        if crashed:
            key = "" if execution is None else execution.key
            _log.warning("executor_crashed", pid=self._process.pid, cause=cause, key=key)
        self._owner.executor_gone(self, crashed=crashed, was_ready=self._ready)

    def _cause(self) -> str:
        if self._kill_reason:
            return self._kill_reason
        code = self._process.returncode
        if code >= 0:
            return f"the process ended by itself with status {code}"
        hint = "; the kernel does this when memory runs out" if code == -signal.SIGKILL else ""
        return f"the process died by signal {signals.name_of(-code)}{hint}"


def _start_interpreter(theirs: socket.socket) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-I", "-m", "hivemesh_sdk.worker.executor", str(theirs.fileno())]
    return subprocess.Popen(  # noqa: S603 - our own interpreter and module
        command,
        stdin=subprocess.DEVNULL,
        pass_fds=(theirs.fileno(),),
        env=_clean_environment(),
        process_group=0,  # so that it is ended with all that it starts; its session is the front's
    )


def _report(execution: Execution, message: channel.FromExecutor, body: bytes, cost: int) -> None:
    match message:
        case channel.Records():
            execution.records(
                body,
                count=message.count,
                sha256=message.sha256,
                checkpoint=message.checkpoint,
                artifact=message.artifact,
                encoding=message.encoding,
                cost=cost,
                more=message.more,
            )
        case channel.MemberEnded():
            execution.member_ended(body, message.problem, cost=cost)
        case channel.RejectedRecord():
            execution.rejected(
                message.reason, message.detail, message.position, cost=cost, more=message.more
            )
        case channel.Progress():
            execution.progress(message.done, message.total, message.unit)
        case channel.LogLine():
            fields = msgspec.json.decode(message.fields, type=dict[str, object])
            execution.log(message.level, message.message, fields, cost=cost)
        case channel.Suspended():
            execution.suspend()
        case _:
            pass


def _clean_environment() -> dict[str, str]:
    """Nothing of this process's environment that might be a secret."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in _INHERITED or name.endswith(_INHERITED_SUFFIX)
    }
