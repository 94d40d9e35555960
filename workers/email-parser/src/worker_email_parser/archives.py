"""Walks an archive of any supported format: which messages, in which order, from where on."""

import re
from collections.abc import Iterator
from typing import Final, Literal, Protocol

import msgspec
from hivemesh_sdk import Artifact, Rejected
from hivemesh_sdk.contracts.names import TREE_MEDIA_TYPE

from worker_email_parser.compressed import GZIP_MAGIC, GzipStream, foreign_format
from worker_email_parser.errors import (
    EmptyArchiveError,
    NotAMaildirError,
    NotAMessageError,
)
from worker_email_parser.message import Keep, Message, ParseChoices, parse_message
from worker_email_parser.separators import Style, first_style, line_end
from worker_email_parser.splitter import MAX_MESSAGE, ReadableStream, Span, Splitter

Format = Literal["auto", "mbox", "eml", "maildir"]
_PEEK: Final = 4096
_HEADER_LINE = re.compile(rb"\s*[!-9;-~]{1,76}[ \t]*:")
_MAIL_FOLDERS: Final = frozenset({"cur", "new"})


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where to go on: in the file `source` (a maildir's path, else "") at byte `offset`."""

    source: str = ""
    offset: int = 0
    style: Style | None = None  # of the mbox: not to be guessed again in the middle of it
    done: int = 0  # messages so far, for `limit`


class Stream(ReadableStream, Protocol):
    """A readable stream that can be closed."""

    def close(self) -> None:
        """Give up the rest."""
        ...


class Files(Protocol):
    """The part of `context.artifacts` that reading needs."""

    def open(self, reference: Artifact, offset: int = 0) -> Stream:
        """Read from `offset` on."""
        ...

    def size(self, reference: Artifact) -> int:
        """The number of bytes."""
        ...

    def tree(self, reference: Artifact) -> dict[str, Artifact]:
        """The files of a folder."""
        ...


class Progress(Protocol):
    """Told how far the reading is, in bytes of the archive as it is stored."""

    def __call__(self, done: int, total: int) -> None:
        """Take note."""
        ...


class Found(msgspec.Struct, frozen=True, gc=False):
    """One message of an archive, before it is parsed."""

    span: Span
    source: str
    checkpoint: Checkpoint  # valid after it


def parse_found(
    found: Found, choices: ParseChoices, keep: Keep | None = None
) -> Message | Rejected:
    """Parse one message, or say why it is not parsed and where it stands."""
    span = found.span
    if span.raw is None:
        return Rejected(
            "message-too-large",
            f"the message has {span.length} bytes; the limit is {MAX_MESSAGE}",
            {"source": found.source, "offset": span.offset, "length": span.length},
        )
    return parse_message(
        span.raw, choices, source=found.source, offset=span.offset, length=span.length, keep=keep
    )


def parse_stream(
    stream: ReadableStream, choices: ParseChoices | None = None
) -> Iterator[tuple[Message | Rejected, int]]:
    """Parse an mbox stream in this process: each message and the offset to go on at after it."""
    wanted = choices or ParseChoices()
    for span in Splitter(stream):
        yield parse_found(Found(span, "", _BEGINNING), wanted), span.end


_BEGINNING: Final = Checkpoint()


def read_archive(
    files: Files,
    archive: Artifact,
    *,
    format: Format = "auto",  # noqa: A002  the option's name
    start: Checkpoint | None = None,
    progress: Progress | None = None,
) -> Iterator[Found]:
    """Yield the messages of an archive from `start` on.

    Raises:
        ArchiveError: it is no archive of this format, empty, or cannot be decompressed.
    """
    begin = start or _BEGINNING
    report = progress or _silent
    if format == "maildir" or (format == "auto" and archive.media_type == TREE_MEDIA_TYPE):
        yield from _maildir(files, archive, begin, report)
    else:
        yield from _file(files, archive, format, begin, report)


def _silent(done: int, total: int) -> None:
    """Tell nobody."""


def _maildir(
    files: Files, archive: Artifact, begin: Checkpoint, report: Progress
) -> Iterator[Found]:
    tree = files.tree(archive)
    paths = sorted(path for path in tree if _is_mail(path))
    if not paths:
        raise NotAMaildirError
    total = sum(tree[path].size for path in paths)
    read, done = 0, begin.done
    for path in paths:
        reference = tree[path]
        read += reference.size
        if path <= begin.source:
            continue
        done += 1
        span = _whole(files, reference)
        yield Found(span, path, Checkpoint(source=path, offset=0, done=done))
        report(read, total)


def _is_mail(path: str) -> bool:
    """Say whether a path lies in a folder of delivered mail: `cur/…`, `new/…`, `.Sent/cur/…`."""
    folders, _, name = path.rpartition("/")
    return folders.rpartition("/")[2] in _MAIL_FOLDERS and not name.startswith(".")


def _whole(files: Files, reference: Artifact) -> Span:
    """Read a file that is one message."""
    size = files.size(reference)
    if size > MAX_MESSAGE:
        return Span(0, size, None)
    stream = files.open(reference)
    try:
        raw = _read_all(stream, MAX_MESSAGE)
    finally:
        stream.close()
    return Span(0, size, _without_separator(raw))


def _read_all(stream: ReadableStream, limit: int) -> bytes:
    blocks: list[bytes] = []
    while limit >= 0 and (block := stream.read(1024 * 1024)):
        blocks.append(block)
        limit -= len(block)
    return b"".join(blocks)


def _without_separator(raw: bytes) -> bytes:
    end = line_end(raw, 0, "dated")
    return raw[end:] if end > 0 else raw


def _file(
    files: Files, archive: Artifact, format_: Format, begin: Checkpoint, report: Progress
) -> Iterator[Found]:
    size = files.size(archive)
    if size == 0:
        raise EmptyArchiveError
    opened = files.open(archive)
    try:
        stream = _Peeked(opened)
        packed = None
        if stream.peek(len(GZIP_MAGIC)) == GZIP_MAGIC:
            packed = GzipStream(stream)
            stream = _Peeked(packed)
        kind = _kind(stream.peek(_PEEK), format_)
        if kind == "eml":
            yield from _single(stream, archive, begin)
            return
        if begin.offset and packed is None:
            opened.close()
            opened = files.open(archive, begin.offset)
            stream = _Peeked(opened)
        elif begin.offset:
            stream.skip(begin.offset)
        for found in _mbox(stream, begin):
            yield found
            report(packed.consumed if packed else found.checkpoint.offset, size)
    finally:
        opened.close()


def _kind(beginning: bytes, format_: Format) -> Literal["mbox", "eml"]:
    """Choose by the first bytes what `auto` means."""
    if not beginning.strip():
        raise EmptyArchiveError
    foreign = foreign_format(beginning)
    if foreign is not None:
        raise NotAMessageError(beginning, foreign)
    if format_ == "eml":
        if not _HEADER_LINE.match(beginning) and first_style(beginning, 0) is None:
            raise NotAMessageError(beginning)
        return "eml"
    text = beginning.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n")
    if format_ == "mbox" or first_style(text, 0) is not None:
        return "mbox"
    if _HEADER_LINE.match(text):
        return "eml"
    raise NotAMessageError(beginning)


def _single(stream: "_Peeked", archive: Artifact, begin: Checkpoint) -> Iterator[Found]:
    if begin.done:
        return
    raw = _read_all(stream, MAX_MESSAGE)
    size = archive.size if len(raw) > MAX_MESSAGE else len(raw)
    content = None if len(raw) > MAX_MESSAGE else _without_separator(raw)
    span = Span(0, size, content)
    yield Found(span, archive.name or "", Checkpoint(offset=size, done=1))


def _mbox(stream: ReadableStream, begin: Checkpoint) -> Iterator[Found]:
    splitter = Splitter(stream, offset=begin.offset, style=begin.style)
    for done, span in enumerate(splitter, start=begin.done + 1):
        yield Found(span, "", Checkpoint(offset=span.end, style=splitter.style, done=done))


class _Peeked:
    """A stream whose first bytes can be looked at without taking them."""

    def __init__(self, stream: ReadableStream) -> None:
        self._stream = stream
        self._held = b""

    def peek(self, size: int) -> bytes:
        while len(self._held) < size and (block := self._stream.read(size - len(self._held))):
            self._held += block
        return self._held[:size]

    def read(self, size: int, /) -> bytes:
        if not self._held:
            return self._stream.read(size)
        data, self._held = self._held[:size], self._held[size:]
        return data

    def skip(self, count: int) -> None:
        while count > 0 and (block := self.read(min(count, 1024 * 1024))):
            count -= len(block)
