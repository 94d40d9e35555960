"""Verifies a trail: every hash, every link, every number, and every checkpoint of both places.

Works on a folder of files alone; the platform need not run. Only reads, and keeps no more in memory
than the checkpoints of the second place.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hivemesh_sdk.trust.jws import VerifyKey
from pydantic import JsonValue

from hivemesh_platform.audit import end as second
from hivemesh_platform.audit import records, recovery
from hivemesh_platform.audit.checkpoints import (
    Checkpoint,
    checkpoints,
    end_beside,
    head_of,
    is_absent,
)
from hivemesh_platform.audit.keys import public_keys
from hivemesh_platform.audit.records import GENESIS, Record
from hivemesh_platform.audit.segments import Segment, lines, segments
from hivemesh_platform.audit.writer import TRAIL, dropped_last

LET_OTHERS = 32  # records between two moments in which other threads get the interpreter
YOUNG = 1000  # records after which there is a checkpoint
UNPROVEN = 2048  # records behind the last checkpoint: more than a crash can leave


@dataclass(frozen=True, slots=True)
class Finding:
    """The first record that does not hold, and why."""

    seq: int
    kind: str  # changed, missing, inserted, unreadable, rewritten, checkpoint or unproven
    detail: str


class BrokenError(Exception):
    """The first finding; it ends the reading."""

    def __init__(self, seq: int, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.finding = Finding(seq, kind, detail)


@dataclass(slots=True)
class Report:
    """What a verification has seen."""

    records: int = 0
    first: int = 0
    last: int = 0
    checkpoints: int = 0  # that fit
    proven: int = 0  # the last record that a checkpoint covers
    dropped: int = 0  # records that were dropped by their age
    recovered: int = 0  # lines that a crash has torn
    keys: list[str] = field(default_factory=list)  # ids of those that signed
    remarks: list[str] = field(default_factory=list)
    finding: Finding | None = None


class Walk:
    """Goes along a chain, record by record."""

    def __init__(self, report: Report, seq: int = 0, prev: str = GENESIS) -> None:
        self.report = report
        self.seq = seq  # of the last record that holds
        self.hash = prev
        self.gone: dict[int, int] = {}  # last: first of segments whose dropping was not told yet
        self._tail = b""  # lines that are no records
        self._anchors: dict[int, str] = {}
        self.known: Checkpoint | None = None  # the last record as the platform itself knows it
        self.told: Checkpoint | None = None  # and as the second place does

    def expect(self, anchors: Iterable[Checkpoint]) -> None:
        """Compare these records with what was signed, when they come.

        Raises:
            BrokenError: two checkpoints contradict each other.
        """
        for one in anchors:
            if self._anchors.setdefault(one.seq, one.hash) != one.hash:
                detail = "two checkpoints name different records"
                raise BrokenError(self.report.proven + 1, "checkpoint", detail)

    def take(self, data: bytes, *, complete: bool = True) -> None:
        """The next line.

        Raises:
            BrokenError: it does not continue the chain.
        """
        record = records.read(data)
        if record is None or not (complete or records.intact(data, record)):
            self._tail += data + (b"\n" if complete else b"")
            return
        if self._tail:
            self._close_off(record)
        self._check(data, record)
        self.seq, self.hash = record.seq, record.hash
        self.report.records += 1
        self.report.first = self.report.first or record.seq
        self.report.last = record.seq
        if record.actor == TRAIL and record.action == "trail:dropped":
            self._told(record.object)
        self._compare(record)

    def skip(self, head_seq: int, head_hash: str) -> None:
        """Go on behind records that are not here."""
        self.report.dropped += head_seq - self.seq
        self.seq, self.hash = head_seq, head_hash

    def end(self, *, last: bool) -> None:
        """The end of a file; in the `last` one a crash may have left something.

        Raises:
            BrokenError: what stands there is no record.
        """
        if not self._tail:
            return
        if not last or not recovery.is_torn(self._tail.removesuffix(b"\n")):
            raise BrokenError(self.seq + 1, "unreadable", "the line is no record")
        self.report.remarks.append("the last line is torn; the next start closes it off")
        self._tail = b""

    def finish(self) -> None:
        """All was read.

        Raises:
            BrokenError: something that was signed is not there.
        """
        beyond = [seq for seq in self._anchors if seq > self.seq]
        if self.known is not None and self.known.seq > self.seq:
            detail = f"the end was cut off: the platform has written record {self.known.seq}"
            raise BrokenError(self.seq + 1, "missing", detail)
        if self.told is not None and self.told.seq > self.seq:
            gone = _named(self.seq + 1, self.told.seq)
            detail = f"the end was cut off: {gone} missing, as the second place knows"
            raise BrokenError(self.seq + 1, "missing", detail)
        if beyond:
            detail = f"the end was cut off: a checkpoint names record {max(beyond)}"
            raise BrokenError(self.seq + 1, "missing", detail)
        if self.gone:
            detail = "the segment was removed, and not because of its age"
            raise BrokenError(min(self.gone.values()), "missing", detail)
        if self.seq - max(self.report.proven, self.report.dropped) > UNPROVEN:
            detail = f"no checkpoint covers the records {self.report.proven + 1} to {self.seq}"
            raise BrokenError(self.report.proven + 1, "unproven", detail)

    def _told(self, target: str) -> None:
        """Segments go in order: who tells of one tells of those before it, whose record may be gone."""
        told = dropped_last(target)
        self.gone = {last: first for last, first in self.gone.items() if last > told}

    def _close_off(self, record: Record) -> None:
        torn = self._tail.removesuffix(b"\n")
        closes = (record.actor, record.action) == (TRAIL, "trail:recovered")
        if not closes or record.object != recovery.torn_object(torn) or not recovery.is_torn(torn):
            raise BrokenError(self.seq + 1, "unreadable", "the line is no record")
        self.report.recovered += 1
        self._tail = b""

    def _check(self, data: bytes, record: Record) -> None:
        expected = self.seq + 1
        if not records.intact(data, record):
            raise BrokenError(expected, "changed", "the hash does not fit the record")
        if record.seq > expected:
            detail = f"record {record.seq} stands in its place"
            raise BrokenError(expected, "missing", detail)
        if record.seq < expected:
            detail = f"a record with the number {record.seq} stands behind {self.seq}"
            forged = record.seq == self.seq and record.hash != self.hash  # two claim the number
            raise BrokenError(self.seq if forged else expected, "inserted", detail)
        if record.prev != self.hash:
            detail = "it does not follow the record before it"
            raise BrokenError(expected, "inserted", detail)

    def _compare(self, record: Record) -> None:
        known = self.known
        if known is not None and known.seq == record.seq and known.hash != record.hash:
            detail = f"the records up to {record.seq} are not those that the platform wrote"
            raise BrokenError(self.report.proven + 1, "rewritten", detail)
        told = self.told
        if told is not None and told.seq == record.seq:
            if told.hash != record.hash:
                first = self.report.proven + 1
                detail = f"the records {first} to {record.seq} are not those that were told"
                raise BrokenError(first, "rewritten", detail)
            self.report.proven = record.seq
        expected = self._anchors.pop(record.seq, None)
        if expected is None:
            return
        if expected != record.hash:
            first = self.report.proven + 1
            detail = f"the records {first} to {record.seq} are not those that were signed"
            raise BrokenError(first, "rewritten", detail)
        self.report.checkpoints += 1
        self.report.proven = record.seq


def verify(
    folder: Path,
    sink: Path | None = None,
    *,
    told: Path | None = None,
    key: str = "",
    end: Checkpoint | None = None,
) -> Report:
    """Verify a folder.

    Args:
        folder: the folder with the segments.
        sink: the second copy of the checkpoints.
        told: the file with the end in the second place; by default beside the second copy.
        key: id of the only key that may have signed; by default those that the folder names.
        end: the last record as the running platform knows it.
    """
    report = Report()
    keys = {one: known for one, known in public_keys(folder).items() if key in {"", one}}
    report.keys = sorted(keys)
    place = told or (end_beside(sink) if sink else None)
    try:
        _verify(folder, _Second(sink, place, keys), end, Walk(report))
    except BrokenError as error:
        report.finding = error.finding
    return report


def as_document(report: Report) -> dict[str, JsonValue]:
    """A report as the API and the command show it."""
    return {"holds": report.finding is None, **asdict(report)}


def read_checkpoints(path: Path, keys: Mapping[str, VerifyKey], last: int) -> Iterator[Checkpoint]:
    """The checkpoints of a file.

    Raises:
        BrokenError: one was not signed by these keys; `last` is the record before it.
    """
    for found in checkpoints(path, keys):
        if found.checkpoint is None:
            detail = f"{found.place} holds no checkpoint that a known key has signed"
            raise BrokenError(last + 1, "checkpoint", detail)
        last = max(last, found.checkpoint.seq)
        yield found.checkpoint


@dataclass(frozen=True, slots=True)
class _Second:
    """The second place: its checkpoints, its end, and who may have signed them."""

    sink: Path | None
    end: Path | None
    keys: Mapping[str, VerifyKey]

    def told(self) -> second.Told | None:
        return second.told(self.end, self.keys) if self.end else None


def _verify(folder: Path, place: _Second, end: Checkpoint | None, walk: Walk) -> None:
    _expect_second_place(place, walk)  # first: what it names is then in the files
    walk.known = end
    known = segments(folder)
    for segment in known:
        if segment.dropped:
            _behind_head(segment, place.keys, walk)
        elif segment.first != walk.seq + 1:
            detail = f"the next file begins with {segment.first}"
            raise BrokenError(walk.seq + 1, "missing", detail)
        else:
            _along(segment, place.keys, walk, last=segment is known[-1])
    walk.finish()
    _check_second_place(place, walk)
    if end is None:
        _look_behind_the_end(place, walk)


def _expect_second_place(place: _Second, walk: Walk) -> None:
    """Read the checkpoints, then the end: it is told before a checkpoint over it is signed.

    Raises:
        BrokenError: one is not signed, or they contradict each other.
    """
    found: list[Checkpoint] = []
    if place.sink is None or is_absent(place.sink):
        walk.report.remarks.append("no second copy of the checkpoints was looked at")
    else:
        found = list(read_checkpoints(place.sink, place.keys, 0))
        walk.expect(found)
    told = place.told()
    if told is None:
        return
    if told.end is None:
        detail = f"{place.end} names no end that a known key has signed"
        raise BrokenError(1, "checkpoint", detail)
    last = max((one.seq for one in found), default=0)
    if told.end.seq < last:
        detail = f"the end in the second place is older than its checkpoint over record {last}"
        raise BrokenError(told.end.seq + 1, "checkpoint", detail)
    if told.unreadable:
        walk.report.remarks.append("one of the two ends in the second place is torn")
    walk.told = told.end


def _check_second_place(place: _Second, walk: Walk) -> None:
    """Without its second place a trail proves nothing against who owns its folder.

    Raises:
        BrokenError: it is configured, has to be there, and is not.
    """
    old = walk.report.checkpoints or walk.seq > YOUNG
    if place.sink is not None and is_absent(place.sink) and old:
        detail = f"the second copy of the checkpoints is not there: {place.sink}"
        raise BrokenError(1, "checkpoint", detail)
    if place.end is not None and walk.told is None and walk.seq:
        detail = f"the end of the trail is not there in its second place: {place.end}"
        raise BrokenError(1, "checkpoint", detail)


def _look_behind_the_end(place: _Second, walk: Walk) -> None:
    """Nobody was answered about records whose end was not told; a crash leaves some."""
    told = place.told()  # again: the platform may have gone on
    if told is not None and told.end is not None and told.end.seq < walk.seq:
        behind = _named(told.end.seq + 1, walk.seq)
        walk.report.remarks.append(
            f"{behind} behind the end in the second place: left by a crash, or added by somebody"
        )


def _named(first: int, last: int) -> str:
    return f"record {first} is" if first == last else f"records {first} to {last} are"


def _behind_head(segment: Segment, keys: Mapping[str, VerifyKey], walk: Walk) -> None:
    head = head_of(segment.head, keys)
    if head is None or (head.first, head.prev) != (walk.seq + 1, walk.hash):
        detail = "the segment is gone, and what it left is not its signed head"
        raise BrokenError(walk.seq + 1, "missing", detail)
    walk.gone[head.last] = head.first
    walk.skip(head.last, head.hash)


def _along(segment: Segment, keys: Mapping[str, VerifyKey], walk: Walk, *, last: bool) -> None:
    walk.expect(list(read_checkpoints(segment.checkpoints, keys, walk.report.proven)))
    for number, line in enumerate(lines(segment.path)):
        walk.take(line.data, complete=line.complete)
        if number % LET_OTHERS == 0:
            time.sleep(0)
    walk.end(last=last)
