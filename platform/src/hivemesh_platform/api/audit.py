"""The audit trail: searched, verified, exported. Nothing here changes or removes a record."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from hivemesh_sdk.contracts.api import Page
from hivemesh_sdk.contracts.audit_api import (
    AuditHashRequest,
    AuditHashView,
    AuditRecordView,
    AuditReportView,
)
from hivemesh_sdk.contracts.names import NDJSON_MEDIA_TYPE
from hivemesh_sdk.errors import InvalidError, NotAuthorizedError
from pydantic import AwareDatetime

from hivemesh_platform.access.model import Principal
from hivemesh_platform.api.access import before_body, require
from hivemesh_platform.api.bodies import router as strict_router
from hivemesh_platform.api.paging import Limit, page_of
from hivemesh_platform.api.recorded import recorded
from hivemesh_platform.audit import index
from hivemesh_platform.audit.records import Record
from hivemesh_platform.audit.service import AuditService
from hivemesh_platform.audit.verification import as_document

READ = "read:audit"
DEFAULT_TENANT = "default"
Pattern = Annotated[str, Query(max_length=512)]
Time = Annotated[AwareDatetime | None, Query()]


def router(audit: AuditService) -> APIRouter:
    """The routes."""
    routes = strict_router()

    @routes.get("/v1/audit")
    async def list_records(  # noqa: PLR0913, PLR0917 - one parameter a filter
        request: Request,
        actor: Pattern = "",
        action: Pattern = "",
        object: Pattern = "",  # noqa: A002 - its name in the address
        decision: Annotated[str, Query(pattern="^(allow|deny)?$")] = "",
        run: Pattern = "",
        since: Time = None,
        until: Time = None,
        after: Annotated[str, Query(max_length=20)] = "",
        limit: Limit = 100,
    ) -> Page[AuditRecordView]:
        principal = require(request, READ)
        query = index.Query(
            actor=actor,
            action=action,
            object=object,
            decision=decision,
            run=run,
            tenant="" if principal.tenant == DEFAULT_TENANT else principal.tenant,
            since=since,
            until=until,
            before=_place(after),
            limit=limit + 1,
        )
        found = [view(one) for one in await audit.find(query)]
        return page_of(found, limit, lambda one: str(one.seq))

    @routes.get("/v1/audit/verification")
    async def verify(request: Request) -> AuditReportView:
        _of_installation(require(request, READ))
        return AuditReportView.model_validate(as_document(await audit.verify()))

    @routes.get("/v1/audit/export", response_class=StreamingResponse)
    async def export(request: Request, since: Time = None, until: Time = None) -> StreamingResponse:
        principal = require(request, READ)
        _of_installation(principal)
        span = {"since": str(since or ""), "until": str(until or "")}
        await recorded(request, audit.trail, "export:audit", parameters=span)
        return StreamingResponse(audit.export(since, until), media_type=NDJSON_MEDIA_TYPE)

    @routes.post("/v1/audit/hash")
    @before_body(READ)
    async def hash_parameter(body: AuditHashRequest, request: Request) -> AuditHashView:
        _of_installation(require(request, READ))
        return AuditHashView(name=body.name, hmac=audit.hash(body.name, body.value))

    return routes


def view(record: Record) -> AuditRecordView:
    """Make the view of a record."""
    return AuditRecordView.model_validate(
        {name: getattr(record, name) for name in AuditRecordView.model_fields}
    )


def _of_installation(principal: Principal) -> None:
    """The chain is one: who may see it sees the records of every tenant."""
    if principal.tenant != DEFAULT_TENANT:
        message = "the whole trail belongs to the installation, not to a tenant"
        raise NotAuthorizedError(message)


def _place(after: str) -> int:
    if after and not after.isdecimal():
        message = f"{after!r} is no place in the list; use `next` of the page before"
        raise InvalidError(message)
    return int(after or 0)
