"""One outgoing request from its first hop to its last: redirects, limits, what is read. Pure."""

import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from hivemesh_sdk.errors import InvalidError, RetryableError
from hivemesh_sdk.safeio.egress import HTTPS, Egress, EgressDeniedError, Target, parse_url
from hivemesh_sdk.safeio.json import parse_json

if TYPE_CHECKING:
    from pydantic import JsonValue

MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_LENGTH = re.compile(r"[0-9]{1,18}")
_OURS = frozenset({"host", "content-length", "transfer-encoding", "connection", "accept-encoding"})
_HARMLESS = frozenset(
    {"accept", "accept-language", "user-agent", "content-type", "content-language"}
)
_OF_BODY = frozenset({"content-type", "content-encoding", "content-language", "content-location"})
_GZIP = 31  # zlib's window bits for the gzip format


class FetchFailedError(RetryableError):
    """No complete answer came; it may work later."""

    slug = "fetch-failed"


class FetchTooLargeError(InvalidError):
    """The answer is larger than what was asked for."""

    slug = "fetch-too-large"


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchLimits:
    """How much one request may take, redirects and TLS included."""

    bytes: int = 32 * 1024 * 1024  # after decompression
    seconds: float = 30.0
    connect_s: float = 5.0
    redirects: int = MAX_REDIRECTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """An answer; names of headers are lower-case."""

    status: int
    url: str  # of the last hop
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """The body as UTF-8; what is no UTF-8 becomes the replacement character."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> "JsonValue":
        """The body as one JSON document.

        Raises:
            MalformedError: it is none, or is nested too deep.
        """
        return parse_json(self.body, name=self.url, max_bytes=len(self.body))


class Hops:
    """Where the request goes next, and with what."""

    def __init__(
        self,
        egress: Egress,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: bytes,
        limits: FetchLimits,
    ) -> None:
        self.method = method.upper()
        self.content = content
        self.target = parse_url(url)
        self.url = url
        self._egress = egress
        self._limits = limits
        self._left = limits.redirects
        self._headers = {name.lower(): value for name, value in headers.items()}
        _check_headers(self._headers)
        egress.check_target(self.target)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers of this hop, as bytes."""
        standard = 443 if self.target.scheme == HTTPS else 80
        host = f"[{self.target.host}]" if ":" in self.target.host else self.target.host
        sent = {
            "host": host if self.target.port == standard else f"{host}:{self.target.port}",
            "accept-encoding": "gzip",
            "user-agent": "hivemesh",
            **self._headers,
        }
        if self.content or self.method in {"POST", "PUT", "PATCH"}:
            sent["content-length"] = str(len(self.content))
        return [(name.encode("ascii"), value.encode("latin-1")) for name, value in sent.items()]

    def follow(self, status: int, headers: Mapping[str, str]) -> bool:
        """Turn to the next hop if this answer is a redirect; every rule holds for it again.

        Raises:
            EgressDeniedError: it leads to where nothing may go.
            FetchFailedError: too many redirects.
        """
        location = headers.get("location")
        if status not in _REDIRECTS or location is None:
            return False
        if self._left == 0:
            message = f"more than {self._limits.redirects} redirects from {self.target}"
            raise FetchFailedError(message)
        self._left -= 1
        before = self.target
        self.url = urljoin(self.url, location)
        self.target = parse_url(self.url)
        if before.scheme == HTTPS and self.target.scheme != HTTPS:
            message = f"{before} redirects to plain HTTP"
            raise EgressDeniedError(message)
        self._egress.check_target(self.target)
        if self.target.origin != before.origin:
            self._leave_origin(before, status)
        if status == 303 or (status in {301, 302} and self.method == "POST"):
            self.method, self.content = "GET", b""
            self._drop(_OF_BODY)
        return True

    def _leave_origin(self, before: Target, status: int) -> None:
        """Take along only what tells nothing: any header and any body may hold a secret."""
        if self.content and status in {307, 308}:
            message = f"{before} redirects a request with a body to {self.target}"
            raise EgressDeniedError(message)
        self._drop(self._headers.keys() - _HARMLESS)

    def _drop(self, names: Iterable[str]) -> None:
        self._headers = {key: value for key, value in self._headers.items() if key not in names}


class Body:
    """Counts and unpacks what arrives, and ends it at the limit."""

    def __init__(self, target: Target, headers: Mapping[str, str], limit: int) -> None:
        self._target = target
        self._limit = limit
        self._count = self._arrived = 0
        coding = headers.get("content-encoding", "identity").strip().lower()
        if coding not in {"identity", "gzip", "x-gzip", ""}:
            message = f"{target} answers in the encoding {coding[:20]!r}, which was not asked for"
            raise FetchFailedError(message)
        self._unpack = zlib.decompressobj(_GZIP) if "gzip" in coding else None
        length = headers.get("content-length", "")
        if _LENGTH.fullmatch(length) and int(length) > limit:
            raise self._too_large()

    def take(self, chunk: bytes) -> bytes:
        """Return what the chunk holds.

        Raises:
            FetchTooLargeError: the limit is passed.
            FetchFailedError: it is not compressed as it says.
        """
        self._arrived += len(chunk)
        if self._arrived > self._limit:
            raise self._too_large()
        if self._unpack is not None:
            if self._unpack.eof:
                message = f"{self._target} sent more than its compressed body"
                raise FetchFailedError(message)
            try:
                chunk = self._unpack.decompress(chunk, self._limit - self._count + 1)
            except zlib.error as error:
                message = f"{self._target} sent damaged data"
                raise FetchFailedError(message) from error
            if self._unpack.unused_data:
                message = f"{self._target} sent more than its compressed body"
                raise FetchFailedError(message)
        self._count += len(chunk)
        if self._count > self._limit:
            raise self._too_large()
        return chunk

    def end(self) -> None:
        """Refuse a compressed body that was cut off."""
        if self._unpack is not None and self._count and not self._unpack.eof:
            message = f"{self._target} sent an incomplete body"
            raise FetchFailedError(message)

    def _too_large(self) -> FetchTooLargeError:
        message = f"the answer of {self._target} is larger than {self._limit} bytes"
        return FetchTooLargeError(message)


def _check_headers(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if name in _OURS:
            message = f"the header {name!r} is set by the request itself"
            raise InvalidError(message)
        printable = value.isprintable() and all(ord(character) < 256 for character in value)
        if not (name.isascii() and name.replace("-", "").replace("_", "").isalnum() and printable):
            message = f"the header {name[:40]!r} cannot be sent"
            raise InvalidError(message)
