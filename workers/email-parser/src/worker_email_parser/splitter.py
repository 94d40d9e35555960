"""Cuts an mbox stream into messages with exact byte positions, in bounded memory.

Reads forward only, so it works on a file, a download and a gzip stream alike. Which line begins a
message is decided by `separators`; this module owns the window over the stream.
"""

from collections.abc import Iterator
from typing import Final, Protocol

import msgspec

from worker_email_parser.errors import EmptyArchiveError, NotAnMboxError
from worker_email_parser.separators import (
    LINE_LIMIT,
    LOOK_BEHIND,
    MMDF_LINE,
    Style,
    begins_message,
    declared_length,
    ends_with_separator,
    find_delimiter,
    first_style,
    frames_itself,
    header_end,
    line_end,
    multipart_delimiter,
)

MAX_MESSAGE: Final = 64 * 1024 * 1024  # a larger message is rejected with its offset
BLOCK: Final = 1024 * 1024  # read at once; larger blocks measured no faster
DELIMITER_WINDOW: Final = (
    256 * 1024
)  # how far behind a separator a still open multipart is looked for
HEADER_WINDOW: Final = 64 * 1024  # how far behind it the header of a message is looked for there
_LINES_AHEAD: Final = 2 * LINE_LIMIT  # a separator line and the line after it
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class ReadableStream(Protocol):
    """What the splitter needs of a file."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; none at the end."""
        ...


class Span(msgspec.Struct, frozen=True, gc=False):
    """One message of an archive: where it stands and its bytes.

    `raw` is without the separator and the blank line before the next one; None: over the limit.
    """

    offset: int  # first byte of its separator line
    length: int  # up to the next separator line, this one's included
    raw: bytes | None
    header: int = -1  # bytes of raw's header block, where it is known already

    @property
    def end(self) -> int:
        """Where the next message begins: the position to resume at."""
        return self.offset + self.length


class _Frame:
    """What one message says about its own end; positions are relative to its beginning."""

    __slots__ = ("_ahead", "_next", "_searched", "closed", "delimiter", "end", "opened")

    def __init__(self, delimiter: bytes = b"", body: int = 0, end: int = -1) -> None:
        self.delimiter = delimiter
        self.end = end  # by a Content-Length that is right, else -1
        self.opened = False
        self.closed = False
        self._searched = body
        self._next = -1  # the delimiter line that was found last behind a candidate
        self._ahead = 0  # up to there behind candidates was searched without finding one

    def search(self, window: bytes, start: int, candidate: int) -> None:
        """Look for delimiter lines before the candidate; never twice at the same place."""
        while not self.closed:
            at = find_delimiter(window, self.delimiter, start + self._searched, start + candidate)
            if at < 0:
                break
            end = at + len(self.delimiter)
            self._searched = end - start
            self.closed = window.startswith(b"--", end)
            self.opened = True
        self._searched = max(self._searched, candidate - 1)

    def next_delimiter(self, window: bytes, start: int, candidate: int) -> int:
        """Return where a delimiter line follows soon, or -1; never twice at the same place."""
        stop = candidate + DELIMITER_WINDOW
        if self._next < candidate:
            first = start + max(candidate, self._ahead)
            at = find_delimiter(window, self.delimiter, first, start + stop)
            if at < 0:
                self._ahead = stop - len(self.delimiter) + 1
                return -1
            if at + len(self.delimiter) == len(window):  # what follows it is not read yet
                return at - start
            self._next = at - start
        return self._next if self._next + len(self.delimiter) <= stop else -1


_PLAIN: Final = _Frame()


