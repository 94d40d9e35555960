"""One table from errors to problem documents. No answer holds a stack trace."""

import msgspec
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from hivemesh_sdk.contracts.names import PROBLEM_MEDIA_TYPE
from hivemesh_sdk.contracts.problems import FieldProblem, Problem, problem
from hivemesh_sdk.errors import HivemeshError, NotFoundError
from hivemesh_sdk.safeio.problems import listing, pointer
from starlette.exceptions import HTTPException

from hivemesh_platform.api import absence
from hivemesh_platform.api.requests import request_id

_BY_STATUS = {
    400: "malformed",
    404: "not-found",
    405: "method-not-allowed",
    406: "not-acceptable",
    413: "too-large",
    415: "media-type-unsupported",
    416: "range-not-satisfiable",
    422: "invalid",
}
_log = structlog.get_logger("hivemesh.api")


def install(app: FastAPI) -> None:
    """Have every error of the application answered as a problem document."""
    for kind in (HivemeshError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _answer)


async def _answer(request: Request, error: Exception) -> Response:
    document = document_of(error, instance=request.url.path, request=request_id(request.scope))
    if document.status >= 500 and not isinstance(error, HivemeshError):
        _log.error(
            "request_failed",
            path=request.url.path,
            method=request.method,
            request_id=document.request_id,
            exc_info=error,
        )
    headers = dict(getattr(error, "headers", None) or {})
    return respond(document, headers)


def respond(document: Problem, headers: dict[str, str] | None = None) -> Response:
    """The response that carries a problem document."""
    headers = dict(headers or {})
    if document.retry_after_s is not None:
        headers["retry-after"] = str(max(1, round(document.retry_after_s)))
    return Response(
        msgspec.json.encode(document),
        status_code=document.status,
        media_type=PROBLEM_MEDIA_TYPE,
        headers=headers,
    )


def document_of(error: Exception, *, instance: str, request: str) -> Problem:
    """The problem document of an error."""
    cause = error.__cause__
    if isinstance(error, HTTPException) and isinstance(cause, HivemeshError):
        error = cause  # FastAPI wraps what reading a body raises
    match error:
        case NotFoundError(slug="not-found", remedy=""):
            return problem(
                "not-found",
                error.detail,
                remedy=absence.remedy(instance),
                instance=instance,
                request_id=request,
            )
        case HivemeshError():
            return error.problem(instance=instance, request_id=request)
        case RequestValidationError():
            fields = [_field(item) for item in error.errors()]
            return _invalid(fields, instance, request)
        case HTTPException(status_code=status) if status in _BY_STATUS:
            detail = "" if status == 404 else str(error.detail)
            slug = _BY_STATUS[status]
            return problem(slug, detail, instance=instance, request_id=request)
        case _:
            return problem("internal", instance=instance, request_id=request)


def _invalid(fields: list[FieldProblem], instance: str, request: str) -> Problem:
    detail = listing(fields)
    return problem("invalid", detail, errors=fields, instance=instance, request_id=request)


def _field(item: dict[str, object]) -> FieldProblem:
    location = item.get("loc", ())
    path = tuple(location) if isinstance(location, tuple | list) else ()
    place = path[1:] if path[:1] == ("body",) else path
    message = str(item.get("msg", "")).removeprefix("Value error, ")
    kind = str(item.get("type", ""))
    if kind == "missing":
        message = "the key is missing"
    return FieldProblem(
        pointer=pointer(place),
        message=message[:1].lower() + message[1:],
        code=kind.replace("_", "-"),
    )
