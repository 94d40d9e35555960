"""Cuts records into batches of NDJSON and reads batches, record by record where one is bad."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from hivemesh_sdk.contracts.steps import MAX_RECORD_BYTES, Limits
from hivemesh_sdk.errors import FatalError
from hivemesh_sdk.worker.codec import (
    UNWRITABLE,
    Codec,
    UnwritableError,
    encode_record,
    field_problems,
)
from hivemesh_sdk.worker.records import Rejected

MAX_REJECTED_HELD = 500  # so that a file without one good record takes no memory
MAX_CHECKPOINT_BYTES = 256 * 1024
MAX_ANSWER_BYTES = 12 * 1024 * 1024  # a batch or result that travels inside one page
_SCRATCH_BYTES = 64 * 1024  # of it no more is kept for the next record
_UNCHANGING = (int, str, float, bytes, type(None))

Emit = Callable[[Sequence[Rejected], "Batch | None"], None]

_encode_into = msgspec.json.Encoder().encode_into
_encode_lines = msgspec.json.Encoder().encode_lines


@dataclass(frozen=True, slots=True)
class Batch:
    """Records as NDJSON; `checkpoint` is JSON and holds after the last of them."""

    data: bytes
    count: int
    checkpoint: bytes = b"null"

    def digest(self) -> str:
        """SHA-256 of the bytes."""
        return hashlib.sha256(self.data).hexdigest()


class Cutter:
    """Collects what a source yields and emits a batch when a limit is reached.

    Rejected records are emitted just before the batch whose checkpoint covers them. `add` is
    called by the source's thread and `flush_due` by a ticking one.
    """

    def __init__(self, limits: Limits, emit: Emit) -> None:
        self._limits = limits
        self._emit = emit
        self._lock = threading.Lock()
        self._lines: list[bytes] = []
        self._bytes = 0  # of the lines, line breaks included
        self._written = bytearray()  # by the record that is written, kept for the next one
        self._checkpoint: object = None
        self._rejected: list[Rejected] = []
        self._since = 0.0
        self._failed: BaseException | None = None  # whoever cut the batch that was not taken

    def add(self, record: object, checkpoint: object) -> bool:
        """Take one record and say whether a batch was emitted.

        Raises:
            FatalError: the record's type cannot be written as JSON, nor the checkpoint, or a batch
                was not taken; whatever the clock met when it cut one is raised here too.
        """
        if not isinstance(checkpoint, _UNCHANGING):
            # the source may change it later
            checkpoint = msgspec.Raw(encode_record(checkpoint, "a checkpoint"))
        with self._lock:
            self._go_on()
            emitted = self._take(record, checkpoint)
            if self._due():
                self._cut()
                return True
            return emitted

    def flush_due(self) -> None:
        """Emit what waits longer than the limit of time."""
        with self._lock:
            self._go_on()
            if self._due():
                self._cut()

    def finish(self) -> None:
        """Emit the rest."""
        with self._lock:
            self._go_on()
            if self._lines or self._rejected:
                self._cut()

    def _take(self, record: object, checkpoint: object) -> bool:
        if not self._lines and not self._rejected:
            self._since = time.monotonic()
        line = self._line_of(record, checkpoint)
        if isinstance(line, Rejected):
            self._rejected.append(line)
            self._checkpoint = checkpoint
            return False
        size = len(line) + 1
        too_much = bool(self._lines) and self._bytes + size > self._limits.bytes
        if too_much:
            self._cut()
            self._since = time.monotonic()
        self._lines.append(line)
        self._bytes += size
        self._checkpoint = checkpoint
        return too_much

    def _line_of(self, record: object, checkpoint: object) -> bytes | Rejected:
        if isinstance(record, Rejected):
            return record
        try:
            line = _line(record, self._written)
        except UnwritableError as error:
            return _unwritable(error, checkpoint)
        if len(line) >= MAX_RECORD_BYTES:
            return _too_large(len(line) + 1, checkpoint)
        return line

    def _due(self) -> bool:
        if len(self._lines) >= self._limits.records or self._bytes >= self._limits.bytes:
            return True
        if len(self._rejected) >= MAX_REJECTED_HELD:
            return True
        return (
            bool(self._lines or self._rejected)
            and time.monotonic() - self._since >= self._limits.seconds
        )

    def _cut(self) -> None:
        batch = None
        if self._lines:
            checkpoint = encode_record(self._checkpoint, "a checkpoint")
            if len(checkpoint) > MAX_CHECKPOINT_BYTES:
                message = f"a checkpoint takes {len(checkpoint)} bytes; keep a position, no data"
                raise FatalError(message, slug="output-invalid")
            data = b"\n".join([*self._lines, b""])
            batch = Batch(data, len(self._lines), checkpoint)
        rejected, self._rejected = self._rejected, []
        self._lines = []
        self._bytes = 0
        try:
            self._emit(rejected, batch)
        except BaseException as error:
            self._failed = error
            raise

    def _go_on(self) -> None:
        """Nothing follows a batch that was lost: its records would lie behind a checkpoint."""
        if self._failed is not None:
            raise self._failed


@contextmanager
def ticking(act: Callable[[], None], seconds: float) -> Iterator[None]:
    """Call `act` again and again from a thread while the block runs, four times per `seconds`."""
    ended = threading.Event()

    def tick() -> None:
        with suppress(Exception):  # the cutter tells the source's thread of it
            while not ended.wait(max(seconds / 4, 0.02)):
                act()

    thread = threading.Thread(target=tick, name="batch-clock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def read_batch(codec: Codec, data: bytes) -> tuple[list[Any], list[int], list[Rejected]]:
    """Decode a batch into records, the line number of each, and the lines that do not fit.

    One bad line costs that record, never the batch.
    """
    try:
        records = codec.decode_lines(data)
    except Exception as error:
        if field_problems(error) is None:
            raise
        return _read_lines(codec, data)
    return records, list(range(len(records))), []


def cut_lines(data: bytes, first: int, last: int) -> bytes:
    """The lines of a batch from `first` up to `last`, counted from 0; the others stay unread."""
    start = _line_start(data, 0, first)
    return data[start : _line_start(data, start, last - first)]


def _line_start(data: bytes, start: int, count: int) -> int:
    for _ in range(count):
        found = data.find(b"\n", start)
        if found < 0:
            return len(data)
        start = found + 1
    return start


def join_answers(
    answers: Sequence[object], positions: Sequence[int]
) -> tuple[Batch, list[Rejected]]:
    """Encode the answers of a map; `positions` are the line numbers of the records they answer.

    An answer that is too large, or has a value that cannot be written as JSON, is rejected.

    Raises:
        FatalError: an answer's type cannot be written as JSON, or all together are too large.
    """
    rejected = [
        _placed(answer, position)
        for answer, position in zip(answers, positions, strict=True)
        if isinstance(answer, Rejected)
    ]
    kept = [one for one in answers if not isinstance(one, Rejected)] if rejected else answers
    count, data = len(kept), _lines_of(kept)
    if data is None or len(data) > MAX_RECORD_BYTES:
        places = (
            position
            for answer, position in zip(answers, positions, strict=True)
            if not isinstance(answer, Rejected)
        )
        lines, refused = _each(kept, places)
        rejected += refused
        count, data = len(lines), b"".join(lines)
    if data.count(b"\n") != count:
        message = "a raw record contains a line break"
        raise FatalError(message, slug="output-invalid")
    if len(data) > MAX_ANSWER_BYTES:
        message = (
            f"the answers of one batch take {len(data)} bytes; declare large fields as Artifact"
        )
        raise FatalError(message, slug="output-invalid")
    return Batch(data, count), rejected


def _lines_of(records: Sequence[object]) -> bytes | None:
    try:
        return _encode_lines(records)
    except UNWRITABLE:  # a Pydantic model, or what cannot be written
        return None


def _each(records: Sequence[object], places: Iterable[int]) -> tuple[list[bytes], list[Rejected]]:
    """The lines of the records, and those that become none."""
    lines, refused = [], []
    for record, place in zip(records, places, strict=True):
        try:
            line = encode_record(record) + b"\n"
        except UnwritableError as error:
            refused.append(_unwritable(error, place))
            continue
        if len(line) > MAX_RECORD_BYTES + 1:
            refused.append(_too_large(len(line) - 1, place))
        else:
            lines.append(line)
    return lines, refused


def _line(record: object, scratch: bytearray) -> bytes:
    """The JSON of a record, without a line break; `scratch` is what it is written into."""
    try:
        _encode_into(record, scratch)
        line = bytes(scratch)
        if len(line) > _SCRATCH_BYTES:
            scratch.clear()
    except UNWRITABLE:
        line = encode_record(record)
    if isinstance(record, msgspec.Raw) and b"\n" in line:
        message = "a raw record contains a line break"
        raise FatalError(message, slug="output-invalid")
    return line


def _read_lines(codec: Codec, data: bytes) -> tuple[list[Any], list[int], list[Rejected]]:
    records, positions, rejected = [], [], []
    for number, line in enumerate(data.split(b"\n")):
        if not line.strip():
            continue
        try:
            records.append(codec.decode(line))
        except Exception as error:
            problems = field_problems(error)
            if problems is None:
                raise
            detail = f"{problems[0].pointer or '/'}: {problems[0].message}"
            rejected.append(Rejected("input-invalid", detail, number))
        else:
            positions.append(number)
    return records, positions, rejected


def _placed(rejected: Rejected, position: int) -> Rejected:
    if rejected.position is not None:
        return rejected
    return Rejected(rejected.reason, rejected.detail, position)


def _too_large(size: int, position: object) -> Rejected:
    return Rejected("record-too-large", f"{size} bytes; declare large fields as Artifact", position)


def _unwritable(error: UnwritableError, position: object) -> Rejected:
    return Rejected(error.slug, error.detail, position)
