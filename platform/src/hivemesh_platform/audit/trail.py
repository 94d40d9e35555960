"""The audit trail of a running platform: records that are durable before the action, notes soon after.

One thread writes. Records that wait at the same moment share the fsync of the trail and that of its end.
"""

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import structlog
from hivemesh_sdk.clock import Clock

from hivemesh_platform.audit.checkpoints import Head, Sink
from hivemesh_platform.audit.errors import AuditUnavailableError, EndUntoldError
from hivemesh_platform.audit.keys import AuditKeys
from hivemesh_platform.audit.model import AuditEvent
from hivemesh_platform.audit.notes import Notes
from hivemesh_platform.audit.writer import TRAIL, Bounds, End, Entry, Writer

T = TypeVar("T")

FOLDER = "audit"
NOTES_EVERY_S = 0.5
STOPPING = "the platform is stopping"
GROUP_LIMIT = 512  # records in one fsync


@dataclass(slots=True)
class Counters:
    """What the metrics show."""

    records: int = 0
    refused: int = 0  # security actions that could not be written down
    dropped: int = 0  # notes that could not be
    checkpoint_failures: int = 0


@dataclass(frozen=True, slots=True)
class _Job:
    """Entries to write, or a function to run between two writes."""

    entries: Sequence[Entry] = ()
    lost: int = 0  # notes that found no room
    noted: bool = False  # nobody waits for it
    work: Callable[[Writer], None] | None = None
    done: "Future[None]" = field(default_factory=Future)


