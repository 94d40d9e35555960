"""The way of a `Client` to the platform: its replicas, one connection at a time, what is sent again.

The next replica is asked at once where a request has not been sent. One that may have been read is
sent again only where that does no harm: if it reads, or carries an idempotency key.
"""

import http.client
import random
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar
from urllib.parse import urlsplit

import msgspec

from hivemesh_sdk.contracts.names import IDEMPOTENCY_HEADER, REPLICAS_HEADER
from hivemesh_sdk.contracts.problems import Problem, problem, slug_of
from hivemesh_sdk.errors import ConfigurationError, RemoteError

T = TypeVar("T")

BLOCK = 1024 * 1024
PATIENCE_S = 10.0  # from the first failure on, for a platform that has answered before
CONNECT_S = 5.0  # to one of several replicas
PAUSE_S = (0.1, 2.0)  # between two tries: the first and the longest
MOST = 16  # replicas that are remembered
_PROBLEM = msgspec.json.Decoder(Problem)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a replica listens, and the name that its certificate must have."""

    host: str
    port: int
    server_name: str


@dataclass(frozen=True, slots=True)
class Credentials:
    """How both sides prove who they are: files of PEM, or an API token."""

    certificate: Path | None = None
    key: Path | None = None
    roots: Path | None = None  # None: those of this machine
    token: str = ""


class Source:
    """What is uploaded; that it cannot be read is not the platform's failure."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._was_read = False
        try:
            self._start: int | None = source.tell()
        except (OSError, ValueError, AttributeError):
            self._start = None

    @property
    def once(self) -> bool:
        """Whether it is known to be readable once alone, as a pipe is."""
        return self._start is None

    def read(self, size: int = -1) -> bytes:
        """Read on."""
        self._was_read = True
        try:
            return self._source.read(size)
        except OSError as error:
            name = getattr(self._source, "name", "the source")
            message = f"{name}: {error.strerror}"
            raise ConfigurationError(message, slug="file-unreadable") from error

    def rewind(self) -> bool:
        """Go back to where it stood at first; False where it cannot."""
        if not self._was_read:
            return True
        if self._start is None:
            return False
        try:
            self._source.seek(self._start)
        except (OSError, ValueError, AttributeError):
            return False
        return True


