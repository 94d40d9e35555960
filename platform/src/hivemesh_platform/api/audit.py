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
from hivemesh_platform.api.declared import EXPORT, declares, lines
from hivemesh_platform.api.paging import Limit, number, page_of
from hivemesh_platform.api.recorded import recorded
from hivemesh_platform.audit import index
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
    async def list_audit_records(  # noqa: PLR0913, PLR0917 - one parameter a filter
        request: Request,
        actor: Pattern = "",
        action: Pattern = "",
        object: Pattern = "",  # noqa: A002 - its name in the address
        decision: Annotated[str, Query(pattern="^(allow|deny)?$")] = "",
        run: Pattern = "",
        since: Time = None,
        until: Time = None,
        after: Annotated[str, Query(max_length=80)] = "",
        limit: Limit = 100,
    ) -> Page[AuditRecordView]:
        """Search the audit trail."""
        principal, place = require(request, READ), _place(after)
        query = index.Query(
            actor=actor,
            action=action,
            object=object,
            decision=decision,
            run=run,
            tenant="" if principal.tenant == DEFAULT_TENANT else principal.tenant,
            since=since,
            until=until,
            before=0 if place is None or audit.several else place.seq,
            behind=place if audit.several else None,
            limit=limit + 1,
            merged=audit.several,
        )
        page = page_of(await audit.entries(query), limit, lambda one: _told(one.behind))
        return Page[AuditRecordView](items=[view(one) for one in page.items], next=page.next)

    @routes.get("/v1/audit/verification")
    async def verify_audit(request: Request) -> AuditReportView:
        """Verify the audit trail."""
        _of_installation(require(request, READ))
        own, others = await audit.verify(), await audit.verify_others()
        reports = [
            AuditReportView.model_validate({**as_document(report), "replica": name})
            for name, report in others.items()
        ]
        found = AuditReportView.model_validate({**as_document(own), "replica": audit.chain})
        holds = found.holds and all(one.holds for one in reports)
        return found.model_copy(update={"others": reports, "holds": holds})

    @routes.get("/v1/audit/export", response_class=StreamingResponse)
    @declares(
        answers=lines({"type": "object"}, "an export; `hivemesh audit verify` reads it"),
        problems=EXPORT,
    )
    async def export_audit(
        request: Request, since: Time = None, until: Time = None
    ) -> StreamingResponse:
        """Export the audit trail."""
        principal = require(request, READ)
        _of_installation(principal)
        span = {"since": str(since or ""), "until": str(until or "")}
        await recorded(request, audit.trail, "export:audit", parameters=span)
        return StreamingResponse(audit.export(since, until), media_type=NDJSON_MEDIA_TYPE)

    @routes.post("/v1/audit/hash")
    @before_body(READ)
    async def hash_audit_parameter(body: AuditHashRequest, request: Request) -> AuditHashView:
        """Tell what records hold in place of a parameter's value."""
        _of_installation(require(request, READ))
        return AuditHashView(name=body.name, hmac=audit.hash(body.name, body.value))

    return routes


def view(found: index.Found) -> AuditRecordView:
    """Make the view of a record."""
    members = AuditRecordView.model_fields.keys() - {"replica"}
    fields = {name: getattr(found.record, name) for name in members}
    return AuditRecordView.model_validate({**fields, "replica": found.chain})


def _of_installation(principal: Principal) -> None:
    """The chain is one: who may see it sees the records of every tenant."""
    if principal.tenant != DEFAULT_TENANT:
        message = "the whole trail belongs to the installation, not to a tenant"
        raise NotAuthorizedError(message)


def _told(behind: index.Behind) -> str:
    return f"{behind.at}.{behind.seq}.{behind.chain}"


def _place(after: str) -> index.Behind | None:
    if not after:
        return None
    at_text, _, rest = after.partition(".")
    seq_text, _, chain = rest.partition(".")
    at, seq = number(at_text), number(seq_text)
    if at is None or seq is None:
        message = f"{after!r} is no place in the list; use `next` of the page before"
        raise InvalidError(message)
    return index.Behind(at, seq, chain)
