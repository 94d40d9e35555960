"""One TLS connection of the client: whom it leads to, how it is opened, one exchange at a time."""

import asyncio
import ssl
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache

import httptools
import msgspec

from hivemesh_sdk.contracts.names import DEADLINE_HEADER
from hivemesh_sdk.transport.errors import (
    DeadlineExceededError,
    PeerRefusedError,
    TransportError,
    WorkerUnreachableError,
    why_unreachable,
)
from hivemesh_sdk.transport.known_heads import KNOWN_ANSWER, VARYING, split_lines
from hivemesh_sdk.trust.bundle import Bundle
from hivemesh_sdk.trust.chains import verified_chain
from hivemesh_sdk.trust.identity import (
    Peer,
    PeerIdentityError,
    SpiffeId,
    covers,
    peer_identity,
)
from hivemesh_sdk.trust.refusals import handshake_detail, is_certificate_alert

MAX_BODY = 16 * 1024 * 1024  # two pages of 8 MiB
PIECE = 256 * 1024  # of a large body, in one write
MAX_HEAD = 64 * 1024  # of an answer, with its trailers
MOST_PER_BYTE = 8  # of a body: what its chunks are framed with
ONE_WRITE = 64 * 1024  # below this head and body are joined into one TLS record
CLOSE_S = 1.0
SMALL = 4 * 1024  # bytes of a request that may travel with others
MOST_TOGETHER = 16  # requests that do
FEW_TOGETHER = 8  # where few are under way: were it all of them, both sides would work in turns

Chunk = bytes | memoryview


class Target(msgspec.Struct, frozen=True):
    """Where to connect and who must answer there."""

    host: str
    port: int
    identity: str  # exact SPIFFE ID, or a prefix that ends in /*
    server_name: str

    @classmethod
    def instance(cls, host: str, port: int, identity: SpiffeId) -> "Target":
        """One instance and nobody else."""
        return cls(host, port, str(identity), identity.dns_names[0])

    @classmethod
    def any_sibling(cls, host: str, port: int, identity: SpiffeId) -> "Target":
        """Any replica of the platform, or any instance of the worker, that `identity` is one of."""
        return cls(host, port, identity.prefix, identity.dns_names[-1])

    @classmethod
    def platform(cls, host: str, port: int, trust_domain: str) -> "Target":
        """Any replica of the platform."""
        return cls(host, port, f"spiffe://{trust_domain}/platform/*", f"platform.{trust_domain}")

    def __str__(self) -> str:
        return f"{self.identity} at {self.host}:{self.port}"


