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
    NotAFileError,
    NotAMaildirError,
    NotAMessageError,
)
from worker_email_parser.message import Keep, Message, ParseChoices, Place, parse_message
from worker_email_parser.separators import Style, first_style, line_end
from worker_email_parser.splitter import MAX_MESSAGE, ReadableStream, Span, Splitter

Format = Literal["auto", "mbox", "eml", "maildir"]
_PEEK: Final = 4096
_BLOCK: Final = 1024 * 1024
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
    place = Place(found.source, span.offset, span.length, span.header)
    return parse_message(span.raw, choices, place, keep=keep)


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
    max_message: int = MAX_MESSAGE,
) -> Iterator[Found]:
    """Yield the messages of an archive from `start` on.

    Raises:
        ArchiveError: it is no archive of this format, empty, or cannot be decompressed.
    """
    reader = _Reader(files, archive, start or _BEGINNING, progress or _silent, max_message)
    is_folder = archive.media_type == TREE_MEDIA_TYPE
    if format == "maildir" or (format == "auto" and is_folder):
        if not is_folder:
            raise NotAMaildirError
        return reader.maildir()
    if is_folder:
        raise NotAFileError(format)
    return reader.file(format)


def _silent(done: int, total: int) -> None:
    """Tell nobody."""


class _Reader:
    """Reads one archive from one checkpoint on."""

    def __init__(
        self,
        files: Files,
        archive: Artifact,
        begin: Checkpoint,
        report: Progress,
        max_message: int,
    ) -> None:
        self._files = files
        self._archive = archive
        self._begin = begin
        self._report = report
        self._max_message = max_message

    def maildir(self) -> Iterator[Found]:
        tree = self._files.tree(self._archive)
        paths = sorted(path for path in tree if _is_mail(path))
        if not paths:
            raise NotAMaildirError
        total = sum(tree[path].size for path in paths)
        read, done = 0, self._begin.done
        for path in paths:
            read += tree[path].size
            if path <= self._begin.source:
                continue
            done += 1
            yield Found(self._whole(tree[path]), path, Checkpoint(source=path, done=done))
            self._report(read, total)

    def _whole(self, reference: Artifact) -> Span:
        """Read a file that is one message."""
        size = self._files.size(reference)
        if size > self._max_message:
            return Span(0, size, None)
        stream = self._files.open(reference)
        try:
            return self._message(stream, size)
        finally:
            stream.close()

    def _message(self, stream: ReadableStream, size: int) -> Span:
        blocks: list[bytes] = []
        left = self._max_message
        while left >= 0 and (block := stream.read(_BLOCK)):
            blocks.append(block)
            left -= len(block)
        if left < 0:
            return Span(0, size, None)
        raw = b"".join(blocks)
        separator = line_end(raw, 0, "dated")
        return Span(0, len(raw), raw[separator:] if separator > 0 else raw)

    def file(self, format_: Format) -> Iterator[Found]:
        files, archive, begin = self._files, self._archive, self._begin
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
            if _kind(stream.peek(_PEEK), format_) == "eml":
                yield from self._single(stream)
                return
            if begin.offset and packed is None:
                opened.close()
                opened = files.open(archive, begin.offset)
                stream = _Peeked(opened)
            elif begin.offset:
                stream.skip(begin.offset)
            for found in self._mbox(stream):
                yield found
                self._report(packed.consumed if packed else found.checkpoint.offset, size)
        finally:
            opened.close()

    def _single(self, stream: ReadableStream) -> Iterator[Found]:
        if self._begin.done:
            return
        span = self._message(stream, self._archive.size)
        yield Found(span, self._archive.name or "", Checkpoint(offset=span.length, done=1))

    def _mbox(self, stream: ReadableStream) -> Iterator[Found]:
        begin = self._begin
        splitter = Splitter(
            stream, offset=begin.offset, style=begin.style, max_message=self._max_message
        )
        for done, span in enumerate(splitter, start=begin.done + 1):
            yield Found(span, "", Checkpoint(offset=span.end, style=splitter.style, done=done))


def _is_mail(path: str) -> bool:
    """Say whether a path lies in a folder of delivered mail: `cur/…`, `new/…`, `.Sent/cur/…`."""
    folders, _, name = path.rpartition("/")
    return folders.rpartition("/")[2] in _MAIL_FOLDERS and not name.startswith(".")


def _kind(beginning: bytes, format_: Format) -> Literal["mbox", "eml"]:
    """Choose by the first bytes what `auto` means."""
    text = beginning.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n")
    if not text:
        if len(beginning) == _PEEK:
            return "mbox"  # the splitter reads on
        raise EmptyArchiveError
    foreign = foreign_format(beginning)
    if foreign is not None:
        raise NotAMessageError(beginning, foreign)
    separated = first_style(text, 0) is not None
    if format_ == "mbox" or (format_ == "auto" and separated):
        return "mbox"
    if separated or _HEADER_LINE.match(text):
        return "eml"
    raise NotAMessageError(beginning)


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
        while count > 0 and (block := self.read(min(count, _BLOCK))):
            count -= len(block)
