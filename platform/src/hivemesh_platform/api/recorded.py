"""Security actions of the API: written down before they happen, or they do not happen."""

from collections.abc import Mapping

from fastapi import Request

from hivemesh_platform.access.model import Principal
from hivemesh_platform.api.access import principal_of
from hivemesh_platform.audit.model import Actor, AuditEvent
from hivemesh_platform.audit.ports import AuditTrail


def actor_of(request: Request, principal: Principal) -> Actor:
    """The principal of a request as the trail names it."""
    return Actor(
        id=principal.actor,
        on_behalf_of=principal.id if principal.token_id else "",
        serial=principal.serial,
        address=request.client.host if request.client is not None else "",
        tenant=principal.tenant,
    )


async def recorded(
    request: Request,
    trail: AuditTrail,
    action: str,
    target: str = "",
    parameters: Mapping[str, object] | None = None,
) -> None:
    """Write down that the principal of the request does this now.

    Raises:
        AuditUnavailableError: that is not possible; the action must not happen.
    """
    actor = actor_of(request, principal_of(request))
    await trail.record(AuditEvent.of(actor, action, target, parameters=parameters))
