"""The shell around the steps: status, manifest, commands and metrics, by FastAPI."""

from typing import Any, Protocol

import msgspec

from hivemesh_sdk.contracts.manifest import Manifest
from hivemesh_sdk.contracts.names import PROBLEM_MEDIA_TYPE
from hivemesh_sdk.contracts.openapi import worker_openapi
from hivemesh_sdk.contracts.problems import Problem
from hivemesh_sdk.contracts.steps import Command, WorkerStatus
from hivemesh_sdk.contracts.unreadable import UNREADABLE
from hivemesh_sdk.errors import FatalError, HivemeshError, InvalidError, NotFoundError
from hivemesh_sdk.web import FastAPI, Request, Response
from hivemesh_sdk.worker.access import Access
from hivemesh_sdk.worker.codec import field_problems

METRICS_MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_encode = msgspec.json.Encoder().encode
_decode_command = msgspec.json.Decoder(Command).decode


class Instance(Protocol):
    """What the shell shows."""

    @property
    def manifest(self) -> Manifest: ...

    def status(self) -> WorkerStatus: ...

    def metrics(self) -> bytes: ...

    def begin_drain(self) -> None: ...


def build_shell(instance: Instance, access: Access) -> FastAPI:
    """The routes of one instance; `/openapi.json` describes them and the step routes."""
    metadata = instance.manifest.metadata
    app = FastAPI(
        title=metadata.name,
        version=metadata.version,
        description=metadata.description,
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        openapi_url=None,
    )
    _refuse_in_our_form(app)

    @app.get("/", summary="Status and running steps", response_class=Response)
    @app.get("/v1/status", summary="Status and running steps", response_class=Response)
    async def status(request: Request) -> Response:
        access.require_reader(request.scope)
        return _json(instance.status())

    @app.get("/v1/manifest", summary="The manifest, as JSON")
    async def manifest(request: Request) -> dict[str, Any]:
        access.require_reader(request.scope)
        return instance.manifest.document()

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi(request: Request) -> dict[str, Any]:
        access.require_reader(request.scope)
        return {**worker_openapi()}  # the step routes stand in front of this shell

    @app.get("/metrics", summary="Metrics as Prometheus reads them", response_class=Response)
    async def metrics(request: Request) -> Response:
        access.require_reader(request.scope)
        return Response(instance.metrics(), media_type=METRICS_MEDIA_TYPE)

    @app.post("/v1/commands", status_code=202, summary="Drain", response_class=Response)
    async def commands(request: Request) -> Response:
        access.require_platform(request.scope)
        _obey(instance, _command(await request.body()))
        return _json(instance.status(), 202)

    return app


def _command(body: bytes) -> Command:
    try:
        return _decode_command(body)
    except msgspec.ValidationError as error:
        raise InvalidError(str(error), errors=field_problems(error) or ()) from error
    except UNREADABLE as error:
        raise FatalError(str(error), slug="malformed") from error


def _obey(instance: Instance, command: Command) -> None:
    match command.command:
        case "drain":
            instance.begin_drain()


def _json(document: WorkerStatus, status: int = 200) -> Response:
    return Response(_encode(document), status, media_type="application/json")


def _problem(document: Problem) -> Response:
    return Response(_encode(document), document.status, media_type=PROBLEM_MEDIA_TYPE)


def _refuse_in_our_form(app: FastAPI) -> None:
    @app.exception_handler(HivemeshError)
    async def ours(request: Request, error: HivemeshError) -> Response:
        return _problem(error.problem(instance=request.url.path))

    @app.exception_handler(404)
    async def missing(request: Request, _: Exception) -> Response:
        return _problem(NotFoundError(request.url.path).problem(instance=request.url.path))

    @app.exception_handler(405)
    async def method(request: Request, error: Exception) -> Response:
        refusal = FatalError(request.method, slug="method-not-allowed")
        answer = _problem(refusal.problem(instance=request.url.path))
        answer.headers.update(getattr(error, "headers", None) or {})  # `Allow`
        return answer
