"""The executor's end of the channel: sends what a step emits, receives what it is told.

One thread reads, so that a cancel and an acknowledgement arrive while the author's code runs, and
one writes, so that the code goes on while the front takes a batch; credit bounds what waits. When
the front closes the channel the process ends at once.
"""

import hashlib
import os
import queue
import socket
import threading
import time
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from hivemesh_sdk.contracts.artifacts import Artifact
from hivemesh_sdk.contracts.problems import Problem
from hivemesh_sdk.errors import ConfigurationError, RemoteError
from hivemesh_sdk.redaction import REDACTOR
from hivemesh_sdk.worker import channel
from hivemesh_sdk.worker.batches import Batch
from hivemesh_sdk.worker.codec import UNWRITABLE, encode
from hivemesh_sdk.worker.failures import StepCancelledError, refuse_secrets
from hivemesh_sdk.worker.questions import Question
from hivemesh_sdk.worker.records import Rejected
from hivemesh_sdk.worker.texts import counted, said

PROGRESS_S = 1.0  # each word on progress costs the reader a page
MAX_LOG_LINES = 1000  # per request; what follows is left out
MAX_REASON = 200
MAX_DETAIL = 2000
MAX_FIELDS_BYTES = 16 * 1024  # a line of a page is at most 1 MiB
_NO_DIGEST = 64 * "0"  # as long as the one that the writing thread puts in its place
_ASK_POLL_S = 0.5

Answered = tuple[channel.Answer, bytes]
Outgoing = tuple[channel.FromExecutor, bytes]


