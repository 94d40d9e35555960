"""The mesh's server protocol: identity, deadlines and admission in front of any ASGI application.

The only module that touches uvicorn's internals. `tests/transport/test_uvicorn_contract.py` pins
what is used of them; where a hook stops being called, no identity is set and every request is 401.
"""

import asyncio
import urllib.parse
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import Any

import httptools
import structlog
from uvicorn._types import ASGISendEvent, HTTPScope
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from hivemesh_sdk.contracts.names import HEALTH_PATH
from hivemesh_sdk.transport.answers import (
    STATUS_LINE,
    Application,
    checked_head,
    chunk,
    has_body,
    problem_application,
    problem_bytes,
)
from hivemesh_sdk.transport.direct import Asked, Direct
from hivemesh_sdk.transport.direct_reply import NO_EVENT, DirectReply
from hivemesh_sdk.transport.known_heads import Headers, Known, KnownHeads, whole
from hivemesh_sdk.transport.limits import Guard
from hivemesh_sdk.transport.standing import Standing
from hivemesh_sdk.trust.identity import Kind
from hivemesh_sdk.trust.refusals import Reason

_LOG = structlog.get_logger("hivemesh.transport")
PIECE = 128 * 1024  # of answers in one write
MOST_AT_ONCE = 32  # requests that come together and are answered together; more wait for these


class Connections:
    """Everything uvicorn keeps per listener, and the factory of its connections."""

    def __init__(self, app: Application, guard: Guard) -> None:
        self.state = ServerState()
        self._config = _config(app)
        self._awaited: set[DirectReply] = set()
        direct = app if isinstance(app, Direct) else None
        bound = {"guard": guard, "direct": direct, "awaited": self._awaited}
        self._protocol: type[MeshProtocol] = type("BoundMeshProtocol", (MeshProtocol,), bound)

    def open(self) -> "MeshProtocol":
        """Make the protocol of one new connection."""
        return self._protocol(self._config, self.state, {})

    def all(self) -> tuple["MeshProtocol", ...]:
        """The open connections."""
        return tuple(self.state.connections)  # type: ignore[arg-type]  # `open` makes all of them

    @property
    def requests(self) -> int:
        """How many requests are being answered."""
        return len(self.state.tasks) + len(self._awaited)

    def running(self) -> tuple[asyncio.Future[None], ...]:
        """The requests that are being answered, to wait for."""
        return (*self.state.tasks, *(reply.completion() for reply in self._awaited))

    def set_date(self, text: str) -> None:
        """Set the `date` of all answers."""
        date = text.encode("ascii")
        self.state.default_headers = [(b"date", date)]
        self._protocol.date_line = b"date: " + date


def _config(app: Application) -> Config:
    config = Config(
        app,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # its default believes forwarded headers from loopback
        server_header=False,
        date_header=False,
    )
    # `Config.load` would call the application to find out its kind; this is what remains of it.
    config.loaded_app = app
    config.ws_protocol_class = None
    config.encoded_headers = []
    config.loaded = True
    return config


