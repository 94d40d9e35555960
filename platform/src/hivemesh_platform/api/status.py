"""`/v1/status`, `/v1/health` and `/metrics`."""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Request, Response
from hivemesh_sdk.contracts.api import SystemStatus, View

from hivemesh_platform.api.access import principal_of, require
from hivemesh_platform.api.bodies import router as strict_router
from hivemesh_platform.telemetry.metrics import CONTENT_TYPE, Metrics


class Health(View):
    """Whether the platform takes work."""

    ready: bool


def router(
    status: Callable[[], SystemStatus], metrics: Callable[[], Awaitable[Metrics]]
) -> APIRouter:
    """The routes; both functions take the figures of the moment."""
    routes = strict_router()

    @routes.get("/v1/status")
    async def get_status(request: Request) -> SystemStatus:
        require(request, "read:status")
        return status()

    @routes.get("/v1/health")
    async def get_health(request: Request) -> Health:
        principal_of(request)
        return Health(ready=status().ready)

    @routes.get("/metrics")
    async def get_metrics(request: Request) -> Response:
        require(request, "read:metrics")
        return Response((await metrics()).text(), media_type=CONTENT_TYPE)

    return routes
