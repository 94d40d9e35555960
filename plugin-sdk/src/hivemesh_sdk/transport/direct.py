"""Direct answers: a small request that is whole is answered by plain calls instead of a task.

An application that offers `takes` and `direct` besides its ASGI call gets such requests this way;
everything else, and every request that arrives in parts, comes through ASGI.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope

ONE_WRITE = 64 * 1024  # above this an answer waits until the peer takes it

Asked = Callable[[], None]
Lines = Sequence[bytes]  # headers as `name: value`, names in lower case


class Reply(Protocol):
    """Where a direct answer goes."""

    @property
    def others_wait(self) -> bool:
        """Whether the answers to later requests of the connection wait for this one."""
        ...

    def later(self) -> None:
        """Tell that `answer` is called in another turn of the loop."""
        ...

    def answer(self, status: int, lines: Lines, body: bytes) -> None:
        """Answer; `date` and `content-length` are added."""
        ...

    def fail_directly(self, error: Exception) -> None:
        """Answer that the application failed; for what is raised after `later`."""
        ...


@runtime_checkable
class Direct(Protocol):
    """An ASGI application that can also do without a task."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    def takes(self, scope: HTTPScope) -> bool:
        """Whether `direct` answers this request."""
        ...

    def direct(
        self, scope: HTTPScope, headers: Mapping[bytes, bytes], body: bytes, reply: Reply
    ) -> Asked | None:
        """Read a request; the headers are those of the mapping, and not of the scope.

        What is returned is called once the others that came with it are read too: it answers, or
        calls `reply.later` and answers then. None: it was answered at once.
        """
        ...


def header_pairs(lines: Lines) -> list[tuple[bytes, bytes]]:
    """The same headers as ASGI wants them."""
    return [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]


class WholeAnswer:
    """An ASGI application that gives one answer; it waits for the peer to take it."""

    def __init__(self, status: int, lines: Lines, body: bytes) -> None:
        self._status = status
        self._headers = header_pairs(lines)
        self._body = body

    async def __call__(
        self, _scope: Scope, _receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        """Send it."""
        headers = [*self._headers, (b"content-length", b"%d" % len(self._body))]
        await send({"type": "http.response.start", "status": self._status, "headers": headers})
        view = memoryview(self._body)
        for start in range(0, len(view), ONE_WRITE):
            piece = bytes(view[start : start + ONE_WRITE])
            more = start + ONE_WRITE < len(view)
            await send({"type": "http.response.body", "body": piece, "more_body": more})
