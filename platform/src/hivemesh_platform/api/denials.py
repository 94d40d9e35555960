"""Who is refused before his certificate expires: evict, ban, lift, list; deployment credentials."""

from fastapi import APIRouter, Request
from hivemesh_sdk.contracts.api import Page
from hivemesh_sdk.contracts.trust_api import (
    CredentialView,
    DenialRequest,
    DenialView,
    LiftRequest,
)

from hivemesh_platform.api.access import before_body, require
from hivemesh_platform.api.bodies import router as strict_router
from hivemesh_platform.api.recorded import actor_of
from hivemesh_platform.trust.model import CredentialRecord, Denial
from hivemesh_platform.trust.revocation import Decision, Revocation


def router(revocation: Revocation) -> APIRouter:
    """The routes."""
    routes = strict_router()

    @routes.get("/v1/denials")
    async def list_denials(request: Request) -> Page[DenialView]:
        """List who is refused."""
        require(request, "read:ca")
        return Page(items=[_denial(one) for one in await revocation.denials()])

    @routes.post("/v1/denials", status_code=201)
    @before_body("write:worker")
    async def deny(body: DenialRequest, request: Request) -> Page[DenialView]:
        """Evict or ban a worker, an instance, an identity, a serial or a package."""
        decision = _decision(request, "write:worker", body.target, body.reason)
        if body.action == "ban":
            return Page(items=[_denial(await revocation.ban(decision))])
        return Page(items=[_denial(one) for one in await revocation.evict(decision)])

    @routes.post("/v1/denials/lift")
    @before_body("write:worker")
    async def lift_denial(body: LiftRequest, request: Request) -> Page[DenialView]:
        """Refuse somebody no longer."""
        await revocation.lift(_decision(request, "write:worker", body.target, body.reason))
        return Page(items=[_denial(one) for one in await revocation.denials()])

    @routes.get("/v1/enrolment/credentials")
    async def list_credentials(request: Request) -> Page[CredentialView]:
        """List the deployment credentials."""
        require(request, "create:enrolment")
        return Page(items=[_credential(one) for one in await revocation.credentials()])

    @routes.post("/v1/enrolment/credentials/{credential_id}/revoke")
    async def revoke_credential(credential_id: str, request: Request) -> CredentialView:
        """Revoke a deployment credential."""
        decision = _decision(request, "create:enrolment", credential_id, "revoked by command")
        return _credential(await revocation.revoke_credential(decision))

    return routes


def _decision(request: Request, action: str, target: str, reason: str) -> Decision:
    """What an allowed principal decides; a rule may name anything, so all workers are asked for."""
    principal = require(request, action)
    by = actor_of(request, principal)
    is_admin = principal.rights.allows("admin", "*", "*")
    return Decision(target=target, reason=reason, by=by, is_admin=is_admin)


def _denial(one: Denial) -> DenialView:
    return DenialView(
        rule=one.rule,
        kind=one.kind.value,
        reason=one.reason,
        at=one.at.isoformat(),
        until=None if one.until is None else one.until.isoformat(),
        by=one.by,
    )


def _credential(one: CredentialRecord) -> CredentialView:
    return CredentialView(
        id=one.id,
        worker=one.worker,
        created_at=one.created_at.isoformat(),
        max_live=one.max_live,
        revoked_at=None if one.revoked_at is None else one.revoked_at.isoformat(),
    )
