"""Where the trail stands when it is opened: the last record, and what a crash has left behind it.

Nothing is rewritten. A line that a crash has torn stays where it is, closed off by the record
`trail:recovered`, which names its length and digest.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from hivemesh_platform.audit import records
from hivemesh_platform.audit.checkpoints import Checkpoint, head_of
from hivemesh_platform.audit.keys import AuditKeys
from hivemesh_platform.audit.records import GENESIS, Record
from hivemesh_platform.audit.segments import Line, Segment, lines, segments

TORN = "sha256:"


@dataclass(frozen=True, slots=True)
class Position:
    """Where the next record goes."""

    segment: int  # its first number
    size: int  # bytes of its file
    seq: int  # of the last record
    hash: str
    since: str = ""  # time of the segment's first record
    torn: str = ""  # `sha256:<digest>:<bytes>` of what a crash left at its end
    closed: bool = True  # whether the file ends with a newline
    damage: str = ""  # what cannot have come from a crash


@dataclass(slots=True)
class _Scan:
    """What was seen of one segment."""

    sink: Checkpoint | None
    last: Record | None = None
    since: str = ""
    size: int = 0
    tail: bytes = b""  # what stands behind the last record
    closed: bool = True
    damage: str = ""


def find(folder: Path, keys: AuditKeys, sink: Checkpoint | None) -> Position:
    """Look at the newest files; `sink` is the last record that the second place knows.

    Where records up to that one are missing the trail goes on behind it, with its hash: the gap stays.
    """
    known = segments(folder)
    newest = known[-1] if known else None
    if newest is None:
        return _checked(Position(1, 0, 0, GENESIS), sink)
    if newest.dropped:
        return _checked(_behind_head(newest, keys), sink)
    return _checked(_in_segment(known, newest, keys, sink), sink)


def torn_object(data: bytes) -> str:
    """How `trail:recovered` names what it closes off."""
    return f"{TORN}{hashlib.sha256(data).hexdigest()}:{len(data)}"


def is_torn(data: bytes) -> bool:
    """Whether bytes can be what a crash leaves: the beginning of a record, or space never written."""
    rest = data.strip(b"\0")
    return not rest or (rest.startswith(b"{") and records.read(rest) is None)


def _behind_head(newest: Segment, keys: AuditKeys) -> Position:
    head = head_of(newest.head, keys.public)
    if head is None:
        damage = f"the segment from {newest.first} on is missing, and so is its signed head"
        return Position(newest.first + 1, 0, newest.first, GENESIS, damage=damage)
    damage = f"the records from {head.last + 1} on are missing"
    return Position(head.last + 1, 0, head.last, head.hash, damage=damage)


def _in_segment(
    known: list[Segment], newest: Segment, keys: AuditKeys, sink: Checkpoint | None
) -> Position:
    scan = _scan(newest, sink)
    seq, last = newest.first - 1, GENESIS
    if scan.last is not None:
        seq, last = scan.last.seq, scan.last.hash
    elif len(known) > 1:
        seq, last = _end_of(known[-2], keys) or (seq, last)
    return Position(
        segment=newest.first,
        size=scan.size,
        seq=seq,
        hash=last,
        since=scan.since,
        torn=torn_object(scan.tail.removesuffix(b"\n")) if scan.tail else "",
        closed=scan.closed,
        damage=scan.damage,
    )


def _end_of(segment: Segment, keys: AuditKeys) -> tuple[int, str] | None:
    head = head_of(segment.head, keys.public)
    if head is not None:
        return head.last, head.hash
    last = None if segment.dropped else _scan(segment, None).last
    return None if last is None else (last.seq, last.hash)


def _scan(segment: Segment, sink: Checkpoint | None) -> _Scan:
    scan = _Scan(sink)
    for line in lines(segment.path):
        scan.size = line.offset + len(line.data) + line.complete
        scan.closed = line.complete
        record = records.read(line.data)
        if record is None or not (line.complete or records.intact(line.data, record)):
            scan.tail += line.data + (b"\n" if line.complete else b"")
        else:
            _take(scan, line, record)
    if scan.tail and not is_torn(scan.tail.removesuffix(b"\n")):
        scan.damage = scan.damage or "the end of the last segment is no record"
    return scan


def _take(scan: _Scan, line: Line, record: Record) -> None:
    closes = record.action == "trail:recovered" and record.object == torn_object(
        scan.tail.removesuffix(b"\n")
    )
    if scan.tail and not closes:
        scan.damage = scan.damage or f"a line before record {record.seq} is no record"
    if not records.intact(line.data, record):
        scan.damage = scan.damage or f"record {record.seq} was changed"
    if scan.last is not None and (record.seq, record.prev) != (scan.last.seq + 1, scan.last.hash):
        scan.damage = scan.damage or f"record {record.seq} does not follow {scan.last.seq}"
    told = scan.sink
    if told is not None and told.seq == record.seq and told.hash != record.hash:
        scan.damage = scan.damage or f"record {record.seq} is not the one that was told"
    scan.tail = b""
    scan.since = scan.since or record.ts
    scan.last = record


def _checked(position: Position, sink: Checkpoint | None) -> Position:
    if sink is None or sink.seq <= position.seq:
        return position
    missing = f"the records {position.seq + 1} to {sink.seq} are missing"
    damage = f"{position.damage}; {missing}" if position.damage else missing
    return replace(position, seq=sink.seq, hash=sink.hash, damage=damage)