class MeshProtocol(HttpToolsProtocol):
    """One connection."""

    guard: Guard  # set on the subclass that a listener makes
    direct: Direct | None = None  # the application, where it offers direct answers; set there too
    awaited: "set[DirectReply]"  # those that come later; set there too
    date_line = b""  # set there every second
    cycle: "MeshCycle | DirectReply"  # type: ignore[assignment]  # None at first, see `_current`

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.access_log = False
        self.standing = Standing(self.guard)
        self.heads = KnownHeads()
        self.opened = self.guard.clock.monotonic()
        self.receiving_since: float | None = self.opened
        self.idle_since: float | None = None
        self.lingering_since: float | None = None
        self.stalled_since: float | None = None
        self.unsent = 0
        self.over_limit = False
        self.received = 0
        self.head_bytes = 0
        self.open_head: list[int] | None = (
            None  # bytes of a head that has not ended, after the first
        )
        self._most_head = self.guard.limits.headers
        self._shared = self.guard.limits.shared
        self.rejection: tuple[str, Reason, str] | None = None
        self._held: MeshCycle | None = None  # may be answered directly once its body is there
        self.in_order: deque[DirectReply] = deque()  # of requests that came together
        self._due = False  # their answers are about to be written
        self._blocked = False  # a large one of them is on its way

    # Connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        super().connection_made(transport)
        self.over_limit = len(self.connections) > self.guard.limits.connections
        if self.guard.identity_required:
            self.standing.identify(transport.get_extra_info("ssl_object"))
        self.app_state = {**self.app_state, "peer": self.standing.peer}

    def connection_lost(self, exc: Exception | None) -> None:
        self.receiving_since = self.idle_since = None
        super().connection_lost(exc)
        self._disconnect_all()
        self.guard.connection_closed()

    def sweep(self, now: float) -> None:
        """Close what is too slow, too old or idle for too long."""
        limits = self.guard.limits
        if self.stalled_since is not None and self._stalled(now, self.stalled_since):
            return
        if self.lingering_since is not None:
            if now - self.lingering_since > limits.linger_s:
                self.transport.close()
        elif self.receiving_since is not None:
            self._sweep_receiving(now)
        elif self.idle_since is not None:
            if now - self.idle_since > limits.idle_s or now - self.opened > limits.age_s:
                self.transport.close()
        elif now - self.opened > limits.age_s:
            self._last_answer()

    def _sweep_receiving(self, now: float) -> None:
        limits = self.guard.limits
        if self.flow.read_paused or self.receiving_since is None:
            self.receiving_since = now  # our own application is the slow one
            return
        allowed = limits.receive_s + self.received / limits.receive_rate
        if now - self.receiving_since <= allowed:
            return
        begun = self.head_bytes > 0
        self.guard.refusals.add(
            Reason.SLOW, f"request incomplete after {limits.receive_s:g} s", peer=self._who()
        )
        if begun and not self._answering():
            self.transport.write(problem_bytes("slow-request", ""))
        self._abandon()

    def _stalled(self, now: float, since: float) -> bool:
        """Drop a peer that takes nothing of its answer; it would hold a slot for ever."""
        waiting = self.transport.get_write_buffer_size()
        if waiting < self.unsent:
            self.unsent, self.stalled_since = waiting, now
        elif now - since > self.guard.limits.receive_s:
            self.guard.refusals.add(Reason.SLOW, "answer not taken", peer=self._who())
            self.transport.abort()
            return True
        return False

    def _answering(self) -> bool:
        """Say whether bytes of an answer are on their way, so that no other may be written."""
        cycle = self._current()
        started = cycle is not None and cycle.response_started and not cycle.response_complete
        return bool(self.pipeline or self.in_order) or started

    def _abandon(self) -> None:
        cycle = self._current()
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        self._disconnect_all()
        self.transport.close()

    def _disconnect_all(self) -> None:
        for reply in self.in_order:
            reply.disconnected = True
        self.in_order.clear()

    def _last_answer(self) -> None:
        cycle = self._current()
        if cycle is None or cycle.response_complete:
            self.transport.close()
        else:
            cycle.keep_alive = False

    def _current(self) -> "MeshCycle | DirectReply | None":
        return self.cycle

    # Parser callbacks

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self.idle_since is not None:
            if self.direct is not None:
                data = self._answer_known(data, self.direct)
                if not data:
                    return
                self.write_in_order()  # what is answered leaves before anything else is read
            self.receiving_since, self.idle_since = self.guard.clock.monotonic(), None
        head = self.open_head
        try:
            self.parser.feed_data(data)
            if head is not None and head is self.open_head:
                self._grow_head(head, len(data))
        except httptools.HttpParserError as error:
            self._held = None
            self.send_400_response(str(error))
        if self._held is not None:  # its body comes later
            cycle, self._held = self._held, None
            self._start_task(cycle, self.app)

    def _grow_head(self, head: list[int], size: int) -> None:
        """Bound a head that has not ended: the parser tells of a header only when it is whole."""
        head[0] += size
        if head[0] > self._most_head:
            self.rejection = ("headers-too-large", Reason.TOO_LARGE, "request head too large")
            raise httptools.HttpParserError

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.open_head = [0]
        self.received = 0
        self.head_bytes = 1
        if self.receiving_since is None:
            self.receiving_since = self.guard.clock.monotonic()

    def on_url(self, url: bytes) -> None:
        self.url += url
        self.head_bytes += len(url)
        if self.head_bytes > self._most_head:
            self._reject_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))
        self.head_bytes += len(name) + len(value)
        if self.head_bytes > self._most_head:
            self._reject_head()

    def _reject_head(self) -> None:
        self._reject("headers-too-large", Reason.TOO_LARGE, "request head too large")

    def on_headers_complete(self) -> None:
        self.open_head = None
        parser, scope = self.parser, self.scope
        if parser.should_upgrade():
            self._reject("malformed", Reason.MALFORMED, "protocol upgrades are not served")
        scope["method"] = parser.get_method().decode("ascii")
        version = parser.get_http_version()
        scope["http_version"] = version
        self._set_path(self.url)
        keep_alive = version == "1.1" and parser.should_keep_alive()
        app = self._admit(scope)
        previous = self._current()
        self.cycle = cycle = self._new_cycle(scope, keep_alive=keep_alive)
        if previous is not None and not previous.response_complete:
            cycle.message_event = asyncio.Event()
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, app))
        elif app is self.direct and self._may_be_direct(scope, self.direct):
            self._held = cycle
            self.heads.learn(scope if keep_alive else None)
        else:
            cycle.message_event = asyncio.Event()
            self._start_asgi_task(cycle, app)

    def _new_cycle(self, scope: HTTPScope, *, keep_alive: bool) -> "MeshCycle":
        cycle = MeshCycle(
            scope,
            self.transport,
            self.flow,
            self.logger,
            self.access_logger,
            False,  # noqa: FBT003 - no access log; by position, as it is called for every request
            self.server_state.default_headers,
            NO_EVENT,  # type: ignore[arg-type]  # nobody waits for it before `_start_task`
            self.expect_100_continue,
            keep_alive,
            self.on_response_complete,
        )
        cycle.protocol = self
        return cycle

    def _answer_known(self, data: bytes, direct: Direct) -> bytes:
        """Answer whole requests whose heads are known; returns the rest, which is the parser's.

        What came together goes through each stage together: a processor that has just run a piece of
        code runs it again in half the time.
        """
        known = self._known(data)
        # Near the limit of requests each counts for the next one.
        near_limit = self._requests + len(known) >= self._shared
        asked: list[tuple[DirectReply, Asked]] = []
        app: Application | None = None
        begin, size = 0, len(data)
        for scope, headers, body, end in known:
            if self.flow.write_paused or not direct.takes(scope):
                break
            if app is None or near_limit:  # else what holds for the first one holds for it too
                app = self._admit(scope)
            self.idle_since = None
            if app is not direct:
                self._run(asked)
                asked = []
                cycle = self._new_cycle(whole(scope, headers), keep_alive=True)
                self._answer_after_others(cycle, app)
                begin = end
                break
            together = begin > 0 or end < size
            reply = DirectReply(self, scope, True, end < size, together)  # noqa: FBT003 - by position, as it is made for every request
            found = self._read_directly(reply, headers, data[body:end])
            begin = end
            if found is not None:
                asked.append((reply, found))
                if near_limit:
                    self._run(asked)
                    asked = []
                    if self.transport.is_closing():
                        break
        self._run(asked)
        return data[begin:] if begin else data

    def _known(self, data: bytes) -> "list[Known]":
        """The next requests whose heads are known, as many as may be answered together."""
        limits, at, size = self.guard.limits, 0, len(data)
        most = MOST_AT_ONCE - len(self.in_order)
        found: list[Known] = []
        while at < size and len(found) < most:
            known = self.heads.read(data, at)
            if known is None:
                break
            _, _, body, end = known
            if end - body > limits.body or body - at > limits.headers:
                break
            found.append(known)
            at = end
        return found

    def _answer_after_others(self, cycle: "MeshCycle", app: Application) -> None:
        self.cycle = cycle
        cycle.more_body = False
        if self.in_order:
            cycle.message_event = asyncio.Event()
            cycle.message_event.set()
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, app))
        else:
            self._start_task(cycle, app)

    def _may_be_direct(self, scope: HTTPScope, direct: Direct) -> bool:
        # Where the peer takes no answers, a task waits until it does.
        return not self.flow.write_paused and not self.expect_100_continue and direct.takes(scope)

    def _start_task(self, cycle: "MeshCycle", app: Application) -> None:
        cycle.message_event = event = asyncio.Event()
        if cycle.body or not cycle.more_body:
            event.set()
        self._start_asgi_task(cycle, app)

    def _read_directly(self, reply: DirectReply, headers: Headers, body: bytes) -> Asked | None:
        """Have the application read a request; a failure is told in its turn."""
        self.cycle = reply
        if reply.ordered:
            self.in_order.append(reply)
        try:
            asked: Asked | None = self.app.direct(reply.scope, headers, body, reply)
        except Exception as error:  # noqa: BLE001 - the boundary of a request
            return partial(reply.fail_directly, error)
        return asked

    def _run(self, asked: Iterable[tuple[DirectReply, Asked]]) -> None:
        for reply, run in asked:
            if self.transport.is_closing():  # an answer before it has ended the connection
                return
            try:
                run()
            except Exception as error:  # noqa: BLE001 - as above
                reply.fail_directly(error)

    def answer_by_task(self, reply: "DirectReply", answer: Application) -> None:
        """Give a large answer through a task, which waits until the peer takes it."""
        cycle = self._new_cycle(reply.scope, keep_alive=reply.keep_alive)
        cycle.more_body = False
        if self.cycle is reply:  # else the parser is at a later request already
            self.cycle = cycle
        self._start_task(cycle, answer)

    def _set_path(self, url: bytes) -> None:
        if not url.startswith(b"/") or b"#" in url:
            self._reject("malformed", Reason.MALFORMED, "request target is no absolute path")
        raw_path, _, query = url.partition(b"?")
        if not raw_path.isascii():
            self._reject("malformed", Reason.MALFORMED, "request target is not ASCII")
        path = raw_path.decode("ascii")
        if "%" in path:
            path = urllib.parse.unquote(path)
        self.scope["path"] = path
        self.scope["raw_path"] = raw_path
        self.scope["query_string"] = query

    def on_body(self, body: bytes) -> None:
        cycle = self.cycle
        if cycle.response_complete or isinstance(cycle, DirectReply):
            return
        self.received += len(body)
        if self.received > self.guard.limits.body:
            self._reject_body()
            return
        cycle.body += body
        if len(cycle.body) > 65536:
            self.flow.pause_reading()
        cycle.message_event.set()

    def _reject_body(self) -> None:
        cycle, self._held = self.cycle, None
        if not cycle.response_started:
            self.guard.refusals.add(Reason.TOO_LARGE, "request body too large", peer=self._who())
            self.transport.write(problem_bytes("too-large", ""))
            cycle.response_started = cycle.response_complete = True
        cycle.disconnected = True
        cycle.message_event.set()
        self.linger()

    def on_message_complete(self) -> None:
        self.receiving_since = None
        self.head_bytes = 0
        cycle = self.cycle
        if self.lingering_since is not None:
            self.transport.close()
        elif cycle.response_complete or isinstance(cycle, DirectReply):
            self.idle_since = self.guard.clock.monotonic()
        elif self._held is cycle:
            self._held = None
            reply = DirectReply(self, cycle.scope, cycle.keep_alive)
            asked = self._read_directly(reply, dict(cycle.scope["headers"]), bytes(cycle.body))
            if asked is not None:
                self._run([(reply, asked)])
        else:
            cycle.more_body = False
            cycle.message_event.set()

    # Answers

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self._blocked:
            self._blocked = False
            if self.in_order:
                self.write_in_order()
                return
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif self.lingering_since is None and self.receiving_since is None:
            self.idle_since = self.guard.clock.monotonic()

    def answered_in_order(self) -> None:
        """Write what is answered when all that was answered by now is told: it is one write."""
        if not self._due:
            self._due = True
            self.loop.call_soon(self.write_in_order)

    def is_next(self, reply: DirectReply) -> bool:
        """Whether the answer may be written now."""
        return not self._blocked and (not self.in_order or self.in_order[0] is reply)

    def write_in_order(self) -> None:
        """Write the answers that no unanswered request stands before."""
        self._due = False
        written = 0
        while self.in_order and not self._blocked:
            if self.flow.write_paused:
                return  # goes on with `resume_writing`
            large = self.in_order[0].large
            if large is not None:
                self._blocked = True
                self.answer_by_task(self.in_order.popleft(), large)
                return
            count = self._write_together()
            if not count:
                return
            written += count
        if written:
            self.server_state.total_requests += written - 1
            self.on_response_complete()

    def _write_together(self) -> int:
        """Write the next answers, as many as one write bears; returns how many."""
        replies, size, keep_alive = self.in_order, 0, True
        parts: list[bytes] = []
        broken: tuple[DirectReply, Exception] | None = None
        while replies and (answer := replies[0].waits) is not None:
            if parts and size + len(answer[2]) > PIECE:
                break
            reply = replies[0]
            try:
                data = reply.framed(*answer)
            except Exception as error:  # noqa: BLE001 - as in `_read_directly`
                reply.waits, broken = None, (reply, error)
                break
            replies.popleft()
            parts.append(data)
            size += len(data)
            keep_alive = reply.keep_alive
            reply.response_started = reply.response_complete = True
        if parts:
            self.transport.write(b"".join(parts))
        if broken is not None:
            broken[0].fail_directly(broken[1])
        elif not keep_alive:
            self.transport.close()
        return len(parts)

    def linger(self) -> None:
        """Read the rest of a refused body before closing: a reset would destroy the answer."""
        self.lingering_since = self.guard.clock.monotonic()
        self.flow.resume_reading()

    def pause_writing(self) -> None:
        self.stalled_since = self.guard.clock.monotonic()
        self.unsent = self.transport.get_write_buffer_size()
        super().pause_writing()

    def resume_writing(self) -> None:
        self.stalled_since = None
        super().resume_writing()
        if self.in_order:
            self.answered_in_order()

    def shutdown(self) -> None:
        """Close now if idle, else after the present answer."""
        self._last_answer()

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser refused; uvicorn calls this for every parser error."""
        slug, reason, detail = self.rejection or ("malformed", Reason.MALFORMED, msg)
        self.guard.refusals.add(reason, detail, peer=self._who())
        if not self._answering():
            self.transport.write(problem_bytes(slug, detail))
        self._abandon()

    def _reject(self, slug: str, reason: Reason, detail: str) -> None:
        # Raised through the parser, which then reads no further byte of this connection.
        self.rejection = (slug, reason, detail)
        raise ValueError(detail)

    # Admission

    def _admit(self, scope: HTTPScope) -> Application:
        guard = self.guard
        if self.over_limit:
            return self._refusal(
                "overloaded-server", Reason.CONNECTIONS, "too many connections", retry=True
            )
        if guard.identity_required:
            objection = self.standing.objection()
            if objection is not None:
                return self._refusal(*objection)
        held = self._requests
        if held >= self._shared and self._may_not_enter(scope, held):
            return self._refusal("overloaded", Reason.REQUESTS, "too many requests", retry=True)
        app: Application = self.app
        return app

    @property
    def _requests(self) -> int:
        return len(self.tasks) + len(self.awaited)

    def _may_not_enter(self, scope: HTTPScope, held: int) -> bool:
        """Keep the last places for processes: their heartbeats and answers are what ends the rush."""
        peer = self.standing.peer
        if peer is not None and scope["path"] == HEALTH_PATH:
            return False
        full = held >= self.guard.limits.requests
        return full or (peer is not None and peer.id.kind is Kind.USER)

    def _refusal(
        self, slug: str, reason: Reason, detail: str, *, retry: bool = False
    ) -> Application:
        self.guard.refusals.add(reason, detail, peer=self._who())
        seconds = self.guard.limits.retry_after_s if retry else None
        return problem_application(slug, detail, retry_after_s=seconds)

    def _who(self) -> str:
        if self.standing.peer is not None:
            return self.standing.peer.uri
        return f"{self.client[0]}:{self.client[1]}" if self.client else ""


class MeshCycle(RequestResponseCycle):
    """One request and its answer; keeps the head until the body is there and writes both at once."""

    protocol: MeshProtocol
    head: bytes | None = None

    async def run_asgi(self, app: Application) -> None:
        """Run the application; a failure of its own is answered and logged here."""
        try:
            await app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            self.transport.abort()  # the listener closes and waits no longer
            raise
        except Exception as error:  # noqa: BLE001 - the boundary of a request
            await self._fail("request_failed", error)
        else:
            if not self.response_complete:
                await self._fail("response_incomplete", None)
        finally:
            self.on_response = _nothing

    async def _fail(self, event: str, error: Exception | None) -> None:
        if self.disconnected:
            return  # nobody is there to be answered, and the failure most likely follows from it
        _LOG.error(event, method=self.scope["method"], path=self.scope["path"], exc_info=error)
        if self.response_started:
            self.transport.close()
            return
        self.head, self.chunked_encoding, self.expected_content_length = None, None, 0
        await problem_application("internal", "")(self.scope, self.receive, self.send)

    async def send(self, message: ASGISendEvent) -> None:
        """Take one ASGI message of the application."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if message["type"] == "http.response.start":
            self._start(message["status"], message.get("headers", ()))
        elif message["type"] == "http.response.body":
            self._body(message.get("body", b""), more=message.get("more_body", False))
        else:
            text = f"unexpected ASGI message {message['type']!r}"
            raise RuntimeError(text)

    def _start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        if self.response_started or self.head is not None:
            text = "the response was started twice"
            raise RuntimeError(text)
        self.waiting_for_100_continue = False
        lines = [STATUS_LINE[status]]
        rows = 2  # the status line and the empty one
        for name, value in (*self.default_headers, *headers):
            lowered = name.lower()
            if lowered == b"content-length":
                self.chunked_encoding = False
                self.expected_content_length = int(value)
            elif lowered == b"connection":
                self.keep_alive = self.keep_alive and b"close" not in value.lower()
                continue
            elif lowered == b"transfer-encoding":
                continue  # the framing is ours
            lines += (lowered, b": ", value, b"\r\n")
            rows += 1
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
            rows += 1
        if self.chunked_encoding is None and has_body(self.scope["method"], status):
            self.chunked_encoding = True
            lines.append(b"transfer-encoding: chunked\r\n")
            rows += 1
        lines.append(b"\r\n")
        self.head = checked_head(b"".join(lines), rows)

    def _body(self, body: bytes, *, more: bool) -> None:
        if self.response_complete or not (self.response_started or self.head is not None):
            text = "a response body came before the start or after the end"
            raise RuntimeError(text)
        if self.scope["method"] == "HEAD":
            self.expected_content_length, body = 0, b""
        elif self.chunked_encoding:
            body = chunk(body, last=not more)
        else:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0:
                text = "the response is longer than its content-length"
                raise RuntimeError(text)
        self._write(body)
        if not more:
            self._end()

    def _write(self, body: bytes) -> None:
        head, self.head = self.head, None
        self.response_started = True
        if head is None:
            if body:
                self.transport.write(body)
        elif len(body) <= 65536:
            self.transport.write(head + body)  # one TLS record for head and body
        else:
            self.transport.writelines((head, body))

    def _end(self) -> None:
        if self.expected_content_length != 0:
            text = "the response is shorter than its content-length"
            raise RuntimeError(text)
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            if self.more_body:
                self.protocol.linger()
            else:
                self.transport.close()
        self.on_response()


def _nothing() -> None:
    return None
