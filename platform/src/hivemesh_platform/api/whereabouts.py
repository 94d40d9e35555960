"""Tells people's clients with each answer where the other replicas are reached; pure ASGI."""

from collections.abc import Callable, Sequence

from hivemesh_sdk.contracts.names import REPLICAS_HEADER
from hivemesh_sdk.trust.identity import Kind, Peer
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADER = REPLICAS_HEADER.encode("ascii")


class Whereabouts:
    """Adds the header where there are several; workers learn it by their heartbeats."""

    def __init__(self, app: ASGIApp, urls: Callable[[], Sequence[str]]) -> None:
        self._app = app
        self._urls = urls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request of somebody who is known already."""
        urls = [] if _is_worker(scope) else [one for one in self._urls() if one]
        if len(urls) < 2:
            await self._app(scope, receive, send)
            return

        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start":
                told = (_HEADER, ", ".join(urls).encode("ascii"))
                message["headers"] = [*message.get("headers", ()), told]
            await send(message)

        await self._app(scope, receive, telling)


def _is_worker(scope: Scope) -> bool:
    peer = scope.get("state", {}).get("peer")
    return isinstance(peer, Peer) and peer.id.kind is not Kind.USER
