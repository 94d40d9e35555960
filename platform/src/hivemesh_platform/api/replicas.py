"""The replicas of the platform, and who of them leads in what."""

from fastapi import APIRouter, Request
from hivemesh_sdk.contracts.api import Page, ReplicaView

from hivemesh_platform.api.access import require
from hivemesh_platform.api.bodies import router as strict_router
from hivemesh_platform.execution.runs.views import iso
from hivemesh_platform.replicas.model import Replica
from hivemesh_platform.replicas.service import Replicas, Snapshot


def router(replicas: Replicas) -> APIRouter:
    """The routes."""
    routes = strict_router()

    @routes.get("/v1/replicas")
    async def list_replicas(request: Request) -> Page[ReplicaView]:
        """List the replicas of the platform."""
        require(request, "read:replica")
        found = await replicas.present()
        return Page(items=[_view(one, found, replicas.own.id) for one in found.replicas.values()])

    return routes


def _view(replica: Replica, found: Snapshot, own: str) -> ReplicaView:
    leads = [
        name
        for name, one in found.leaders.items()
        if replica.is_live and (one.holder, one.holder_epoch) == (replica.id, replica.epoch)
    ]
    return ReplicaView(
        id=replica.id,
        state=replica.state.value,
        epoch=replica.epoch,
        leads=leads,
        answers=replica.id == own,
        version=replica.version,
        mesh_url=replica.urls.mesh,
        people_url=replica.urls.people,
        started_at=iso(replica.started_at) or "",
        seen_at=iso(replica.seen_at) or "",
    )
