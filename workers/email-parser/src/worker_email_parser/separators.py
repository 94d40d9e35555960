"""Recognises the line that begins a message in an mbox. Pure: bytes and positions, no stream.

The rule is stated in the README ("Where a message begins"); the functions here are its clauses.
"""

import re
from typing import Final, Literal

Style = Literal["dated", "undated", "mmdf"]

_AFTER_DELIMITER: Final = b"-\r\n \t"  # anything else: another boundary with the same beginning
MMDF_LINE: Final = b"\x01\x01\x01\x01"
LOOK_BEHIND: Final = 200  # bytes before a separator that may hold a "Begin Included Message" line
LINE_LIMIT: Final = 1024  # a longer line is no separator (RFC 5322 2.1.1 allows 998)

_MONTH = rb"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_TIME = rb"\d{1,2}:\d\d(?::\d\d)?"
_ZONE = rb"(?:[A-Za-z][A-Za-z-]{0,7}|[+-]\d{4})"
_YEAR = rb"\d{2,4}"
# From <anything> Thu Sep 13 [12:30[:05]] [EDT|-0400] 2001 [EDT|-0400] [remote from host]; also 13 Sep 2001 12:30:05
_DATED = re.compile(
    rb"From (?:\S{1,300}[ \t]{1,9}[A-Z][a-z][a-z][ \t]{1,9}|[^\n]{0,900}?\b)(?:"
    + _MONTH
    + rb"[ \t]+\d{1,2},?[ \t]+(?:"
    + _TIME
    + rb"(?:[ \t]+"
    + _ZONE
    + rb"){0,2}[ \t]+"
    + _YEAR
    + rb"|\d{4}[ \t]+"
    + _TIME
    + rb")|\d{1,2}[ \t-]"
    + _MONTH
    + rb"[ \t-]"
    + _YEAR
    + rb"[ \t]+"
    + _TIME
    + rb"|\d{4}-\d\d-\d\d[ \tT]"
    + _TIME
    + rb")(?:[ \t]+"
    + _ZONE
    + rb"){0,2}(?:[ \t]+remote from [^\n]*)?[ \t]*\r?\n",
)
_UNDATED = re.compile(rb"From [^\n]{0,900}\n")
_LINE_BREAKS = re.compile(rb"(?:\r?\n){1,2}")
_HEADER_NEXT = re.compile(rb"(?:[!-9;-~]{1,76}[ \t]*:|>From |[ \t]*\r?\n|\x01\x01\x01\x01)")
_NAMED_HEADER_NEXT = re.compile(
    rb"(?i:return-path|received|from|to|cc|date|subject|message-id|mime-version|content-type"
    rb"|reply-to|sender|delivered-to|status|x-[a-z0-9-]+)[ \t]*:"
)
_PIPERMAIL = re.compile(
    rb"From (\S[^\n]{0,300}?)  \w{3} [^\n]+\r?\nFrom: (\S[^\n]{0,300}?)(?: \(|\r?\n)"
)
_INCLUDED = re.compile(
    rb"-{3,}\s?(?:Begin Included Message|Original Message|Begin forwarded message"
    rb"|Forwarded message)\s?-{3,}[ \t]*(?:\r?\n)+\Z",
    re.IGNORECASE,
)
_BOUNDARY = re.compile(
    rb"boundary\s{0,4}=\s{0,4}(?:\"([^\"\n]{1,200})\"|([^\s;\"]{1,200}))", re.IGNORECASE
)
_CONTENT_LENGTH = re.compile(
    rb"^content-length:[ \t]*(\d{1,12})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE
)


def first_style(data: bytes, at: int) -> Style | None:
    """Name the style of an archive by its first line at `at`, or None if it is no archive."""
    if data.startswith(MMDF_LINE, at):
        return "mmdf"
    if _DATED.match(data, at):
        return "dated"
    line = _UNDATED.match(data, at)
    if line and _NAMED_HEADER_NEXT.match(data, line.end()):
        return "undated"
    return None


def line_end(data: bytes, at: int, style: Style) -> int:
    """Return the end of the separator line at `at`, or -1 if that line is none."""
    line = _DATED.match(data, at)
    if line:
        return line.end()
    if style != "undated":
        return -1
    line = _UNDATED.match(data, at)
    return line.end() if line and _NAMED_HEADER_NEXT.match(data, line.end()) else -1


def begins_message(data: bytes, at: int, end: int) -> bool:
    """Say whether what surrounds the separator line data[at:end] lets a message begin there."""
    if not (_HEADER_NEXT.match(data, end) or end >= len(data)):
        return False
    if not (data.startswith(b"\n\n", at - 2) or data.startswith(b"\n\r\n", at - 3)):
        return _follows_pipermail(data, at)
    before = data[max(0, at - LOOK_BEHIND) : at]
    return not before.rstrip().endswith(b"---") or _INCLUDED.search(before) is None


def _follows_pipermail(data: bytes, at: int) -> bool:
    """Pipermail writes no blank line before a separator, but repeats the address right after it."""
    match = _PIPERMAIL.match(data, at)
    return match is not None and match[1] == match[2]


def header_end(data: bytes, start: int, stop: int) -> int:
    """Return the position of the line break before the blank line that ends the header, or -1."""
    unix = data.find(b"\n\n", start, stop)
    end = stop if unix < 0 else unix
    dos = data.find(b"\n\r\n", start, end) if data.find(b"\r", start, end) >= 0 else -1
    return unix if dos < 0 else dos


def multipart_delimiter(header: bytes) -> bytes:
    """Return the delimiter (with the line break before it) that a header declares, b"" if none."""
    match = _BOUNDARY.search(header)
    return b"\n--" + (match[1] or match[2]) if match else b""


def find_delimiter(data: bytes, delimiter: bytes, start: int, stop: int) -> int:
    """Return where a line of this delimiter begins in data[start:stop], or -1."""
    while True:
        at = data.find(delimiter, start, stop)
        end = at + len(delimiter)
        if at < 0 or end >= len(data) or data[end] in _AFTER_DELIMITER:
            return at
        start = end


def declared_length(header: bytes) -> int | None:
    """Return the value of a header block's Content-Length field."""
    match = _CONTENT_LENGTH.search(header)
    return int(match[1]) if match else None


def frames_itself(data: bytes, start: int, stop: int) -> bytes:
    """Return the part of a header block that may tell where its message ends, mostly none."""
    at = data.find(b"ontent-", start, stop)
    if at < 0:
        return b""
    fields = data[at - 1 : stop]
    folded = fields.lower()
    return fields if b"boundary" in folded or b"ent-length" in folded else b""


def ends_with_separator(data: bytes, at: int, style: Style, *, complete: bool) -> int:
    """Return where the next message begins if a message ends at `at`, else -1.

    One or two line breaks may stand between. `complete` says that `data` holds the end of the file.
    """
    match = _LINE_BREAKS.match(data, at)
    at = match.end() if match else at
    if at >= len(data):
        return at if complete and at == len(data) else -1
    end = line_end(data, at, style)
    return at if end > 0 and _HEADER_NEXT.match(data, end) else -1
