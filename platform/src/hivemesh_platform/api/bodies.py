"""Reads request bodies strictly: bounded, JSON by media type, no duplicate keys, our own errors."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from hivemesh_sdk.contracts.problems import FieldProblem
from hivemesh_sdk.contracts.unreadable import UNREADABLE
from hivemesh_sdk.errors import FatalError, InvalidError
from hivemesh_sdk.safeio.documents import validated
from hivemesh_sdk.safeio.json import check_depth, parse_json
from hivemesh_sdk.safeio.problems import MalformedError
from pydantic import BaseModel, JsonValue

from hivemesh_platform.api.access import actions_before_body, principal_of, require_some

MAX_BYTES = 1024 * 1024
_READS_BODY = frozenset({"POST", "PUT", "PATCH"})

S = TypeVar("S", bound=msgspec.Struct)


class TooLargeError(FatalError):
    """The body is larger than this resource takes."""

    slug = "too-large"


class MediaTypeError(FatalError):
    """The body is not JSON."""

    slug = "media-type-unsupported"


class StrictRequest(Request):
    """What FastAPI reads declared bodies from."""

    async def body(self) -> bytes:
        """The whole body, at most 1 MiB."""
        if not hasattr(self, "_body"):
            self._body = await bounded(self)
        return self._body

    async def json(self) -> JsonValue:
        """The body as JSON that means one thing."""
        return parse_json(await self.body(), name="the body")


class StrictRoute(APIRoute):
    """A route whose declared body is read by `StrictRequest`."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]  # a coroutine is an awaitable
        """Check the media type before anything is read."""
        handle = super().get_route_handler()
        has_body = self.body_field is not None

        async def strictly(request: Request) -> Response:
            if has_body and request.method in _READS_BODY:
                check_json(request)
            try:
                return await handle(StrictRequest(request.scope, request.receive))
            except RequestValidationError as error:
                self._explain(error)
                raise

        return strictly

    def _explain(self, error: RequestValidationError) -> None:
        """Raise `InvalidError`, which knows the keys that could have been meant."""
        model = self.body_field.field_info.annotation if self.body_field is not None else None
        if isinstance(model, type) and issubclass(model, BaseModel) and error.body is not None:
            validated(model, error.body, name="the body")


class MemberRoute(StrictRoute):
    """A route for peers with an identity: without one, nothing of the request is looked at.

    A declared body is read only for those who may do the action that the route has to name.
    """

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]  # as above
        """Look at the peer before anything is read."""
        handle = super().get_route_handler()
        actions = actions_before_body(self.endpoint)
        if self.body_field is not None and not actions:
            message = f"{self.path} reads a body; name its action with `before_body`"
            raise TypeError(message)

        async def identified(request: Request) -> Response:
            if actions:
                require_some(request, *actions)
            else:
                principal_of(request)
            return await handle(request)

        return identified


def router(*, newcomers: bool = False) -> APIRouter:
    """A router whose bodies are read strictly, and where only `newcomers` have no identity."""
    return APIRouter(route_class=StrictRoute if newcomers else MemberRoute)


def check_json(request: Request) -> None:
    """Refuse a body of another media type.

    Raises:
        MediaTypeError: it is not JSON.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        message = f"the body is {media_type or 'of no media type'!r}; send application/json"
        raise MediaTypeError(message)


async def bounded(request: Request, limit: int = MAX_BYTES) -> bytes:
    """The whole body.

    Raises:
        TooLargeError: it is larger than `limit`.
    """
    blocks: list[bytes] = []
    size = 0
    async for block in request.stream():
        size += len(block)
        if size > limit:
            message = f"the body is larger than {limit} bytes"
            raise TooLargeError(message)
        blocks.append(block)
    return b"".join(blocks)


async def decoded(request: Request, kind: type[S]) -> S:
    """A machine message.

    Raises:
        MalformedError: it is no JSON, or nested too deep.
        InvalidError: it has the wrong shape.
    """
    return _decoded(await bounded(request), kind)


async def decoded_strictly(request: Request, kind: type[S]) -> S:
    """A message of somebody whom nobody knows yet: JSON by its media type that means one thing.

    Raises:
        MediaTypeError: it says to be something else.
        MalformedError, InvalidError: as `decoded`; also for duplicate keys and broken UTF-8.
    """
    check_json(request)
    data = await bounded(request)
    parse_json(data, name="the body")
    return _decoded(data, kind)


def _decoded(data: bytes, kind: type[S]) -> S:
    check_depth(data, name="the body")
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        problem = _field_problem(str(error))
        raise InvalidError(problem.message, errors=[problem]) from error
    except UNREADABLE as error:
        message = f"the body is no JSON: {error}"
        raise MalformedError(message, code="json-syntax") from error


def _field_problem(text: str) -> FieldProblem:
    """Split msgspec's "Expected `int`, got `str` - at `$.slots[...]`" into message and place."""
    message, separator, place = text.rpartition(" - at `$")
    if not separator:
        return FieldProblem(pointer="", message=text)
    path = place.rstrip("`").replace("[...]", "").replace("[", ".").replace("]", "")
    return FieldProblem(pointer=path.replace(".", "/"), message=message)