class Response:
    """A whole answer; header names are lower case."""

    __slots__ = ("_headers", "_lines", "body", "status")

    def __init__(
        self, status: int, lines: Sequence[tuple[bytes, bytes]] | bytes, body: bytes
    ) -> None:
        """`lines` are pairs, or the bytes of a head that is written as our server writes it."""
        self.status = status
        self.body = body
        self._lines = lines
        self._headers: dict[str, str] | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The headers by name; the values of a repeated one are joined."""
        if self._headers is None:
            self._headers = {}
            lines = self._lines
            for name, value in split_lines(lines) if isinstance(lines, bytes) else lines:
                key, text = name.lower().decode("latin-1"), value.decode("latin-1")
                present = self._headers.get(key)
                self._headers[key] = text if present is None else f"{present}, {text}"
        return self._headers


class _Exchange(msgspec.Struct, eq=False):
    """A request without an answer."""

    waiter: asyncio.Future[Response]
    max_body: int
    until: float


class Connection(asyncio.Protocol):
    """One TLS connection; carries one exchange at a time, or several small ones that began together.

    Answers come in the order of the requests. One that is written as our server writes it is read
    at once; any other is left to the parser, and both make the same of it.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._exchanges: deque[_Exchange] = deque()
        self._gathered: list[Chunk] | None = None  # not sent yet: others may join
        self._places = 0
        self._parsing = False
        self._chunks: list[bytes] = []
        self._taken = [
            0
        ]  # bytes of the answer that is being read, after the read in which it began
        self._lines: list[tuple[bytes, bytes]] = []
        self._status = 0
        self._size = 0
        self._pieces: Iterator[Chunk] = iter(())
        self._paused = False
        self._unsent = False
        self.transport: asyncio.Transport
        self._timer: asyncio.TimerHandle | None = None
        self.lost: asyncio.Future[None] = self._loop.create_future()
        self.reusable = True
        self.fresh = True
        self.retire_at = 0.0
        self.idle_since = 0.0
        self.taken_at = 0.0
        self.shared = False  # by calls that began together
        self._crowded = False  # by several that wait for an answer, or did until a moment ago
        self.users = 0  # calls that it was handed out to
        self.expires: datetime
        self.chain: Sequence[bytes] = ()  # as it was verified
        self.own_serial = 0
        self.peer: Peer | None = None  # set where the connection is kept

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a TLS transport is a Transport

    @property
    def unanswered(self) -> bool:
        """Whether an answer is still to come, be it to a caller who left."""
        return bool(self._exchanges)

    def gather(self, under_way: int) -> None:
        """Send what is asked next together with what is asked after it in this turn of the loop.

        That is no more than half of what is then under way, unless that is little.
        """
        self._gathered, self.shared = [], True
        self._places = min(MOST_TOGETHER, max(FEW_TOGETHER, under_way // 2))
        self._loop.call_soon(self._send_gathered)

    @property
    def gathers(self) -> bool:
        """Whether another small request may travel with what was gathered."""
        return self._gathered is not None and self.reusable

    def _send_gathered(self) -> None:
        gathered, self._gathered = self._gathered, None
        if gathered and not self.transport.is_closing():
            self.transport.write(b"".join(gathered))

    def exchange(
        self, head: bytes, chunks: Sequence[Chunk], max_body: int, until: float
    ) -> asyncio.Future[Response]:
        """Send one request; the answer comes later, at the latest when the loop's time is `until`."""
        waiter: asyncio.Future[Response] = self._loop.create_future()
        if self.lost.done():  # between the handshake and now
            waiter.set_exception(self._lost_error(None))
            return waiter
        self._crowded = bool(self._exchanges)
        self._exchanges.append(_Exchange(waiter, max_body, until))
        if self._timer is None or self._timer.when() > until:
            self._set_timer(until)
        if self._gathered is not None:
            self._gathered += (head, *chunks)
            self._places -= 1
            if not self._places:
                self._send_gathered()
        elif len(chunks) == 1 and len(chunks[0]) <= ONE_WRITE:
            self.transport.write(head + chunks[0])
        else:
            self._pieces = _pieces(head, chunks)
            self._unsent = True
            self._send_pieces()
        return waiter

    def forget(self, waiter: asyncio.Future[Response]) -> None:
        """The caller left: what still comes for it is nobody else's."""
        missing = [one.waiter for one in self._exchanges if not one.waiter.done()]
        if missing in ([], [waiter]) and self._exchanges:
            self._exchanges.clear()
            self.abort()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._send_pieces()

    def _send_pieces(self) -> None:
        """Send what the socket takes: TLS keeps as much memory as the largest single write."""
        while not self._paused:
            piece = next(self._pieces, None)
            if piece is None:
                self._unsent = False
                return
            self.transport.write(piece)

    def data_received(self, data: bytes) -> None:
        if not (self._parsing or self._unsent):
            data = self._read_known(data)
            if not data:
                return
        if not self._exchanges:
            self.abort()  # an answer that nobody asked for
            return
        began = self._taken
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(self._unreachable(f"answered no valid HTTP: {error}"))
            self.abort()
        if began is self._taken:  # all of it belongs to one answer
            began[0] += len(data)
            if began[0] > MAX_HEAD + MOST_PER_BYTE * self._size:
                self._fail(self._unreachable("answered with a head without an end"))
                self.abort()

    def _read_known(self, data: bytes) -> bytes:
        """Take whole answers of the known form; returns the rest, which is the parser's."""
        at = 0
        while self._exchanges:
            head = KNOWN_ANSWER.match(data, at)
            if head is None:
                break
            body = head.end()
            end = body + int(head[2])
            if end > len(data) or end - body > self._exchanges[0].max_body:
                break
            self._answered(Response(200, head[1], data[body:end]))
            at = end
        return data[at:] if at else data

    def _answered(self, response: Response) -> None:
        self.fresh = False
        waiter = self._exchanges.popleft().waiter
        if not waiter.done():
            waiter.set_result(response)

    def on_message_begin(self) -> None:
        self._parsing = True
        self._taken = [0]
        self._size = 0
        if not self._exchanges:
            self.abort()  # a second answer, which the next call would take for its own

    def on_header(self, name: bytes, value: bytes) -> None:
        self._lines.append((name, value))

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._exchanges and self._size > self._exchanges[0].max_body:
            self._fail(self._unreachable("answered with a larger body than was asked for"))
            self.abort()
            return
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        lines, self._lines = self._lines, []
        chunks, self._chunks = self._chunks, []
        if self._status < 200:
            return
        self._parsing = False
        if self._unsent or not self._parser.should_keep_alive():
            self.reusable = False  # an early answer: the rest of the body must not be sent any more
            self._pieces = iter(())
        if self._exchanges:
            body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            self._answered(Response(self._status, lines, body))

    def connection_lost(self, exc: Exception | None) -> None:
        self.reusable = False
        if not self.lost.done():
            self.lost.set_result(None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._exchanges:
            self._fail(self._lost_error(exc))

    def _set_timer(self, until: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(until, self._expire)

    def _expire(self) -> None:
        """One timer serves many exchanges: it is only set anew when it goes off too early."""
        self._timer = None
        now = self._loop.time()
        for one in self._exchanges:
            if now >= one.until and not one.waiter.done():
                detail = f"{self._target} did not answer in time"
                one.waiter.set_exception(DeadlineExceededError(detail, sent=True))
        left = [one.until for one in self._exchanges if not one.waiter.done()]
        if left:
            self._set_timer(min(left))
        elif self._exchanges:
            self._exchanges.clear()
            self.abort()

    def abort(self) -> None:
        """Close at once; whatever is still to come is of no use."""
        self.reusable = False
        self.transport.abort()

    def close(self) -> None:
        """Close in good order."""
        self.reusable = False
        self.transport.close()

    def _fail(self, error: TransportError) -> None:
        """End every exchange: where one answer is missing, nobody knows whose the next one is."""
        error.among_others = self._crowded
        while self._exchanges:
            waiter = self._exchanges.popleft().waiter
            if not waiter.done():
                waiter.set_exception(error)

    def _unreachable(self, what: str) -> WorkerUnreachableError:
        return WorkerUnreachableError(f"{self._target} {what}", sent=True)

    def _lost_error(self, exc: Exception | None) -> TransportError:
        if self.fresh and isinstance(exc, ssl.SSLError) and is_certificate_alert(exc):
            # It ended the handshake over there: no request byte was read.
            detail = f"{self._target} refused our certificate: {handshake_detail(exc)}"
            return PeerRefusedError(detail, sent=False)
        if self.fresh:
            return self._unreachable(
                "dropped the new connection without an answer; with TLS 1.3 a refused client "
                "certificate looks like this too: see the refusals that it logs"
            )
        return self._unreachable("dropped the connection before it answered")


def _pieces(head: bytes, chunks: Sequence[Chunk]) -> Iterator[Chunk]:
    """Cut a request into writes; small chunks go out together."""
    small: list[Chunk] = [head]
    size = len(head)
    for chunk in chunks:
        if size + len(chunk) <= ONE_WRITE:
            small.append(chunk)
            size += len(chunk)
            continue
        yield b"".join(small)
        small, size = [], 0
        view = memoryview(chunk)
        for start in range(0, len(chunk), PIECE):
            yield view[start : start + PIECE]
    if small:
        yield b"".join(small)


async def call_once(
    context: ssl.SSLContext,
    bundle: Bundle,
    target: Target,
    request: tuple[str, str],
    *,
    body: bytes = b"",
    deadline_s: float,
) -> Response:
    """Send one request (method, path) on a connection of its own, as enrolment must.

    Raises:
        TransportError: there is no answer.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + deadline_s
    with explained(target):
        async with asyncio.timeout_at(until):
            connection, _ = await dial(context, bundle, target)
    headers = {"content-type": "application/json", "connection": "close"}
    head = request_head(target, *request, headers, len(body), deadline_s)
    try:
        return await connection.exchange(head, (body,), MAX_BODY, until)
    finally:
        connection.close()
        await asyncio.wait([connection.lost], timeout=CLOSE_S)


async def dial(context: ssl.SSLContext, bundle: Bundle, target: Target) -> tuple[Connection, Peer]:
    """Connect and verify who answers, before any byte of a request."""
    connection = Connection(target)
    await asyncio.get_running_loop().create_connection(
        lambda: connection,
        target.host,
        target.port,
        ssl=context,
        server_hostname=target.server_name,
    )
    tls: ssl.SSLObject = connection.transport.get_extra_info("ssl_object")
    try:
        peer = peer_identity(tls.getpeercert(binary_form=True) or b"", bundle.trust_domain)
        _expect(target, peer)
        connection.chain = verified_chain(tls)
        _believe(bundle, connection.chain)
    except PeerIdentityError as error:
        connection.abort()
        detail = f"{target} is not who it should be: {error.reason}"
        raise PeerRefusedError(detail, sent=False) from error
    return connection, peer


def _expect(target: Target, peer: Peer) -> None:
    if not covers(target.identity, peer.uri):
        message = f"{peer.uri} answered instead"
        raise PeerIdentityError(message)


def _believe(bundle: Bundle, chain: Sequence[bytes]) -> None:
    if not bundle.trusts(chain):
        message = "its root or issuer is no longer trusted"
        raise PeerIdentityError(message)


@contextmanager
def explained(target: Target) -> Iterator[None]:
    """Translate what may go wrong while connecting; no request byte has left then."""
    try:
        yield
    except TimeoutError as error:
        detail = f"no connection to {target} in time"
        raise DeadlineExceededError(detail, sent=False) from error
    except ssl.SSLCertVerificationError as error:
        detail = f"the certificate of {target} is not accepted: {error.verify_message}"
        raise PeerRefusedError(detail, sent=False) from error
    except ssl.SSLError as error:
        detail = f"no TLS connection to {target}: {handshake_detail(error)}"
        raise PeerRefusedError(detail, sent=False) from error
    except OSError as error:
        detail = f"{target} cannot be reached: {why_unreachable(error)}"
        raise WorkerUnreachableError(detail, sent=False) from error


def request_head(
    target: Target,
    method: str,
    path: str,
    headers: Mapping[str, str] | None,
    length: int,
    deadline_s: float,
) -> bytes:
    """The head of a request; what differs from call to call comes first, see `known_heads`.

    Raises:
        ValueError: a part of it would end its line.
    """
    if " " in path or not (method.isalpha() and path.isprintable()):
        message = "method or path holds a space or control character"
        raise ValueError(message)
    varying = ""
    repeated = []
    for line in headers.items() if headers else ():
        if line[0] not in VARYING:
            repeated.append(line)
        elif line[0] != DEADLINE_HEADER:
            varying += _checked(f"{line[0]}: {line[1]}\r\n", 1)
    start = (
        f"{method} {path} HTTP/1.1\r\ncontent-length: {length}\r\n{varying}"
        f"{DEADLINE_HEADER}: {int(deadline_s * 1000)}\r\n"
    )
    return start.encode("latin-1") + _repeated_lines(target.server_name, tuple(repeated))


@lru_cache(maxsize=256)
def _repeated_lines(server_name: str, headers: tuple[tuple[str, str], ...]) -> bytes:
    lines = [("host", server_name), *headers]
    text = "".join([f"{name}: {value}\r\n" for name, value in lines])
    return _checked(f"{text}\r\n", len(lines) + 1).encode("latin-1")


def _checked(lines: str, count: int) -> str:
    if lines.count("\n") != count or lines.count("\r") != count or "\0" in lines:
        message = "a header holds a line break or NUL"
        raise ValueError(message)
    return lines
