"""The authority of the installation: its keys with their states, their change, its roots."""

from datetime import datetime

from fastapi import APIRouter, Request
from hivemesh_sdk.contracts.trust_api import CaKeyView, CaView, RootsView, RotateRequest
from hivemesh_sdk.trust.keys import pem

from hivemesh_platform.api.access import before_body, require
from hivemesh_platform.api.bodies import router as strict_router
from hivemesh_platform.api.declared import declares
from hivemesh_platform.api.recorded import actor_of
from hivemesh_platform.trust.authority import Authority
from hivemesh_platform.trust.keyring import KeyKind, fingerprint
from hivemesh_platform.trust.rotation import KeyStatus, Rotation


def router(authority: Authority, rotation: Rotation) -> APIRouter:
    """The routes."""
    routes = strict_router()

    @routes.get("/v1/ca")
    async def get_ca(request: Request) -> CaView:
        """Show the authority and where its keys stand."""
        require(request, "read:ca")
        return _view(authority, rotation)

    @routes.get("/v1/ca/roots")
    async def get_roots(request: Request) -> RootsView:
        """Show the roots to trust."""
        require(request, "read:ca")
        found = authority.bundle().roots
        return RootsView(
            pem=pem(found).decode("ascii"), sha256=[fingerprint(root) for root in found]
        )

    @routes.post("/v1/ca/rotate", status_code=202)
    @before_body("write:ca", "admin:ca")
    @declares(problems=("ca-busy",))
    async def rotate_key(body: RotateRequest, request: Request) -> CaView:
        """Begin to change a key of the authority."""
        if body.emergency:
            await rotation.start_over(actor_of(request, require(request, "admin:ca")))
        else:
            principal = require(request, "write:ca", body.key)
            await rotation.begin(KeyKind(body.key), actor_of(request, principal))
        return _view(authority, rotation)

    return routes


def _view(authority: Authority, rotation: Rotation) -> CaView:
    return CaView(
        trust_domain=authority.trust_domain,
        root_sha256=authority.root_sha256,
        bundle_sequence=authority.bundle().sequence,
        keys=[_key(one) for one in rotation.status()],
    )


def _key(one: KeyStatus) -> CaKeyView:
    return CaKeyView(
        kind=one.kind.value,
        state=one.state.value,
        id=one.id,
        since=one.since.isoformat(),
        not_after=_time(one.not_after),
        waits_for=one.waits_for,
        waiting=list(one.waiting),
        latest=_time(one.latest),
    )


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
