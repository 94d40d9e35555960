"""Capabilities of the installed workers, with who serves them now."""

from collections.abc import Mapping

from fastapi import APIRouter, Request
from hivemesh_sdk.contracts.api import CapabilityView, Page
from hivemesh_sdk.errors import NotFoundError

from hivemesh_platform.api.access import absent, may, require, require_some
from hivemesh_platform.api.bodies import router as strict_router
from hivemesh_platform.registry.model import InstanceState
from hivemesh_platform.registry.service import RegistryService
from hivemesh_platform.routing.service import RoutingService


def router(registry: RegistryService, routing: RoutingService) -> APIRouter:
    """The routes."""
    routes = strict_router()

    @routes.get("/v1/capabilities")
    async def list_capabilities(request: Request) -> Page[CapabilityView]:
        """List the capabilities of the installed workers."""
        principal = require_some(request, "read:capability")
        found = views(registry, routing.free_slots())
        return Page(items=[one for one in found if may(principal, "read:capability", one.id)])

    @routes.get("/v1/capabilities/{name}")
    async def get_capability(name: str, request: Request) -> CapabilityView:
        """Show a capability with its schemas."""
        require(request, "read:capability", name)
        for view in views(registry, routing.free_slots()):
            if view.id == name:
                return view
        raise _absent(name)

    return routes


def _absent(name: str) -> NotFoundError:
    return absent("capability", name)


def views(registry: RegistryService, free: Mapping[str, int]) -> list[CapabilityView]:
    """One view per capability of an installed manifest, by id."""
    live: dict[str, int] = {}
    for listing in registry.instances():
        if listing.state is InstanceState.LIVE:
            for name in listing.instance.capabilities:
                live[name] = live.get(name, 0) + 1
    found = [
        CapabilityView(
            id=capability.id,
            kind=capability.kind,
            worker=worker.name,
            worker_version=worker.version,
            description=capability.description,
            input=capability.input,
            output=capability.output,
            options=capability.options,
            live_instances=live.get(capability.id, 0),
            free_slots=free.get(capability.id, 0),
        )
        for worker in registry.types()
        for capability in worker.manifest.capabilities
    ]
    return sorted(found, key=lambda view: view.id)
