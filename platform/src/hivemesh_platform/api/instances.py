"""Instances register, beat and leave; everybody may ask who is live."""

from collections.abc import Callable, Sequence
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Request, Response
from hivemesh_sdk.contracts.instances import (
    Discovery,
    Heartbeat,
    HeartbeatReply,
    Registration,
    RegistrationReply,
)
from hivemesh_sdk.contracts.steps import MAX_WAIT_S
from hivemesh_sdk.trust.policy import Policies

from hivemesh_platform.api.access import peer_of, require
from hivemesh_platform.api.bodies import decoded
from hivemesh_platform.api.bodies import router as strict_router
from hivemesh_platform.api.declared import declares
from hivemesh_platform.audit import reported
from hivemesh_platform.audit.ports import AuditTrail
from hivemesh_platform.registry.discovery import visible
from hivemesh_platform.registry.service import RegistryService
from hivemesh_platform.replicas.model import Urls
from hivemesh_platform.trust.authority import Authority

JSON = "application/json"
Hear = Callable[[str, int, str], None]
Wait = Annotated[float, Query(ge=0, le=MAX_WAIT_S)]
Capability = Annotated[str, Query(max_length=200)]


def router(
    registry: RegistryService,
    authority: Authority,
    hear: Hear,
    policies: Policies,
    replicas: Callable[[], Sequence[Urls]],
    trail: AuditTrail,
) -> APIRouter:
    """The routes of the registry; `hear` is told whose bundle and issuer each instance uses.

    `replicas` are the addresses of those that live, this one first; it raises where instances have
    to ask another one, and what they said counts here all the same. Whom instances say that they
    refused is noted in the trail of who answers them: they tell it until then.
    """
    routes = strict_router()

    @routes.put("/v1/instances/{instance_id}")
    @declares(
        reads=Registration,
        answers=RegistrationReply,
        problems=(
            "manifest-mismatch",
            "capability-not-consented",
            "incompatible",
            "instance-duplicate",
        ),
    )
    async def register_instance(instance_id: str, request: Request) -> Response:
        """Register an instance, with where it listens and what it serves."""
        require(request, "instances:self")
        peer = peer_of(request)
        reply = await registry.register(peer, instance_id, await decoded(request, Registration))
        return Response(msgspec.json.encode(reply), media_type=JSON)

    @routes.post("/v1/instances/{instance_id}/heartbeat")
    @declares(reads=Heartbeat, answers=HeartbeatReply, problems=("instance-unknown",))
    async def heartbeat(instance_id: str, request: Request) -> Response:
        """Tell that an instance lives, and how it is."""
        require(request, "instances:self")
        peer = peer_of(request)
        beat, sequence = await decoded(request, Heartbeat), authority.bundle().sequence
        told = reported.events(peer.uri, f"{peer.serial:x}", beat.refusals)
        beat = msgspec.structs.replace(beat, refusals=[])
        reply = await registry.heartbeat(peer, instance_id, beat, sequence)
        hear(peer.uri, beat.bundle_sequence, beat.issuer)
        live = replicas()
        for event in told:
            trail.note(event)
        reply = msgspec.structs.replace(
            reply,
            platforms=[one.mesh for one in live if one.mesh],
            enrolments=[one.enrolment for one in live if one.enrolment],
        )
        return Response(msgspec.json.encode(reply), media_type=JSON)

    @routes.delete("/v1/instances/{instance_id}", status_code=204)
    async def deregister_instance(instance_id: str, request: Request) -> None:
        """Take an instance out of the registry."""
        require(request, "instances:self")
        await registry.deregister(peer_of(request), instance_id)

    @routes.get("/v1/discovery")
    @declares(answers=Discovery)
    async def discover(
        request: Request, after: int = -1, wait: Wait = 0.0, capability: Capability = ""
    ) -> Response:
        """List the live endpoints, once they have changed."""
        require(request, "discovery:read")
        peer, everybody = peer_of(request), await registry.discover(after, wait)
        found = visible(everybody, peer, policies.current(), capability)
        return Response(msgspec.json.encode(found), media_type=JSON)

    return routes