class Splitter:
    """Iterates over the messages of one mbox.

    `offset` is the position of the stream's first byte in the archive: 0, or the `end` of a span of
    an earlier pass together with that pass's `style`.
    """

    def __init__(
        self,
        stream: ReadableStream,
        *,
        offset: int = 0,
        style: Style | None = None,
        max_message: int = MAX_MESSAGE,
    ) -> None:
        """Store the stream; nothing is read yet."""
        self.style: Style | None = style
        self._stream = stream
        self._base = offset  # position in the archive of the window's first byte
        self._window = b""
        self._start = 0  # in the window: the separator line of the current message
        self._complete = False  # the window reaches the end of the archive
        self._line = -1  # length of the current message's separator line; -1: not looked at yet
        self._header = -1  # end of the current message's header block, where it is known
        self._frame: _Frame | None = None  # of the current message, read when it is needed
        self._resumed = offset > 0
        self._max_message = max_message

    def __iter__(self) -> Iterator[Span]:
        """Yield every message once, in order.

        Raises:
            EmptyArchiveError: there is nothing but line breaks.
            NotAnMboxError: the first line is no separator.
        """
        style = self._begin()
        if style is None:
            return
        take = self._take_mmdf if style == "mmdf" else self._take
        while self._start < len(self._window) or self._more():
            span = take(style)
            if span is not None:
                yield span

    def _begin(self) -> Style | None:
        """Find the first separator and with it the style; None at the end of a resumed archive."""
        self._more()
        if self._base == 0 and self._window.startswith(_BYTE_ORDER_MARK):
            self._start = len(_BYTE_ORDER_MARK)
        while not self._skip_line_breaks():
            if self._resumed:
                return None
            raise EmptyArchiveError
        if self.style is None:
            self.style = first_style(self._window, self._start)
        if self.style is None:
            raise NotAnMboxError(self._window[self._start : self._start + 80])
        return self.style

    def _skip_line_breaks(self) -> bool:
        """Move to the first other byte; False at the end of the archive."""
        while True:
            rest = self._window[self._start :].lstrip(b"\r\n")
            self._start = len(self._window) - len(rest)
            if len(rest) >= _LINES_AHEAD or self._complete:
                return bool(rest)
            self._more()

    def _more(self) -> bool:
        """Extend the window and forget what is before the current message; False at the end."""
        kept = self._window[self._start :]
        block = b"" if self._complete else self._stream.read(max(BLOCK, len(kept)))
        self._complete = not block
        self._window = kept + block if kept else block
        self._base += self._start
        self._start = 0
        return bool(block)

    def _ensure(self, position: int) -> bool:
        """Read until the window reaches `position` behind the current message, or the end."""
        while not self._complete and len(self._window) - self._start < position:
            self._more()
        return len(self._window) - self._start >= position

    def _take(self, style: Style) -> Span | None:
        """Cut the current message off."""
        self._ensure(_LINES_AHEAD)
        if self._line < 0:
            self._line = max(0, line_end(self._window, self._start, style) - self._start)
        scan = 0  # relative to the current message, so that it survives a shift of the window
        while True:
            at = self._window.find(b"\nFrom ", self._start + scan) + 1
            if at <= 0:
                scan = max(0, len(self._window) - self._start - len(b"\nFrom"))
                if scan > self._max_message:
                    return self._skip(style)
                if not self._more():
                    return self._cut(len(self._window) - self._start, -1)
                continue
            scan = at - self._start
            if scan > self._max_message:
                return self._skip(style)
            if len(self._window) - at < _LINES_AHEAD:
                self._ensure(scan + _LINES_AHEAD)
                at = self._start + scan
            end = line_end(self._window, at, style)
            if end > 0 and begins_message(self._window, at, end):
                line = end - at
                stop = self._end_before(scan, style)
                if stop:
                    return self._cut(stop, line if stop == scan else -1)

    def _end_before(self, candidate: int, style: Style) -> int:
        """Return where the current message ends if the candidate is believed, 0 if it is not.

        Positions are relative to the current message.
        """
        frame = self._frame
        if frame is None:
            frame = self._frame = self._read_frame(candidate, style)
        if frame.end > candidate:
            return frame.end
        if frame.delimiter and self._in_open_multipart(frame, candidate):
            return 0
        return candidate

    def _read_frame(self, candidate: int, style: Style) -> "_Frame":
        """Read what the header of the current message says about its end."""
        start = self._start
        stop = header_end(self._window, start, start + candidate)
        self._header = stop - start
        fields = frames_itself(self._window, start, stop) if stop > 0 else b""
        if not fields:
            return _PLAIN
        stop -= start
        return _Frame(multipart_delimiter(fields), stop, self._declared_end(fields, stop, style))

    def _declared_end(self, fields: bytes, stop: int, style: Style) -> int:
        """Return the end of the message by its Content-Length, or -1 where that is not right."""
        length = declared_length(fields)
        if length is None or length > self._max_message:
            return -1
        blank = 3 if self._window.startswith(b"\n\r\n", self._start + stop) else 2
        target = stop + blank + length
        self._ensure(target + _LINES_AHEAD)
        end = ends_with_separator(
            self._window, self._start + target, style, complete=self._complete
        )
        return end - self._start if end > 0 else -1

    def _in_open_multipart(self, frame: "_Frame", candidate: int) -> bool:
        """Say whether the candidate stands in a part of the current message."""
        frame.search(self._window, self._start, candidate)
        if frame.closed or not frame.opened:
            return False
        self._ensure(candidate + DELIMITER_WINDOW)
        at = self._start + candidate
        found = frame.next_delimiter(self._window, self._start, candidate)
        if found < 0:
            return False
        stop = min(self._start + found + 1, at + HEADER_WINDOW)
        header = header_end(self._window, at, stop)
        return header < 0 or multipart_delimiter(self._window[at:header]) != frame.delimiter

    def _cut(self, length: int, next_line: int) -> Span:
        """Make the span of the current message and go to its end."""
        begin, start, stop = self._base + self._start, self._start, self._start + length
        content, header = start + self._line, self._header - self._line + 1
        self._start = stop
        self._line = next_line
        self._header = -1
        self._frame = None
        if length > self._max_message:
            return Span(begin, length, None)
        if self._window.endswith(b"\n\n", content, stop):
            stop -= 1
        elif self._window.endswith(b"\r\n\r\n", content, stop):
            stop -= 2
        raw = self._window[content:stop]
        return Span(begin, length, raw, header if 0 < header < len(raw) else -1)

    def _skip(self, style: Style) -> Span:
        """Pass over a message larger than the limit without holding it.

        Behind the limit what the message says about its own end counts no more.
        """
        begin = self._base + self._start
        self._start += self._max_message
        self._line = -1
        self._header = -1
        self._frame = None
        while True:
            at = self._window.find(b"\nFrom ", self._start)
            if at < 0:
                if self._complete:
                    self._start = len(self._window)
                    break
                self._start = max(self._start, len(self._window) - LOOK_BEHIND)
                self._more()
                continue
            at += 1
            if len(self._window) - at < _LINES_AHEAD and not self._complete:
                self._start = max(0, at - LOOK_BEHIND)
                self._more()
                continue
            end = line_end(self._window, at, style)
            self._start = at
            if end > 0 and begins_message(self._window, at, end):
                break
        return Span(begin, self._base + self._start - begin, None)

    def _take_mmdf(self, style: Style) -> Span | None:
        """Cut the current MMDF message off; None for stray line breaks at the end."""
        self._ensure(_LINES_AHEAD)
        begin = self._base + self._start
        opened = self._window.startswith(MMDF_LINE, self._start)
        scan = len(MMDF_LINE) if opened else 0
        while True:
            at = self._window.find(b"\n" + MMDF_LINE, self._start + scan)
            if at >= 0 or self._complete:
                break
            scan = max(scan, len(self._window) - self._start - len(MMDF_LINE))
            if scan > self._max_message:
                return self._skip_mmdf(begin)
            self._more()
        stop, end = self._mmdf_end(at)
        raw = self._window[self._start : stop]
        self._start = end
        content = raw.find(b"\n") + 1 if opened else 0
        if not opened and not raw.strip(b"\r\n"):
            return None
        line = line_end(raw, content, "dated")
        raw = raw[line if line > 0 else content :]
        return Span(begin, self._base + end - begin, raw if len(raw) <= self._max_message else None)

    def _mmdf_end(self, at: int) -> tuple[int, int]:
        """Return the end of the content and of the closing line whose line break is at `at`."""
        if at < 0:
            return len(self._window), len(self._window)
        shift = at - self._start
        self._ensure(shift + _LINES_AHEAD)
        at = self._start + shift
        end = self._window.find(b"\n", at + 1) + 1
        return at + 1, end or len(self._window)

    def _skip_mmdf(self, begin: int) -> Span:
        """Pass over an MMDF message larger than the limit without holding it."""
        while True:
            at = self._window.find(b"\n" + MMDF_LINE, self._start)
            if at >= 0 or self._complete:
                break
            self._start = max(self._start, len(self._window) - len(MMDF_LINE))
            self._more()
        _, self._start = self._mmdf_end(at)
        return Span(begin, self._base + self._start - begin, None)
