"""Signed checkpoints and heads: what was in the trail at a moment, told to a second place.

A chain alone does not show that its end was cut off, or that all of it was written anew; a
checkpoint that lies elsewhere does. What was last is told beside the checkpoints, by `end`.
"""

import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec
from hivemesh_sdk.contracts.manifest import canonical_json
from hivemesh_sdk.trust.jws import SignatureInvalidError, SigningKey, VerifyKey, verify

from hivemesh_platform.audit.segments import lines, sync_folder, write_durably

CHECKPOINT = "hivemesh-audit-checkpoint"
HEAD = "hivemesh-audit-head"
SYSLOG = "syslog"
SYSLOG_SOCKET = Path("/dev/log")
FILE = "audit-checkpoints.jws"  # the default place, in the state folder
END = ".end"  # what the file with the end is called behind the name of the place
MAX_BYTES = 8192
_NOTICE = 109  # facility 13 (log audit), severity 5 (notice)


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The last record at a moment."""

    seq: int
    hash: str
    ts: str


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What a sealed segment held: enough to go on from, when its records are dropped."""

    first: int
    last: int
    prev: str  # hash of the record before the first
    hash: str  # of the last
    since: str
    until: str


@dataclass(frozen=True, slots=True)
class Found:
    """A line of a file of checkpoints; without `checkpoint` it is not what was signed."""

    place: str
    checkpoint: Checkpoint | None
    text: str


class Sink(Protocol):
    """The second place; `path` where its checkpoints can be read again, `end` the file of the end."""

    path: Path | None
    end: Path

    def write(self, line: str) -> None:
        """Add a checkpoint.

        Raises:
            OSError: it cannot be written.
        """
        ...


class FileSink:
    """A file, best on another volume."""

    def __init__(self, path: Path) -> None:
        self.path: Path | None = path
        self.end = end_beside(path)
        self._file = path

    def write(self, line: str) -> None:
        """Add a checkpoint and make it durable."""
        append(self._file, line)


class SyslogSink:
    """The system's log; what reads it again is outside. The end stays in the state folder."""

    def __init__(self, end: Path, address: Path = SYSLOG_SOCKET) -> None:
        self.path: Path | None = None
        self.end = end
        self._address = address

    def write(self, line: str) -> None:
        """Send a checkpoint."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.sendto(f"<{_NOTICE}>hivemesh-audit: {line}".encode(), str(self._address))


def sink_of(setting: str, state_folder: Path) -> Sink:
    """The second place as it is configured; a relative path is one below the state folder."""
    if setting == SYSLOG:
        return SyslogSink(end_beside(state_folder / FILE))
    return FileSink(state_folder / Path(setting).expanduser())


def end_beside(path: Path) -> Path:
    """The file with the end, beside a file of checkpoints."""
    return path.with_name(path.name + END)


def append(path: Path, line: str) -> None:
    """Add a line to a private file and make it durable; a torn one at its end goes first.

    Raises:
        OSError: it cannot be written.
    """
    new = not path.exists()
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        whole = size - len(_torn(descriptor, size))
        if whole != size:
            os.ftruncate(descriptor, whole)
        write_durably(descriptor, line.encode("ascii") + b"\n", whole)
    finally:
        os.close(descriptor)
    if new:
        sync_folder(path.parent)


def _torn(descriptor: int, size: int) -> bytes:
    """What stands behind the last newline: a write that did not end."""
    tail = os.pread(descriptor, MAX_BYTES, max(0, size - MAX_BYTES))
    return tail[tail.rfind(b"\n") + 1 :]


def signed(key: SigningKey, document: Checkpoint | Head) -> str:
    """A document as a line."""
    typ = CHECKPOINT if isinstance(document, Checkpoint) else HEAD
    return key.sign(canonical_json(msgspec.to_builtins(document)), typ)


def checkpoint_of(text: str, keys: Mapping[str, VerifyKey]) -> Checkpoint | None:
    """The checkpoint of a line; None where none of the keys has signed it."""
    try:
        return msgspec.json.decode(verify(text, keys, CHECKPOINT), type=Checkpoint)
    except (SignatureInvalidError, msgspec.DecodeError):
        return None


def head_of(path: Path, keys: Mapping[str, VerifyKey]) -> Head | None:
    """The head of a segment; None where there is none that a key has signed."""
    try:
        text = path.read_text(encoding="ascii").strip()
        return msgspec.json.decode(verify(text, keys, HEAD), type=Head)
    except (OSError, UnicodeDecodeError, SignatureInvalidError, msgspec.DecodeError):
        return None


def checkpoints(path: Path, keys: Mapping[str, VerifyKey]) -> Iterator[Found]:
    """The checkpoints of a file, in order, without a torn last one; none where there is no file."""
    if not path.exists():
        return
    for number, found in enumerate(lines(path), start=1):
        if found.complete:
            text = found.data.decode("ascii", "replace")
            yield Found(f"{path.name}:{number}", checkpoint_of(text, keys), text)


def is_absent(path: Path) -> bool:
    """Whether a file of checkpoints holds nothing, or is not there."""
    try:
        return path.stat().st_size == 0
    except FileNotFoundError:
        return True


def last_checkpoint(path: Path | None, keys: Mapping[str, VerifyKey]) -> Checkpoint | None:
    """The checkpoint with the highest number in a file, looked for from its end."""
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 16 * MAX_BYTES))
            tail = file.read()
    except OSError:
        return None
    for data in reversed(tail.splitlines()):
        found = checkpoint_of(data.decode("ascii", "replace"), keys)
        if found is not None:
            return found
    return None