class Line:
    """Frames over the socket; knows the step that is being computed."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._outgoing: queue.SimpleQueue[Outgoing | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="channel-out", daemon=True)
        self._steps: queue.SimpleQueue[tuple[StepLine, channel.Begin, bytes]] = queue.SimpleQueue()
        self._step: StepLine | None = None
        self._writing = threading.Lock()

    def receive_load(self) -> channel.Load:
        """Wait for the first message, then read and write from threads of their own."""
        document, _ = self._receive()
        message = channel.decode_to_executor(document)
        if not isinstance(message, channel.Load):
            raise TypeError(message)
        threading.Thread(target=self._listen, name="channel", daemon=True).start()
        self._writer.start()
        return message

    def next_step(self) -> tuple["StepLine", channel.Begin, bytes]:
        """Wait for a step."""
        return self._steps.get()

    def send(self, message: channel.FromExecutor, body: bytes = b"") -> int:
        """Send a frame, after those before it, and return what it counts for."""
        self._outgoing.put((message, body))
        return len(channel.frame(message)) + len(body)

    def send_now(self, message: channel.FromExecutor, body: bytes = b"") -> int:
        """The same, sent when this returns, whatever happens to this process afterwards."""
        frame = channel.frame(message, len(body)) + body
        try:
            with self._writing:
                self._socket.sendall(frame)
        except OSError:
            os._exit(0)  # as in `_write`
        return len(frame)

    def finish(self) -> None:
        """Wait until all is sent; nothing can be sent afterwards."""
        self._outgoing.put(None)
        self._writer.join()

    def _write(self) -> None:
        try:
            while (next_ := self._outgoing.get()) is not None:
                message, body = next_
                head = channel.frame(_with_digest(message, body), len(body))
                with self._writing:
                    self._socket.sendall(head)
                    if body:
                        self._socket.sendall(body)
        except OSError:
            os._exit(0)  # the front is gone and nobody wants the result

    def _listen(self) -> None:
        while True:
            document, body = self._receive()
            match channel.decode_to_executor(document):
                case channel.Begin() as begin:
                    self._step = StepLine(self, begin)
                    self._steps.put((self._step, begin, body))
                case channel.Cancel(execution=execution):
                    if self._step is not None and self._step.execution == execution:
                        self._step.cancel()
                case channel.Credit(execution=execution, bytes=count):
                    if self._step is not None and self._step.execution == execution:
                        self._step.acknowledged(count)
                case channel.Answer() as answer:
                    if self._step is not None:
                        self._step.answered(answer, body)
                case channel.Load():
                    pass

    def _receive(self) -> tuple[bytes, bytes]:
        document, body = channel.HEAD.unpack(self._read(channel.HEAD.size))
        return self._read(document), self._read(body)

    def _read(self, size: int) -> bytes:
        """Exactly so many bytes, into one piece of memory: a block of an artifact is large."""
        data = b""
        while len(data) < size:
            try:
                part = self._socket.recv(size - len(data), socket.MSG_WAITALL)
            except OSError:
                part = b""
            if not part:
                os._exit(0)  # the front is gone
            data = data + part if data else part  # in parts only where a signal came between
        return data


class StepLine:
    """The channel as one step sees it: its sink, and the port of its context."""

    def __init__(self, line: Line, begin: channel.Begin) -> None:
        self.execution = begin.execution
        self.bodies = begin.bodies
        self._line = line
        self._kind = begin.kind
        self._grouped = bool(begin.members)  # the end of each would overtake what waits to be sent
        self._ends_at = None if begin.remaining_s is None else time.monotonic() + begin.remaining_s
        self._state = threading.Condition()
        self._cancelled = False
        self._unacknowledged = 0
        self._told_at = 0.0
        self._lines = 0
        self._answers: dict[int, queue.SimpleQueue[Answered]] = {}
        self._calls = 0
        self._over = False

    def cancel(self) -> None:
        """Note that the step is not wanted any more, and wake what waits."""
        with self._state:
            self._cancelled = True
            self._state.notify_all()

    def close(self) -> None:
        """The step has ended: a thread that outlives it says nothing any more in its place."""
        with self._state:
            self._over = self._cancelled = True
            self._state.notify_all()

    def acknowledged(self, count: int) -> None:
        """Note that so many bytes may follow."""
        with self._state:
            self._unacknowledged -= count
            self._state.notify_all()

    def answered(self, answer: channel.Answer, body: bytes) -> None:
        """Hand an answer to the thread that asked."""
        waiting = self._answers.pop(answer.call, None)
        if waiting is not None:
            waiting.put((answer, body))

    def emit(self, rejected: Sequence[Rejected], batch: Batch | None) -> None:
        """Send rejected records and the batch that follows them, when there is room.

        Raises:
            StepCancelledError: the step is not wanted any more.
        """
        follows = batch is not None or self._kind != "source"
        for one in rejected:
            self._send_counted(
                channel.RejectedRecord(
                    reason=said(one.reason, MAX_REASON),
                    detail=said(one.detail, MAX_DETAIL),
                    position=short(one.position),
                    more=follows,
                )
            )
        if batch is not None:
            self.send_batch(batch, None)

    def send_batch(self, batch: Batch, artifact: Artifact | None) -> None:
        """Send a batch inline, or where it was stored as an artifact its reference."""
        refuse_secrets(batch.data, "a record")
        message = channel.Records(
            count=batch.count,
            sha256=batch.digest() if artifact else _NO_DIGEST,
            checkpoint=batch.checkpoint,
            artifact=artifact,
            more=self._kind != "source",
        )
        self._send_counted(message, b"" if artifact else batch.data)

    def begin_member(self, seconds: float | None) -> None:
        """The next small call begins: its deadline counts from now.

        Raises:
            StepCancelledError: the step is not wanted any more.
        """
        self._stop_if_cancelled()
        self._ends_at = None if seconds is None else time.monotonic() + seconds

    def member_ended(self, problem: Problem | None, result: bytes) -> None:
        """Tell how a small call ended, before the next one begins: a crash is then that one's."""
        with self._state:
            self._await_room(len(result))
        sent = self._line.send_now(channel.MemberEnded(problem=problem), result)
        with self._state:
            self._unacknowledged += sent

    def ask(self, question: channel.Question, body: bytes = b"") -> "queue.SimpleQueue[Answered]":
        """Send a question; `wait` for its answer with what this returns."""
        answers: queue.SimpleQueue[Answered] = queue.SimpleQueue()
        self._answers[question.call] = answers
        self._send(question, body)
        return answers

    def wait(self, answers: "queue.SimpleQueue[Answered]") -> bytes:
        """Wait for the answer and return its body.

        Raises:
            RemoteError: the platform refused or could not be reached.
            StepCancelledError: the step is not wanted any more.
        """
        while True:
            try:
                answer, body = answers.get(timeout=_ASK_POLL_S)
            except queue.Empty:
                self._stop_if_cancelled()
                continue
            if answer.problem is not None:
                raise RemoteError(answer.problem)
            return body

    def call(self, question: Question) -> bytes:
        """Ask another worker and wait for its answer.

        Raises:
            RemoteError: it was refused, or ended with a problem.
            StepCancelledError: the step is not wanted any more.
        """
        message = channel.Call(
            call=self.next_call(),
            capability=question.capability,
            options=question.options,
            name=question.name,
            submit=question.submit,
            how=question.how,
        )
        return self.wait(self.ask(message, question.document))

    async def call_async(self, question: Question) -> bytes:
        """There is no loop here."""
        message = f"`context.call({question.capability!r}, …)` in a capability that is not async"
        raise ConfigurationError(message)

    def next_call(self) -> int:
        """A number for a question."""
        with self._state:
            self._calls += 1
            return self._calls

    def cancelled(self) -> bool:
        """Whether the step is not wanted any more."""
        return self._cancelled

    def progress(self, done: int, total: int, unit: str) -> None:
        """Tell how far the step is; words within a second are left out."""
        now = time.monotonic()
        if now - self._told_at >= PROGRESS_S or done == total:
            self._told_at = now
            self._send(
                channel.Progress(
                    done=counted(done), total=counted(total), unit=said(unit, MAX_REASON)
                )
            )

    def log(self, level: str, event: str, fields: Mapping[str, object]) -> None:
        """Send a line of the log; of a flood only the beginning."""
        self._lines += 1
        line = within_limit(self._lines, level, event, fields)
        if line is None:
            return
        level, event, fields = line
        message = channel.LogLine(
            level=level,
            message=said(event, MAX_DETAIL),
            fields=printable(fields),
        )
        with self._state:
            self._unacknowledged += self._send(message, now=self._grouped)

    def remaining_s(self) -> float | None:
        """Seconds until the deadline."""
        return None if self._ends_at is None else max(0.0, self._ends_at - time.monotonic())

    def _send_counted(
        self, message: channel.Records | channel.RejectedRecord, body: bytes = b""
    ) -> None:
        with self._state:
            self._await_room(len(body))
            self._unacknowledged += self._send(message, body)

    def _send(self, message: channel.FromExecutor, body: bytes = b"", *, now: bool = False) -> int:
        with self._state:  # whatever is sent after `close` would be taken for the next step's
            if self._over:
                raise StepCancelledError
            send = self._line.send_now if now else self._line.send
            return send(message, body)

    def _await_room(self, size: int) -> None:
        self._stop_if_cancelled()
        told = False
        while self._unacknowledged > 0 and self._unacknowledged + size > channel.CREDIT_BYTES:
            if not told:
                self._line.send(channel.Suspended())
                told = True
            self._state.wait()
            self._stop_if_cancelled()

    def _stop_if_cancelled(self) -> None:
        if self._cancelled:
            raise StepCancelledError