class ApiChannel:
    """Requests to one platform, whichever of its replicas answers."""

    def __init__(
        self, addresses: Sequence[Address], credentials: Credentials, timeout_s: float
    ) -> None:
        self._given = tuple(dict.fromkeys(addresses))
        self._addresses = [*self._given]  # the one to ask comes first
        self._credentials = credentials
        self._timeout_s = timeout_s
        self._connection: _Connection | None = None
        self._reached = False

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def read(
        self, method: str, path: str, body: "bytes | Source | None", headers: dict[str, str]
    ) -> bytes:
        """Return a whole answer."""

        def once() -> bytes:
            with self._closing_where_it_fails():
                return self._send_once(method, path, body, headers).read()

        return self._patiently(once, again=_again(method, body, headers))

    @contextmanager
    def exchange(
        self, method: str, path: str, body: "bytes | Source | None", headers: dict[str, str]
    ) -> Iterator[http.client.HTTPResponse]:
        """Yield an answer while it comes; it is asked for again only before its first byte."""

        def once() -> http.client.HTTPResponse:
            with self._closing_where_it_fails():
                return self._send_once(method, path, body, headers)

        response = self._patiently(once, again=_again(method, body, headers))
        with self._closing_where_it_fails():
            yield response
            response.read()

    def _patiently(self, once: Callable[[], T], *, again: Callable[[], bool]) -> T:
        until, pause, tries = float("inf"), PAUSE_S[0], 0
        while True:
            try:
                return once()
            except RemoteError as error:
                tries += 1
                until = min(until, time.monotonic() + PATIENCE_S)
                wait = self._wait(error, pause, tries) if again() else None
                if wait is None or time.monotonic() + wait > until:
                    raise
            time.sleep(wait)
            pause = min(2 * pause, PAUSE_S[1])

    def _wait(self, error: RemoteError, pause: float, tries: int) -> float | None:
        """How long to wait before the next try, or None where there is none."""
        document = error.document
        away = slug_of(document) == "platform-unreachable"
        busy = document.status == http.HTTPStatus.SERVICE_UNAVAILABLE and document.retryable
        if not self._reached or not (away or busy):
            return None
        if tries < len(self._addresses):
            self.close()
            self._pass_over()
            return 0.0
        if slug_of(document) == "audit-unavailable":
            return None  # a full disk is not mended within our patience; each try is counted there
        told = 0.0 if away else document.retry_after_s or 0.0
        return max(told, pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter

    @contextmanager
    def _closing_where_it_fails(self) -> Iterator[None]:
        try:
            yield
        except (OSError, http.client.HTTPException) as error:
            self.close()
            document = problem("platform-unreachable", _words(error), remedy=_remedy(error))
            raise RemoteError(document) from error
        except BaseException:
            self.close()  # half an answer may still be on its way
            raise

    def _send_once(
        self, method: str, path: str, body: "bytes | Source | None", headers: dict[str, str]
    ) -> http.client.HTTPResponse:
        if self._credentials.token:
            headers = {**headers, "authorization": f"Bearer {self._credentials.token}"}
        response = self._answered(method, path, body, headers)
        self._reached = True
        self._learn(response.getheader(REPLICAS_HEADER, ""))
        if response.status >= http.HTTPStatus.BAD_REQUEST:
            raise RemoteError(_document(response))
        return response

    def _answered(
        self, method: str, path: str, body: "bytes | Source | None", headers: dict[str, str]
    ) -> http.client.HTTPResponse:
        if isinstance(body, Source) and body.once:
            self.close()  # a connection that was idle may be lost, and the bytes with it
        if self._connection is not None:
            try:
                self._connection.request(method, path, body, headers)
                response = self._connection.getresponse()
                if self._credentials.token or not _is_outlived(response) or not _rewound(body):
                    return response
                self.close()  # it speaks for a certificate that is worth nothing any more
            except (http.client.RemoteDisconnected, ConnectionError, ssl.SSLError):
                self.close()  # the platform closes idle and aged connections
                upload = isinstance(body, Source)
                if not (upload or _does_no_harm(method, headers)) or not _rewound(body):
                    raise
        self._connection = self._connected()
        self._connection.request(method, path, body, headers, encode_chunked=hasattr(body, "read"))
        return self._connection.getresponse()

    def _connected(self) -> "_Connection":
        """Connect to the first replica that can be reached; nothing has been sent to any before."""
        context = self._context()
        failures: list[OSError] = []
        for _ in range(len(self._addresses)):
            several = len(self._addresses) > 1
            within_s = min(self._timeout_s, CONNECT_S) if several else self._timeout_s
            connection = _Connection(self._addresses[0], context, self._timeout_s, within_s)
            try:
                connection.connect()
            except ssl.SSLCertVerificationError:
                connection.close()
                raise
            except OSError as error:
                connection.close()
                failures.append(error)
                self._pass_over()
            else:
                return connection
        raise failures[0]

    def _pass_over(self) -> None:
        self._addresses = [*self._addresses[1:], self._addresses[0]]

    def _learn(self, told: str) -> None:
        """Take over which replicas live, as one of them says; given ones are always kept.

        Where no root was given, anybody on the internet has a certificate for a host of his own: a
        told address is taken over only if its host was given.
        """
        if not told:
            return
        first = self._given[0]
        named = first.server_name != first.host  # one name for all, as the mesh has it
        found = [
            Address(host, port, first.server_name if named else host)
            for host, port in filter(None, map(_host_and_port, told.split(",")))
            if self._credentials.roots is not None or host in {one.host for one in self._given}
        ]
        kept = [one for one in self._addresses if one in self._given or one in found]
        if self._addresses[0] not in kept:
            kept.insert(0, self._addresses[0])
        self._addresses = [*kept, *(one for one in found if one not in kept)][:MOST]

    def _context(self) -> ssl.SSLContext:
        given = self._credentials
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        try:
            if given.roots is None:
                context.load_default_certs()
            else:
                context.load_verify_locations(cafile=str(given.roots))
            if given.certificate is not None:
                key = None if given.key is None else str(given.key)
                context.load_cert_chain(str(given.certificate), key)
        except OSError as error:
            which = given.certificate or given.roots
            detail = f"the certificate {str(which)!r} cannot be used: {error}"
            raise RemoteError(problem("credential-missing", detail)) from error
        return context


class _Connection(http.client.HTTPSConnection):
    """Verifies the platform's certificate for its own name, whatever address is dialled."""

    def __init__(
        self, address: Address, context: ssl.SSLContext, timeout_s: float, connect_s: float
    ) -> None:
        super().__init__(
            address.host, address.port, context=context, timeout=timeout_s, blocksize=BLOCK
        )
        self._server_name = address.server_name
        self._tls = context
        self._connect_s = connect_s

    def connect(self) -> None:
        plain = socket.create_connection((self.host, self.port), self._connect_s)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = self._tls.wrap_socket(plain, server_hostname=self._server_name)
        self.sock.settimeout(self.timeout)


def _does_no_harm(method: str, headers: dict[str, str]) -> bool:
    """Whether a request may be read twice."""
    return method == "GET" or IDEMPOTENCY_HEADER in headers


def _rewound(body: bytes | Source | None) -> bool:
    return not isinstance(body, Source) or body.rewind()


def _again(method: str, body: bytes | Source | None, headers: dict[str, str]) -> Callable[[], bool]:
    """Whether a request may be sent again, asked when it has failed."""
    return lambda: _does_no_harm(method, headers) and _rewound(body)


def _host_and_port(address: str) -> tuple[str, int] | None:
    try:
        parts = urlsplit(address.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    return (host, port) if parts.scheme == "https" and host and port is not None else None


def _is_outlived(response: http.client.HTTPResponse) -> bool:
    """Whether the connection's certificate has expired, or its root or issuer is trusted no more."""
    if response.status == http.HTTPStatus.FORBIDDEN:
        return response.will_close  # refused by the listener, not by a route
    return response.status == http.HTTPStatus.UNAUTHORIZED


def _document(response: http.client.HTTPResponse) -> Problem:
    body = response.read()
    try:
        return _PROBLEM.decode(body)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return problem(
            "internal", f"the platform answered {response.status} without a problem document"
        )


def _words(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the platform's certificate was not accepted: {error.verify_message}"
    if isinstance(error, http.client.RemoteDisconnected | ConnectionResetError | ssl.SSLError):
        # With TLS 1.3 a refused client certificate shows as a connection that ends.
        return "the connection was closed; the platform may have refused the operator certificate"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens at the platform's address"
    return str(error) or type(error).__name__


def _remedy(error: Exception) -> str:
    """What to do where the platform runs, but is not the one that is trusted; else empty."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return "name its root: --ca-file FILE; it is trust/web-root.pem of its state folder"
    return ""
