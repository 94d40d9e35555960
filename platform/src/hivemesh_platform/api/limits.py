"""Limits: what may run at a time and start in a time. They are the installation's, keys a tenant's."""

from fastapi import APIRouter, Request
from hivemesh_sdk.contracts.api import LimitRequest, LimitView, Page

from hivemesh_platform.api.access import before_body, require
from hivemesh_platform.api.bodies import router as strict_router
from hivemesh_platform.api.declared import declares
from hivemesh_platform.api.recorded import recorded
from hivemesh_platform.audit.ports import AuditTrail
from hivemesh_platform.execution.jobs.limits import LimitService


def router(limits: LimitService, audit: AuditTrail) -> APIRouter:
    """The routes."""
    routes = strict_router()

    @routes.get("/v1/limits")
    async def list_limits(request: Request) -> Page[LimitView]:
        """List the limits and how far each is used."""
        principal = require(request, "read:config")
        return Page(items=await limits.all(principal.tenant), next=None)

    @routes.put("/v1/limits/{target}")
    @before_body("write:config")
    @declares(problems=("limit-invalid", "limit-from-settings"))
    async def set_limit(target: str, body: LimitRequest, request: Request) -> LimitView:
        """Set a limit."""
        principal = require(request, "write:config")
        parameters = body.model_dump(exclude_none=True)
        await recorded(request, audit, "set:limit", target, parameters)
        return await limits.set(target, body, principal.tenant, principal.id)

    @routes.delete("/v1/limits/{target}", status_code=204)
    @declares(problems=("limit-from-settings",))
    async def unset_limit(target: str, request: Request) -> None:
        """Remove a limit."""
        principal = require(request, "write:config")
        await recorded(request, audit, "unset:limit", target)
        await limits.unset(target, principal.tenant)

    return routes
