"""Retention: how long what has ended is kept, and a sweep at once."""

from fastapi import APIRouter, Request
from hivemesh_sdk.contracts.api import RetentionView

from hivemesh_platform.api.access import require
from hivemesh_platform.api.bodies import router as strict_router
from hivemesh_platform.api.recorded import recorded
from hivemesh_platform.audit.ports import AuditTrail
from hivemesh_platform.execution.retention import Retention


def router(retention: Retention, audit: AuditTrail) -> APIRouter:
    """The routes."""
    routes = strict_router()

    @routes.get("/v1/retention")
    async def get_retention(request: Request, due: bool = False) -> RetentionView:  # noqa: FBT001, FBT002 - a query
        """Show how long what has ended is kept."""
        require(request, "read:config")
        return await retention.show(count=due)

    @routes.post("/v1/retention/sweep")
    async def sweep_retention(request: Request) -> RetentionView:
        """Remove what is due now."""
        require(request, "write:config")
        await recorded(request, audit, "sweep:retention")
        await retention.sweep()
        return await retention.show()

    return routes
