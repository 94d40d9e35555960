"""A part of the trail as one file that can be verified alone, and its verification.

NDJSON: first what the file is, then the records byte by byte as they stand in the trail, then the
signed checkpoints among them, and last a signed statement of what the file holds.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec
from hivemesh_sdk.contracts.manifest import canonical_json
from hivemesh_sdk.trust.jws import SignatureInvalidError, VerifyKey, verify, verify_key

from hivemesh_platform.audit import records
from hivemesh_platform.audit.checkpoints import Checkpoint, checkpoint_of, checkpoints, head_of
from hivemesh_platform.audit.errors import AuditDamagedError
from hivemesh_platform.audit.keys import AuditKeys
from hivemesh_platform.audit.records import GENESIS, Record
from hivemesh_platform.audit.segments import lines, segments
from hivemesh_platform.audit.verification import BrokenError, Report, Walk

TYP = "hivemesh-audit-export"
FORMAT = "hivemesh-audit/1"


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """What an export holds; signed at its end."""

    first: int
    last: int
    prev: str  # hash of the record before the first
    hash: str  # of the last
    records: int
    created_at: str


class _Opening(msgspec.Struct, frozen=True, kw_only=True):
    """The first line. The key is told for convenience; who it belongs to is known elsewhere."""

    format: str
    trust_domain: str
    key: bytes
    first: int
    prev: str


class _Line(msgspec.Struct, frozen=True, kw_only=True):
    """A line that is no record."""

    checkpoint: str = ""
    statement: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """What to export: the records of a span of time, as one piece of the chain."""

    trust_domain: str
    now: datetime
    last: int  # the newest durable record
    since: datetime | None = None
    until: datetime | None = None


def export(folder: Path, keys: AuditKeys, span: Span) -> Iterator[bytes]:
    """The lines of an export, each with its newline."""
    first: Record | None = None
    last: Record | None = None
    number = 0
    for data, record in _records(folder, keys, span):
        if first is None:
            first = record
            yield _opening(keys, span, record.seq, record.prev)
        yield data + b"\n"
        last, number = record, number + 1
    if first is None or last is None:
        yield _opening(keys, span, 1, GENESIS)
    else:
        yield from _checkpoints(folder, keys, first.seq, last.seq)
    statement = Statement(
        first=first.seq if first else 0,
        last=last.seq if last else 0,
        prev=first.prev if first else GENESIS,
        hash=last.hash if last else GENESIS,
        records=number,
        created_at=records.time_text(span.now),
    )
    text = keys.signing.sign(canonical_json(msgspec.to_builtins(statement)), TYP)
    yield msgspec.json.encode({"statement": text}) + b"\n"


def verify_export(path: Path, *, key: str = "") -> Report:
    """Verify a file; `key` is the id of the only key that may have signed it."""
    report = Report()
    try:
        _verify(path, key, report)
    except BrokenError as error:
        report.finding = error.finding
    return report


def _records(folder: Path, keys: AuditKeys, span: Span) -> Iterator[tuple[bytes, Record]]:
    since = records.time_text(span.since) if span.since else ""
    until = records.time_text(span.until) if span.until else "~"
    begun = False
    for segment in segments(folder):
        head = head_of(segment.head, keys.public)
        if segment.dropped or (head is not None and head.until < since):
            continue
        for line in lines(segment.path):
            record = records.read(line.data)
            if record is None:
                continue
            if record.seq > span.last or (begun and record.ts >= until):
                return
            if begun or since <= record.ts < until:
                begun = True
                yield line.data, record


def _checkpoints(folder: Path, keys: AuditKeys, first: int, last: int) -> Iterator[bytes]:
    for segment in segments(folder):
        if segment.first > last:
            return
        for found in checkpoints(segment.checkpoints, keys.public):
            if found.checkpoint is not None and first <= found.checkpoint.seq <= last:
                yield msgspec.json.encode({"checkpoint": found.text}) + b"\n"


def _opening(keys: AuditKeys, span: Span, first: int, prev: str) -> bytes:
    opening = _Opening(
        format=FORMAT,
        trust_domain=span.trust_domain,
        key=keys.signing.public.raw,
        first=first,
        prev=prev,
    )
    return msgspec.json.encode(opening) + b"\n"


def _verify(path: Path, key: str, report: Report) -> None:
    opening, known = _opened(path)
    report.keys = [known.id]
    if key and key != known.id:
        detail = f"the file names the key {known.id}, not {key}"
        raise BrokenError(opening.first, "checkpoint", detail)
    keys = {known.id: known}
    walk = Walk(report, opening.first - 1, opening.prev)
    statement = _signed_parts(path, keys, walk, opening)
    for data in _of_kind(path, record=True):
        walk.take(data)
    walk.end(last=False)
    walk.finish()
    if statement.records != report.records:
        detail = f"{statement.records} records were exported, here are {report.records}"
        raise BrokenError(walk.seq + 1, "missing", detail)


def _opened(path: Path) -> tuple[_Opening, VerifyKey]:
    first = next(lines(path), None)
    try:
        opening = msgspec.json.decode(first.data if first else b"", type=_Opening)
        key = verify_key(opening.key)
    except (msgspec.DecodeError, ValueError) as error:
        message = f"{path.name!r} is no export of an audit trail: {error}"
        raise AuditDamagedError(message) from error
    if opening.format != FORMAT:
        message = f"{path.name!r} has the format {opening.format!r}, not {FORMAT}"
        raise AuditDamagedError(message)
    return opening, key


def _signed_parts(
    path: Path, keys: Mapping[str, VerifyKey], walk: Walk, opening: _Opening
) -> Statement:
    """Have the walk expect what was signed; the statement stands at the end."""
    statement: Statement | None = None
    for data in _of_kind(path, record=False):
        if statement is not None:
            raise BrokenError(statement.last + 1, "inserted", "something stands behind the end")
        line = _line(data)
        if line is not None and line.statement:
            statement = _statement(line.statement, keys)
        found = checkpoint_of(line.checkpoint, keys) if line and line.checkpoint else None
        if found is not None:
            walk.expect([found])
        elif statement is None:
            detail = "a line is no checkpoint that the key has signed"
            raise BrokenError(opening.first, "checkpoint", detail)
    if statement is None:
        raise BrokenError(opening.first, "checkpoint", "the signed end of the file is missing")
    if statement.records:
        if (statement.first, statement.prev) != (opening.first, opening.prev):
            raise BrokenError(statement.first, "missing", "the file does not begin where it began")
        walk.expect([Checkpoint(seq=statement.last, hash=statement.hash, ts="")])
    return statement


def _of_kind(path: Path, *, record: bool) -> Iterator[bytes]:
    """The lines behind the first one: records, or what is signed."""
    for number, line in enumerate(lines(path)):
        signed = line.data.startswith((b'{"checkpoint":', b'{"statement":'))
        if number and signed != record:
            yield line.data


def _line(data: bytes) -> _Line | None:
    try:
        return msgspec.json.decode(data, type=_Line)
    except msgspec.DecodeError:
        return None


def _statement(text: str, keys: Mapping[str, VerifyKey]) -> Statement | None:
    try:
        return msgspec.json.decode(verify(text, keys, TYP), type=Statement)
    except (SignatureInvalidError, msgspec.DecodeError):
        return None
