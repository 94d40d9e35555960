"""Who asks, and what he may do."""

from fastapi import APIRouter, Request
from hivemesh_sdk.contracts.access_api import PrincipalView

from hivemesh_platform.access.model import Principal
from hivemesh_platform.access.service import AccessService
from hivemesh_platform.api.access import principal_of
from hivemesh_platform.api.bodies import router as strict_router


def router(_access: AccessService) -> APIRouter:
    """The routes; everybody may ask about himself."""
    routes = strict_router()

    @routes.get("/v1/whoami")
    async def whoami(request: Request) -> PrincipalView:
        """Show who the caller is and what he may do."""
        return view(principal_of(request))

    return routes


def view(principal: Principal) -> PrincipalView:
    """Make the view of a principal."""
    return PrincipalView(
        id=principal.id,
        name=principal.name,
        kind=principal.kind,
        tenant=principal.tenant,
        roles=list(principal.roles),
        groups=list(principal.groups),
        grants=list(principal.grants),
        token_id=principal.token_id,
    )
