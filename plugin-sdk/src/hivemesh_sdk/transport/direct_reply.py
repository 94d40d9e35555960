"""The answer to one request that is answered by plain calls."""

import asyncio
from typing import TYPE_CHECKING, ClassVar

import msgspec
import structlog
from uvicorn._types import HTTPScope

from hivemesh_sdk.transport.answers import STATUS_LINE, checked_head, problem_bytes
from hivemesh_sdk.transport.direct import ONE_WRITE, Lines, WholeAnswer

if TYPE_CHECKING:
    from hivemesh_sdk.transport.protocol import MeshProtocol

_LOG = structlog.get_logger("hivemesh.transport")


class _NoEvent:
    """Stands where uvicorn expects an event, of a request that no task waits for."""

    def set(self) -> None: ...


NO_EVENT = _NoEvent()


class DirectReply(msgspec.Struct, eq=False):
    """The answer to a whole request by plain calls; stands where uvicorn keeps the cycle.

    A struct because one is made for every small call, and its fields cost nothing there.
    """

    protocol: "MeshProtocol"
    scope: HTTPScope
    keep_alive: bool
    others_wait: bool = False
    ordered: bool = False  # came with others, so its answer may have to wait for theirs
    waits: tuple[int, Lines, bytes] | None = None  # the answer, or it is a large one
    large: WholeAnswer | None = None
    disconnected: bool = False
    response_started: bool = False
    response_complete: bool = False
    waited_for: asyncio.Future[None] | None = None
    message_event: ClassVar[_NoEvent] = NO_EVENT

    def later(self) -> None:
        """The answer comes in another turn; until then it counts as a running request."""
        self.protocol.awaited.add(self)

    def completion(self) -> asyncio.Future[None]:
        """What to wait for until the answer was given."""
        if self.waited_for is None:
            self.waited_for = self.protocol.loop.create_future()
        return self.waited_for

    def answer(self, status: int, lines: Lines, body: bytes) -> None:
        """Answer: head and body in one write, a large one through a task."""
        protocol = self.protocol
        protocol.awaited.discard(self)
        if self.waited_for is not None:
            self._tell()
        if self.disconnected or self.response_complete:
            return
        if len(body) > ONE_WRITE:
            self._answer_by_task(WholeAnswer(status, lines, body))
            return
        if self.ordered:
            self.waits = status, lines, body
            protocol.answered_in_order()
            return
        data = self.framed(status, lines, body)
        self.response_started = True
        protocol.transport.write(data)
        self.response_complete = True
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()

    def framed(self, status: int, lines: Lines, body: bytes) -> bytes:
        """Head and body as they are sent.

        Raises:
            RuntimeError: a header value brought a line of its own.
        """
        last = b"content-length: %d\r\n\r\n" % len(body)
        if not self.keep_alive:
            last = b"connection: close\r\n" + last
        head = STATUS_LINE[status] + b"\r\n".join((self.protocol.date_line, *lines, last))
        return checked_head(head, len(lines) + (4 if self.keep_alive else 5)) + body

    def _answer_by_task(self, answer: WholeAnswer) -> None:
        if self.ordered:
            self.large = answer
            self.protocol.answered_in_order()
        else:
            self.protocol.answer_by_task(self, answer)

    def fail_directly(self, error: Exception) -> None:
        """Answer and log a failure of the application itself."""
        self.protocol.awaited.discard(self)
        if self.waited_for is not None:
            self._tell()
        if self.disconnected:
            return
        scope, transport = self.scope, self.protocol.transport
        _LOG.error("request_failed", method=scope["method"], path=scope["path"], exc_info=error)
        self.protocol.write_in_order()
        if not self.response_started and self.protocol.is_next(self):
            self.response_started = self.response_complete = True
            transport.write(problem_bytes("internal", ""))
        transport.close()

    def _tell(self) -> None:
        if self.waited_for is not None and not self.waited_for.done():
            self.waited_for.set_result(None)
