"""`/v1/status`, `/v1/queue`, `/v1/health` and `/metrics`."""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Request, Response
from hivemesh_sdk.contracts.api import Page, QueueView, SystemStatus, View

from hivemesh_platform.access.service import DEFAULT_TENANT
from hivemesh_platform.api.access import principal_of, require
from hivemesh_platform.api.bodies import router as strict_router
from hivemesh_platform.api.declared import TEXT, declares
from hivemesh_platform.telemetry.metrics import CONTENT_TYPE, Metrics


class Health(View):
    """Whether the platform takes work."""

    ready: bool


def router(
    status: Callable[[], SystemStatus],
    metrics: Callable[[], Awaitable[Metrics]],
    active: Callable[[str], Awaitable[int]],
    queue: Callable[[str], Awaitable[list[QueueView]]],
) -> APIRouter:
    """The routes; the functions take the figures of the moment, `active` and `queue` of one tenant."""
    routes = strict_router()

    @routes.get("/v1/status")
    async def get_status(request: Request) -> SystemStatus:
        """Show the installation at a glance."""
        principal = require(request, "read:status")
        if principal.tenant == DEFAULT_TENANT:
            return status()
        return of_tenant(status(), await active(principal.tenant))

    @routes.get("/v1/queue")
    async def get_queue(request: Request) -> Page[QueueView]:
        """Show what waits to be placed, by capability."""
        return Page(items=await queue(require(request, "read:status").tenant))

    @routes.get("/v1/health")
    async def get_health(request: Request) -> Health:
        """Tell whether the platform takes work."""
        principal_of(request)
        return Health(ready=status().ready)

    @routes.get("/metrics")
    @declares(answers=TEXT)
    async def get_metrics(request: Request) -> Response:
        """Show the metrics in the Prometheus text format."""
        require(request, "read:metrics")
        return Response((await metrics()).text(), media_type=CONTENT_TYPE)

    return routes


def of_tenant(status: SystemStatus, runs_active: int) -> SystemStatus:
    """What people of another tenant see: their own runs, and nothing of the machine."""
    return status.model_copy(
        update={
            "runs_active": runs_active,
            "state_folder": "",
            "pid": 0,
            "quarantined": [],
            "audit_problem": "",
            "secrets_sealed": "",
        }
    )
