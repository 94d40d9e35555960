"""Heads of requests that the parser has read before, so that a repeated one is not parsed again.

Our client writes first what differs from call to call; the lines after that repeat byte by byte.
"""

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from hivemesh_sdk.contracts.names import DEADLINE_HEADER, REQUEST_ID_HEADER

if TYPE_CHECKING:
    from uvicorn._types import HTTPScope

MOST = 2  # of one connection; a client that varies its headers costs no more than this
MAX_BYTES = 4096

VARYING = (DEADLINE_HEADER, REQUEST_ID_HEADER, "traceparent")  # one token each

# A target that needs no decoding, the length that frames the body, and the varying lines.
_START = re.compile(
    rb"([A-Z]{3,7}) (/[A-Za-z0-9_.~/-]*) HTTP/1\.1\r\n"
    rb"content-length: (0|[1-9][0-9]{0,8})\r\n"
    rb"((?:(?:%b): [!-~]+\r\n)*)" % "|".join(VARYING).encode()
)
_END = b"\r\n\r\n"
_FRAMING = frozenset(
    {
        b"connection",
        b"content-length",
        b"expect",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)


@lru_cache(maxsize=64)
def _pairs(lines: bytes) -> list[tuple[bytes, bytes]]:
    parts = [line.partition(b": ") for line in lines.split(b"\r\n")[:-1]]
    return [(name, value) for name, _, value in parts]


class KnownHeads:
    """Of one connection: what the parser made of header lines, by their bytes."""

    __slots__ = ("_scopes", "_unread", "_varying")

    def __init__(self) -> None:
        self._scopes: dict[bytes, HTTPScope] = {}
        self._unread = b""
        self._varying = 0

    def read(self, data: bytes) -> "tuple[HTTPScope, bytes] | None":
        """Split a whole request into scope and body; None leaves it to the parser."""
        start = _START.match(data)
        if start is None:
            return None
        method, path, length, varying = start.groups()
        headers = [(b"content-length", length), *_pairs(varying)]
        end = len(data) - int(length)  # of the head, if this is one whole request
        lines = data[start.end() : max(end, 0)]
        known = self._scopes.get(lines)
        if known is None:
            self._unread, self._varying = lines, len(headers)
            return None
        scope = known.copy()
        scope["method"] = method.decode("ascii")
        scope["path"] = path.decode("ascii")
        scope["raw_path"] = path
        headers += known["headers"]
        scope["headers"] = headers
        scope["state"] = known["state"].copy()
        return scope, data[end:]

    def learn(self, scope: "HTTPScope") -> None:
        """Remember what the parser has made of the lines that `read` did not know."""
        lines, self._unread = self._unread, b""
        headers = list(scope["headers"])[self._varying :]
        if len(lines) > MAX_BYTES or lines.find(_END) != len(lines) - len(_END):
            return  # more or less than one head
        if any(name in _FRAMING for name, _ in headers):
            return
        if len(self._scopes) >= MOST:
            self._scopes.clear()
        self._scopes[lines] = {**scope, "headers": headers, "query_string": b""}