def _with_digest(message: channel.FromExecutor, body: bytes) -> channel.FromExecutor:
    """Reckon the digest of a batch beside the author's code: it needs no interpreter."""
    if isinstance(message, channel.Records) and message.sha256 == _NO_DIGEST:
        return replace(message, sha256=hashlib.sha256(body).hexdigest())
    return message


def within_limit(
    number: int, level: str, event: str, fields: Mapping[str, object]
) -> tuple[str, str, Mapping[str, object]] | None:
    """The line with this number of a request, where it is sent; the last one says that it is."""
    if number > MAX_LOG_LINES:
        return None
    if number == MAX_LOG_LINES:
        return "warning", "log_truncated", {"lines": MAX_LOG_LINES}
    return level, event, fields


def printable(fields: Mapping[str, object]) -> bytes:
    """The fields of a log line as JSON, whatever they are; large ones are left out."""
    try:
        data = encode(fields)
    except UNWRITABLE:
        said_of = {
            said(name, MAX_REASON): said(value, MAX_DETAIL) for name, value in fields.items()
        }
        data = encode(said_of)
    data = REDACTOR.masked_bytes(data)
    return data if len(data) <= MAX_FIELDS_BYTES else encode({"fields_left_out": len(data)})


def short(position: object) -> bytes:
    """The position of a rejected record as JSON, whatever it is."""
    try:
        data = encode(position)
    except UNWRITABLE:
        data = encode(said(position, MAX_DETAIL))
    data = REDACTOR.masked_bytes(data)
    return data if len(data) <= MAX_FIELDS_BYTES else encode(said(position, MAX_DETAIL))