class AuditLog:
    """The audit trail of one state folder. Made by `open_trail`."""

    def __init__(self, folder: Path, writer: Writer, keys: AuditKeys, clock: Clock) -> None:
        self.folder = folder
        self.counters = Counters()
        self.keys = keys
        self._writer = writer
        self._clock = clock
        self._notes = Notes()
        self._failure = ""  # this and the next one are the thread's own
        self._lost = 0  # notes that could not be written; the thread's own
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="audit-writer", daemon=True)
        self._log = structlog.get_logger("hivemesh.audit")
        self._open = True
        self._thread.start()

    @property
    def problem(self) -> str:
        """Why it cannot be written, or what was wrong with it at the start; empty where all is well."""
        damage = self._writer.damage
        return self._failure or (f"damaged: {damage}" if damage else "")

    async def record(self, event: AuditEvent, at: datetime | None = None) -> None:
        """Write a security action down; durable when this returns, so the action may follow.

        `at` is when it happened, if that is not now.

        Raises:
            AuditUnavailableError: it cannot be made durable; the action must not happen.
        """
        if not self._open:
            raise AuditUnavailableError(STOPPING)
        job = _Job(entries=(Entry(_bound(event), at or self._clock.now()),))
        self._queue.put(job)
        try:
            await asyncio.shield(asyncio.wrap_future(job.done))
        except OSError as error:
            self.counters.refused += 1
            message = f"the audit trail cannot be written: {_words(error)}"
            raise AuditUnavailableError(message, delay_s=5.0) from error

    def note(self, event: AuditEvent) -> None:
        """Write an event of the data plane down within a second; never raises, never waits."""
        if not self._notes.add(_bound(event), self._clock.now()):
            return
        try:
            asyncio.get_running_loop().call_later(NOTES_EVERY_S, self._flush)
        except RuntimeError:  # nobody waits: not called from a loop
            self._flush()

    async def run_in_thread(self, work: Callable[[Writer], T]) -> T:
        """Run a function on the writer, between two writes.

        Raises:
            AuditUnavailableError: the trail is closed.
        """
        if not self._open:
            raise AuditUnavailableError(STOPPING)
        done: Future[T] = Future()
        self._queue.put(_Job(work=lambda writer: _run(done, work, writer)))
        return await asyncio.shield(asyncio.wrap_future(done))

    async def end(self) -> End:
        """The last record, after all that was noted before."""
        self._flush()
        return await self.run_in_thread(lambda writer: writer.end)

    async def checkpoint(self) -> None:
        """Sign what is durable now."""
        self._flush()
        await self.run_in_thread(Writer.checkpoint)

    async def drop_before(self, age: timedelta) -> list[Head]:
        """Remove sealed segments that are older; they leave their heads."""
        when = self._clock.now() - age
        return await self.run_in_thread(lambda writer: writer.drop_before(when))

    async def close(self) -> None:
        """Write what is left, with a checkpoint over it."""
        self._flush()
        self._open = False
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _flush(self) -> None:
        entries, lost = self._notes.take()
        if (entries or lost) and self._open:
            self._queue.put(_Job(entries=entries, lost=lost, noted=True))

    def _run(self) -> None:
        ending = False
        while not ending:
            group, ending = self._next()
            self._serve(group)
            self.counters.checkpoint_failures = self._writer.checkpoint_failures
        self._writer.close()

    def _next(self) -> tuple[list[_Job], bool]:
        """Jobs that wait; the first of them is waited for until a checkpoint is due."""
        group: list[_Job] = []
        try:
            while len(group) < GROUP_LIMIT:
                timeout = None if group else self._writer.due_in()
                job = self._queue.get(not group, timeout)
                if job is None:
                    return group, True
                group.append(job)
        except queue.Empty:
            if not group:
                self._writer.checkpoint()
        return group, False

    def _serve(self, group: Sequence[_Job]) -> None:
        waiting: list[_Job] = []
        for job in group:
            if job.work is None:
                waiting.append(job)
                continue
            self._write(waiting)
            waiting = []
            job.work(self._writer)
        self._write(waiting)

    def _write(self, jobs: Sequence[_Job]) -> None:
        entries = [entry for job in jobs for entry in job.entries]
        self._lose(sum(job.lost for job in jobs))
        if not entries and not self._lost:
            return
        told = [_dropped(self._lost, self._clock.now())] if self._lost else []
        try:
            self._writer.write([*told, *entries])
        except Exception as error:  # noqa: BLE001 - handed to the waiting tasks
            if isinstance(error, EndUntoldError):  # the notes are in the trail
                self._lost = 0
            else:
                self._lose(sum(entry.count for job in jobs if job.noted for entry in job.entries))
            if not self._failure:
                self._log.error("audit_unavailable", error=str(error), records=len(entries))
            self._failure = f"cannot be written: {_words(error)}"
            for job in jobs:
                job.done.set_exception(error)
            return
        if self._failure:
            self._log.warning("audit_available_again", lost=self._lost)
        self._failure, self._lost = "", 0
        self.counters.records += len(entries)
        for job in jobs:
            job.done.set_result(None)

    def _lose(self, count: int) -> None:
        """Remember notes that could not be written, to be told when it works again."""
        self._lost += count
        self.counters.dropped += count


@asynccontextmanager
async def open_trail(
    folder: Path, keys: AuditKeys, sink: Sink, clock: Clock, bounds: Bounds | None = None
) -> AsyncIterator[AuditLog]:
    """Open the trail of a folder; one process at a time, which holds the state folder's lock."""
    writer = await asyncio.to_thread(Writer, folder, keys, sink, clock, bounds or Bounds())
    trail = AuditLog(folder, writer, keys, clock)
    try:
        yield trail
    finally:
        await trail.close()


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _bound(event: AuditEvent) -> AuditEvent:
    """The event with the request that the log is bound to."""
    if event.request_id:
        return event
    known = structlog.contextvars.get_contextvars().get("request_id", "")
    return replace(event, request_id=str(known)) if known else event


def _dropped(count: int, at: datetime) -> Entry:
    event = AuditEvent(actor=TRAIL, action="trail:notes-dropped", decision="deny")
    return Entry(event, at, count)


def _run(done: "Future[T]", work: Callable[[Writer], T], writer: Writer) -> None:
    try:
        done.set_result(work(writer))
    except BaseException as error:  # noqa: BLE001 - handed to the waiting task
        done.set_exception(error)
