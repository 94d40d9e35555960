"""Gives each request an id; pure ASGI, in front of everything."""

import itertools
import os
import re
from collections.abc import MutableMapping
from typing import Any

import structlog
from hivemesh_sdk.contracts.names import REQUEST_ID_HEADER
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hivemesh_platform.storage.database import PATIENCE_S

ANSWER_WITHIN_S = 10.0  # where the database server does not answer: 503, and the caller tries again
_VALID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_HEADER = REQUEST_ID_HEADER.encode("ascii")
_KEY = "request_id"


def request_id(scope: MutableMapping[str, Any]) -> str:
    """The id of a request."""
    return str(scope.get("state", {}).get(_KEY, ""))


class RequestIds:
    """Takes over the caller's request id or makes one; answers with it and binds it to the log."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._prefix = os.urandom(4).hex()
        self._numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        identifier = self._identifier(scope)
        scope.setdefault("state", {})[_KEY] = identifier
        encoded = identifier.encode("ascii")
        started = False

        async def tagged(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), (_HEADER, encoded)]
            await send(message)

        PATIENCE_S.set(ANSWER_WITHIN_S)
        structlog.contextvars.bind_contextvars(request_id=identifier)
        try:
            await self._app(scope, receive, tagged)
        except Exception:
            if not started:  # else Starlette has answered 500 and `api.errors` has logged it
                raise
        finally:
            structlog.contextvars.unbind_contextvars("request_id")

    def _identifier(self, scope: Scope) -> str:
        for name, value in scope["headers"]:
            if name == _HEADER and _VALID.fullmatch(value):
                return str(value, "ascii")
        return f"{self._prefix}-{next(self._numbers):x}"
