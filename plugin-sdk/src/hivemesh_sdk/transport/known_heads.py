"""Heads of requests that the parser has read before, so that a repeated one is not parsed again.

Our client writes first what differs from call to call; the lines after that repeat byte by byte.
"""

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from hivemesh_sdk.contracts.names import (
    ACKNOWLEDGE_HEADER,
    DEADLINE_HEADER,
    EXECUTION_HEADER,
    REQUEST_ID_HEADER,
)

if TYPE_CHECKING:
    from uvicorn._types import HTTPScope

MOST = 2  # of one connection; a client that varies its headers costs no more than this
MAX_BYTES = 4096

VARYING = (DEADLINE_HEADER, REQUEST_ID_HEADER, ACKNOWLEDGE_HEADER, "traceparent")  # a token each

# A target that needs no decoding, the length that frames the body, and the varying lines.
_START = re.compile(
    rb"([A-Z]{3,7}) (/[A-Za-z0-9_.~/-]*) HTTP/1\.1\r\n"
    rb"content-length: (0|[1-9][0-9]{0,8})\r\n"
    rb"((?:(?:%b): [!-~]+\r\n)*)" % "|".join(VARYING).encode()
)
# The head of a direct answer, see `direct_reply`; nothing in it closes the connection.
KNOWN_ANSWER = re.compile(
    rb"HTTP/1\.1 200 OK\r\n"
    rb"(date: [!-~][ -~]{27}[!-~]\r\n"
    rb"%b: [!-~]{1,128}\r\n"
    rb"content-type: [!-~]{1,64}\r\n"
    rb"%b: [!-~]{1,64}\r\n"
    rb"content-length: (0|[1-9][0-9]{0,8})\r\n)\r\n"
    % (REQUEST_ID_HEADER.encode(), EXECUTION_HEADER.encode())
)
_END = b"\r\n\r\n"
_LEFT_TO_THE_PARSER = frozenset(
    {
        b"connection",
        b"content-length",
        b"expect",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        *(name.encode() for name in VARYING),  # what comes twice is the parser's to read
    }
)


def split_lines(lines: bytes) -> list[tuple[bytes, bytes]]:
    """Names and values of lines that are known to be well formed."""
    parts = [line.partition(b": ") for line in lines.split(b"\r\n")[:-1]]
    return [(name, value) for name, _, value in parts]


_pairs = lru_cache(maxsize=64)(split_lines)

Headers = dict[bytes, bytes]  # names in lower case
Known = tuple["HTTPScope", Headers, int, int]  # begin and end of the body come last


class KnownHeads:
    """Of one connection: what the parser made of header lines, by their bytes."""

    __slots__ = ("_known", "_unread", "_varying")

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[HTTPScope, Headers]] = {}
        self._unread = b""
        self._varying = 0

    def read(self, data: bytes, at: int) -> Known | None:
        """Scope, headers, begin and end of the body of a whole request; None leaves it to the parser.

        `whole` makes of scope and headers what an application may have.
        """
        start = _START.match(data, at)
        if start is None:
            return None
        method, path, length, varying = start.groups()
        after = start.end()
        for lines in self._known:  # a loop: `next` of a generator takes a fifth of this method
            if data.startswith(lines, after):
                break
        else:
            end = data.find(_END, after, after + MAX_BYTES) + len(_END)
            self._unread, self._varying = data[after:end], 1 + varying.count(b"\n")
            return None
        body = after + len(lines)
        end = body + int(length)
        if end > len(data):
            return None
        scope, repeated = self._known[lines]
        scope, headers = scope.copy(), repeated.copy()
        scope["method"] = method.decode("ascii")
        scope["path"] = path.decode("ascii")
        scope["raw_path"] = path
        headers[b"content-length"] = length
        if varying:
            headers.update(_pairs(varying))
        return scope, headers, body, end

    def learn(self, scope: "HTTPScope | None") -> None:
        """Remember what the parser has made of the lines that `read` did not know.

        Only lines that are written as we would write what they mean: no other form is looked for.
        """
        lines, self._unread = self._unread, b""
        if scope is None or not lines:
            return
        headers = list(scope["headers"])[self._varying :]
        if b"".join([b"%b: %b\r\n" % pair for pair in headers]) + b"\r\n" != lines:
            return
        repeated = dict(headers)
        if len(repeated) < len(headers) or not _LEFT_TO_THE_PARSER.isdisjoint(repeated):
            return
        if len(self._known) >= MOST:
            self._known.clear()
        self._known[lines] = {**scope, "headers": (), "query_string": b""}, repeated


def whole(scope: "HTTPScope", headers: Headers) -> "HTTPScope":
    """What `KnownHeads.read` has read as a scope of its own."""
    scope["headers"] = list(headers.items())
    scope["state"] = scope["state"].copy()
    return scope
