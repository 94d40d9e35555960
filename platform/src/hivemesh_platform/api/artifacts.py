"""Artifacts: people upload and download, steps ask for grants and use them."""

import re
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from hivemesh_sdk.contracts.api import ArtifactView
from hivemesh_sdk.contracts.artifacts import DataClass, Grant, GrantRequest
from hivemesh_sdk.contracts.names import TICKET_HEADER

from hivemesh_platform.api.access import principal_of, require, require_some
from hivemesh_platform.api.bodies import decoded
from hivemesh_platform.api.bodies import router as strict_router
from hivemesh_platform.api.declared import BYTES, EXPORT, STEP, TICKET, Header, declares
from hivemesh_platform.api.recorded import recorded
from hivemesh_platform.api.tickets import ticket_of
from hivemesh_platform.api.work import Work
from hivemesh_platform.artifacts.errors import RangeInvalidError
from hivemesh_platform.artifacts.model import ArtifactInfo
from hivemesh_platform.artifacts.service import ArtifactService, Content, Use
from hivemesh_platform.audit.ports import AuditTrail
from hivemesh_platform.execution.rights.shown import StepTickets
from hivemesh_platform.execution.runs.service import RunService
from hivemesh_platform.execution.runs.views import iso

DEFAULT_TYPE = "application/octet-stream"
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")

Name = Annotated[str | None, Query(min_length=1, max_length=255)]
Class = Annotated[DataClass, Query(alias="class")]
Step = Annotated[str, Query(max_length=256)]
RANGE = Header("range", "one range of bytes: `bytes=FIRST-LAST`")
READER = Header(TICKET_HEADER, "of workers: the ticket of the step that reads")


def router(
    artifacts: ArtifactService, runs: RunService, audit: AuditTrail, tickets: StepTickets
) -> APIRouter:
    """The routes."""
    routes = strict_router()
    work = Work(runs, artifacts)

    @routes.post("/v1/artifacts", status_code=201)
    @declares(reads=BYTES)
    async def upload_artifact(
        request: Request, name: Name = None, data_class: Class = DataClass.INTERNAL
    ) -> ArtifactView:
        """Store bytes as an artifact."""
        principal = require(request, "create:artifact")
        info = await artifacts.upload(
            request.stream(),
            name=name,
            media_type=_media_type(request),
            origin=principal.id,
            tenant=principal.tenant,
            data_class=data_class,
        )
        return view(info)

    @routes.post("/v1/artifacts/grants")
    @declares(
        reads=GrantRequest,
        answers=Grant,
        headers=(TICKET,),
        problems=(*STEP, "artifact-missing", "data-class-exceeded"),
    )
    async def grant_artifact(request: Request) -> Response:
        """Ask where a step puts or gets an artifact."""
        identity = require(request, "artifacts:grant").id
        asked = await decoded(request, GrantRequest)
        ticket = await ticket_of(request, tickets, identity, asked.step, asked.attempt)
        granted = await artifacts.grant(asked, identity, ticket)
        granted.headers[TICKET_HEADER] = request.headers[TICKET_HEADER]
        return Response(msgspec.json.encode(granted), media_type="application/json")

    @routes.put("/v1/artifacts/{sha256}", status_code=201)
    @declares(reads=BYTES, headers=(TICKET,), problems=(*STEP, "artifact-digest-mismatch"))
    async def put_artifact(
        sha256: str, request: Request, step: Step, attempt: int, name: Name = None
    ) -> ArtifactView:
        """Store an artifact on behalf of a step."""
        identity = require(request, "artifacts:transfer").id
        ticket = await ticket_of(request, tickets, identity, step, attempt)
        use = Use(identity=identity, step=step, attempt=attempt, ticket=ticket)
        info = await artifacts.put(
            request.stream(), sha256, use, name=name, media_type=_media_type(request)
        )
        return view(info)

    @routes.get("/v1/artifacts/{sha256}", response_class=StreamingResponse)
    @declares(
        answers={200: BYTES, 206: BYTES},
        headers=(RANGE, READER),
        problems=(*STEP, *EXPORT, "artifact-missing", "artifact-damaged", "range-not-satisfiable"),
    )
    async def download_artifact(
        sha256: str, request: Request, step: Step = "", attempt: int = 0
    ) -> StreamingResponse:
        """Download an artifact, or one range of its bytes."""
        use = await _use(request, tickets, step, attempt)
        if use is None:
            await work.check_artifact(request, sha256)
            await recorded(request, audit, "export:artifact", sha256)
        wanted, tenant = _range(request.headers.get("range")), principal_of(request).tenant
        content = await artifacts.open(sha256, use=use, wanted=wanted, tenant=tenant)
        return _answer(content, wanted is not None)

    return routes


def view(info: ArtifactInfo) -> ArtifactView:
    """Make the view of an artifact."""
    return ArtifactView(
        sha256=info.sha256,
        size=info.size,
        media_type=info.media_type,
        name=info.name,
        created_at=iso(info.created_at) or "",
        data_class=info.data_class,
    )


async def _use(request: Request, tickets: StepTickets, step: str, attempt: int) -> Use | None:
    """On whose behalf the caller reads: a worker always for a step that it holds."""
    principal = principal_of(request)
    if principal.kind == "worker":
        require(request, "artifacts:transfer")
        ticket = await ticket_of(request, tickets, principal.id, step, attempt)
        return Use(identity=principal.id, step=step, attempt=attempt, ticket=ticket)
    require_some(request, "read:artifact", "create:artifact", "read:dataset", "read:run")
    return None


def _answer(content: Content, partial: bool) -> StreamingResponse:  # noqa: FBT001 - private
    headers = {
        "accept-ranges": "bytes",
        "content-length": str(content.end - content.start),
        "etag": f'"{content.info.sha256}"',
    }
    if partial:
        size = content.info.size
        headers["content-range"] = f"bytes {content.start}-{content.end - 1}/{size}"
    return StreamingResponse(
        content.chunks,
        status_code=206 if partial else 200,
        media_type=content.info.media_type,
        headers=headers,
    )


def _range(header: str | None) -> tuple[int | None, int | None] | None:
    """Read a single range; several at once are not served."""
    if header is None:
        return None
    match = _RANGE.fullmatch(header.strip())
    if match is None or (not match[1] and not match[2]):
        message = f"{header!r} is no single range of bytes; write bytes=FIRST-LAST"
        raise RangeInvalidError(message)
    return int(match[1]) if match[1] else None, int(match[2]) if match[2] else None


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", DEFAULT_TYPE)[:255]
