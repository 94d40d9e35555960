"""Writes the files of the trail. Used by one thread, which owns an open trail.

A group of records is one write and one fsync; then its end is told to the second place, and then
whoever waits hears of it. What could not be made durable is taken back before. Records whose end could
not be told stay: the second place may name them already.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog
from hivemesh_sdk.clock import Clock
from pydantic import JsonValue

from hivemesh_platform.audit import records, recovery
from hivemesh_platform.audit.checkpoints import (
    Checkpoint,
    Head,
    Sink,
    append,
    head_of,
    is_absent,
    last_checkpoint,
    signed,
)
from hivemesh_platform.audit.end import EndFile, told
from hivemesh_platform.audit.errors import EndUntoldError
from hivemesh_platform.audit.keys import AuditKeys
from hivemesh_platform.audit.model import AuditEvent
from hivemesh_platform.audit.segments import Segment, lines, segments, sync_folder, write_durably

CHECKPOINT_RECORDS = 1000
CHECKPOINT_S = 60.0
SEGMENT_BYTES = 8 * 1024 * 1024  # a start reads the newest segment: 0.2 s
SEGMENT_AGE = timedelta(days=1)
TRAIL = "trail"  # the actor of what the trail says of itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """When a checkpoint is due and when a segment is full."""

    checkpoint_records: int = CHECKPOINT_RECORDS
    checkpoint_s: float = CHECKPOINT_S
    segment_bytes: int = SEGMENT_BYTES
    segment_age: timedelta = SEGMENT_AGE


@dataclass(frozen=True, slots=True)
class Entry:
    """An event that waits to be written."""

    event: AuditEvent
    at: datetime
    count: int = 1


@dataclass(frozen=True, slots=True)
class End:
    """The last record of a trail."""

    seq: int
    hash: str


class Writer:
    """The end of a trail, open for writing."""

    def __init__(
        self, folder: Path, keys: AuditKeys, sink: Sink, clock: Clock, bounds: Bounds
    ) -> None:
        self._folder = folder
        self._keys = keys
        self._sink = sink
        self._clock = clock
        self._bounds = bounds
        self._descriptor = -1
        self._torn: list[Entry] = []  # closes off what a crash has left; written first
        self._notices: list[Entry] = []  # what else the trail has to say of itself
        self._until = ""
        self._pending_line = ""  # a checkpoint that the second place has not taken yet
        self._covered = End(0, "")
        self._covered_at = clock.monotonic()
        self._log = structlog.get_logger("hivemesh.audit")
        self.checkpoint_failures = 0
        self.damage = ""  # what was missing or wrong when the trail was opened
        known = last_checkpoint(sink.path, keys.public)
        last = told(sink.end, keys.public)
        end = last.end if last else None
        self._end_file = EndFile(sink.end, last)
        self._told = End(end.seq, end.hash) if end else None
        self._take(recovery.find(folder, keys, _later(known, end)))
        self._covered = End(min(known.seq, self.end.seq), "") if known else self._covered
        if self.damage and last is not None and last.line:
            self._keep(last.line)
        self._look_for_second_place(known)

    @property
    def end(self) -> End:
        """The last durable record."""
        return End(self._seq, self._hash)

    def write(self, entries: Sequence[Entry]) -> None:
        """Write records, make them durable, and tell their end.

        Raises:
            EndUntoldError: they are durable, but their end is not told.
            OSError: they are not durable, and none of them is in the trail.
        """
        if self._descriptor < 0:
            self._open()
        self._tell_end()  # before the first record, and where the last group's was not told
        if not self._torn and self._is_full(entries[0].at if entries else self._clock.now()):
            self._roll()
        notices = list(self._notices)
        self._append([*self._torn, *notices, *entries])
        self._torn, self._notices = [], self._notices[len(notices) :]
        try:
            self._tell_end()
        except OSError as error:
            raise EndUntoldError(error.errno, f"second place: {error.strerror}") from error
        if self.end.seq - self._covered.seq >= self._bounds.checkpoint_records:
            self.checkpoint()

    def due_in(self) -> float | None:
        """Seconds until a checkpoint has to be written; None where all is covered."""
        if self.end.seq == self._covered.seq and not self._pending_line:
            return None
        passed = self._clock.monotonic() - self._covered_at
        return max(0.0, self._bounds.checkpoint_s - passed)

    def checkpoint(self) -> None:
        """Sign what is durable and tell it to both places; a failure is logged and repeated."""
        self._covered_at = self._clock.monotonic()
        if self.end.seq > self._covered.seq:
            document = Checkpoint(
                seq=self._seq, hash=self._hash, ts=records.time_text(self._clock.now())
            )
            line = signed(self._keys.signing, document)
            if not self._tell(lambda: append(self._segment.checkpoints, line)):
                return
            self._covered, self._pending_line = self.end, line
        line = self._pending_line
        if line and self._tell(lambda: self._sink.write(line)):
            self._pending_line = ""

    def drop_before(self, when: datetime) -> list[Head]:
        """Remove sealed segments whose last record is older; their heads stay.

        Raises:
            OSError: that could not be written down, and nothing was removed.
        """
        dropped: list[Head] = []
        limit = records.time_text(when)
        for segment in segments(self._folder):
            if segment.dropped:
                continue
            head = head_of(segment.head, self._keys.public)
            if segment.first == self._segment.first or head is None or head.until >= limit:
                break
            self.write([self._of_itself("trail:dropped", records_object(head.first, head.last))])
            segment.path.unlink()
            segment.checkpoints.unlink(missing_ok=True)
            dropped.append(head)
        if dropped:
            sync_folder(self._folder)
        return dropped

    def close(self) -> None:
        """Write the last checkpoint and let go of the file."""
        if self._descriptor >= 0:
            self.checkpoint()
            os.close(self._descriptor)
            self._descriptor = -1

    def _take(self, position: recovery.Position) -> None:
        self._segment = Segment(position.segment, self._folder)
        self._size, self._closed = position.size, position.closed
        self._seq, self._hash, self._since = position.seq, position.hash, position.since
        self._torn = []
        if position.torn:
            self._torn = [self._of_itself("trail:recovered", position.torn)]
        if position.damage:
            self._damaged(position.damage)

    def _keep(self, line: str) -> None:
        """Have the end that does not fit the files stay: it is signed as a checkpoint is."""
        self._tell(lambda: append(self._segment.checkpoints, line))
        self._tell(lambda: self._sink.write(line))

    def _look_for_second_place(self, checkpoint: Checkpoint | None) -> None:
        """Tell, in the trail too, when it is not where it was written before; it begins anew."""
        place = self._sink.path
        known = any(not is_absent(one.checkpoints) for one in segments(self._folder))
        if place is not None and is_absent(place) and known:
            self._damaged(f"the second copy of the checkpoints is not there: {place}")
        elif self._told is None and self._seq:
            self._damaged(f"the end of the trail is not told in its second place: {self._sink.end}")
        elif self._told is not None and checkpoint is not None and self._told.seq < checkpoint.seq:
            self._damaged(
                f"the end in the second place is older than its checkpoints: {self._sink.end}"
            )
        elif self._told is not None and self._told.seq < self._seq:
            target = records_object(self._told.seq + 1, self._seq)
            self._notices.append(self._of_itself("trail:unanswered", target))

    def _damaged(self, damage: str) -> None:
        self._log.error("audit_trail_damaged", damage=damage)
        self.damage = self.damage or damage
        self._notices.append(self._of_itself("trail:damaged", reason=damage))

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = not self._segment.path.exists()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._segment.path, flags, 0o600)
        try:
            if new:
                sync_folder(self._folder)
            self._segment.head.unlink(missing_ok=True)  # of a sealing that a crash has ended
            if not self._closed:
                write_durably(descriptor, b"\n", self._size)
                self._size, self._closed = self._size + 1, True
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def _is_full(self, now: datetime) -> bool:
        if not self._since:
            return False
        age = now - datetime.fromisoformat(self._since)
        return self._size >= self._bounds.segment_bytes or age >= self._bounds.segment_age

    def _roll(self) -> None:
        """Seal the segment and begin the next one."""
        self.checkpoint()
        head = self._head()
        text = signed(self._keys.signing, head)
        self._segment.head.unlink(missing_ok=True)
        append(self._segment.head, text)
        os.close(self._descriptor)
        self._descriptor = -1
        self._segment = Segment(self._seq + 1, self._folder)
        self._size, self._since = 0, ""
        self._open()

    def _head(self) -> Head:
        read = (records.read(line.data) for line in lines(self._segment.path))
        first = next(record for record in read if record is not None)  # a torn line may precede
        return Head(
            first=first.seq,
            last=self._seq,
            prev=first.prev,
            hash=self._hash,
            since=first.ts,
            until=self._until,
        )

    def _append(self, entries: Sequence[Entry]) -> None:
        seq, last, blocks = self._seq, self._hash, []
        for entry in entries:
            seq += 1
            data, last = records.line(self._members(entry), seq, last)
            blocks.append(data)
        if not blocks:
            return
        data = b"\n".join([*blocks, b""])
        try:
            write_durably(self._descriptor, data, self._size)
        except OSError:
            self._reopen()
            raise
        self._size += len(data)
        self._seq, self._hash = seq, last
        self._since = self._since or records.time_text(entries[0].at)
        self._until = records.time_text(entries[-1].at)

    def _tell_end(self) -> None:
        """Tell the last record to the second place, if that does not know it.

        Raises:
            OSError: it is not told durably.
        """
        if self._told == self.end:
            return
        document = Checkpoint(
            seq=self._seq, hash=self._hash, ts=records.time_text(self._clock.now())
        )
        line = signed(self._keys.signing, document)
        try:
            self._end_file.write(line)
        except FileNotFoundError:
            if self._told is not None:
                self._damaged(
                    f"the file with the end of the trail was taken away: {self._sink.end}"
                )
            self._end_file.make(line)
        self._told = self.end

    def _members(self, entry: Entry) -> dict[str, JsonValue]:
        return records.members(entry.event, entry.at, self._keys.hmac, entry.count)

    def _reopen(self) -> None:
        """Look at the file again where the last write could not be taken back."""
        if os.fstat(self._descriptor).st_size != self._size:
            os.close(self._descriptor)
            self._descriptor = -1
            self._take(recovery.find(self._folder, self._keys, None))

    def _of_itself(self, action: str, target: str = "", reason: str = "") -> Entry:
        event = AuditEvent(actor=TRAIL, action=action, target=target, reason=reason)
        return Entry(event, self._clock.now().astimezone(UTC))

    def _tell(self, write: Callable[[], None]) -> bool:
        try:
            write()
        except OSError as error:
            self.checkpoint_failures += 1
            self._log.error("audit_checkpoint_failed", error=str(error))
            return False
        return True


def records_object(first: int, last: int) -> str:
    """How the trail names records of its own."""
    return f"records:{first}-{last}"


def dropped_last(target: str) -> int:
    """The last record of what `trail:dropped` names; 0 where it names nothing."""
    last = target.removeprefix("records:").rpartition("-")[2]
    return int(last) if last.isdecimal() else 0


def _later(one: Checkpoint | None, other: Checkpoint | None) -> Checkpoint | None:
    """What names the higher record."""
    known = [each for each in (one, other) if each is not None]
    return max(known, key=lambda each: each.seq, default=None)
