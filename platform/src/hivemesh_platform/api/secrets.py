"""Secrets: people store them and see their names, steps are lent their values."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Request, Response
from hivemesh_sdk.contracts.api import Page
from hivemesh_sdk.contracts.secrets import SecretLease, SecretRequest
from hivemesh_sdk.contracts.secrets_api import SecretInput, SecretValueView, SecretView

from hivemesh_platform.access.model import Principal
from hivemesh_platform.api.access import before_body, require, require_some, sees
from hivemesh_platform.api.bodies import decoded
from hivemesh_platform.api.bodies import router as strict_router
from hivemesh_platform.api.declared import SECRET, STEP, TICKET, declares
from hivemesh_platform.api.paging import LARGEST
from hivemesh_platform.api.tickets import ticket_of
from hivemesh_platform.audit.model import Actor
from hivemesh_platform.credentials.lending import Lending
from hivemesh_platform.credentials.model import SecretInfo
from hivemesh_platform.credentials.ports import StepHolders
from hivemesh_platform.credentials.service import SecretService
from hivemesh_platform.execution.rights.shown import StepTickets
from hivemesh_platform.execution.runs.views import iso

NO_STORE = {"cache-control": "no-store"}

Prefix = Annotated[str, Query(max_length=1024)]
Version = Annotated[int | None, Query(ge=1, le=LARGEST)]


def router(
    secrets: SecretService, lending: Lending, holders: StepHolders, tickets: StepTickets
) -> APIRouter:
    """The routes."""
    routes = strict_router()

    @routes.get("/v1/secrets")
    async def list_secrets(request: Request, prefix: Prefix = "") -> Page[SecretView]:
        """List secrets, without their values."""
        principal = require_some(request, "read:secret")
        found = await secrets.entries(_actor(request, principal), prefix)
        return Page(items=[view(one) for one in found if sees(principal, "secret", one.path)])

    @routes.post("/v1/secrets/resolve")
    @declares(
        reads=SecretRequest, answers=SecretLease, headers=(TICKET,), problems=(*STEP, *SECRET)
    )
    async def resolve_secret(request: Request) -> Response:
        """Borrow a secret on behalf of a step."""
        actor = _actor(request, require(request, "secrets:resolve"))
        wanted = await decoded(request, SecretRequest)
        ticket = await ticket_of(request, tickets, actor.id, wanted.step, wanted.attempt)
        lease = await lending.resolve(wanted.path, ticket, actor, holders)
        body = msgspec.json.encode(lease)
        return Response(body, media_type="application/json", headers=NO_STORE)

    @routes.get("/v1/secrets/{path}")
    @declares(problems=SECRET)
    async def get_secret(path: str, request: Request) -> SecretView:
        """Show a secret, without its value."""
        actor = _actor(request, require(request, "read:secret", path))
        return view(await secrets.describe(actor, path))

    @routes.put("/v1/secrets/{path}")
    @before_body("write:secret")
    @declares(problems=SECRET)
    async def set_secret(path: str, body: SecretInput, request: Request) -> SecretView:
        """Store a secret."""
        actor = _actor(request, require(request, "write:secret", path))
        return view(await secrets.set(actor, path, body.value.get_secret_value()))

    @routes.post("/v1/secrets/{path}/rotate")
    @before_body("write:secret")
    @declares(problems=SECRET)
    async def rotate_secret(path: str, body: SecretInput, request: Request) -> SecretView:
        """Store the next version of a secret."""
        actor = _actor(request, require(request, "write:secret", path))
        return view(await secrets.rotate(actor, path, body.value.get_secret_value()))

    @routes.delete("/v1/secrets/{path}")
    @declares(problems=SECRET)
    async def delete_secret(path: str, request: Request) -> SecretView:
        """Delete a secret; it can be restored."""
        actor = _actor(request, require(request, "write:secret", path))
        return view(await secrets.delete(actor, path))

    @routes.post("/v1/secrets/{path}/restore")
    @declares(problems=SECRET)
    async def restore_secret(path: str, request: Request) -> SecretView:
        """Restore a deleted secret."""
        actor = _actor(request, require(request, "write:secret", path))
        return view(await secrets.restore(actor, path))

    @routes.post("/v1/secrets/{path}/reveal")
    @declares(problems=SECRET)
    async def reveal_secret(
        path: str, request: Request, response: Response, version: Version = None
    ) -> SecretValueView:
        """Reveal the value of a secret."""
        actor = _actor(request, require(request, "admin:secret", path))
        found = await secrets.reveal(actor, path, version)
        response.headers.update(NO_STORE)
        return SecretValueView(path=found.path, version=found.version, value=found.value)

    return routes


def view(info: SecretInfo) -> SecretView:
    """Make the view of a secret."""
    return SecretView(
        path=info.path,
        version=info.version,
        versions=info.versions,
        created_at=iso(info.created_at) or "",
        deleted=info.deleted,
    )


def _actor(request: Request, principal: Principal) -> Actor:
    return Actor(
        id=principal.actor,
        serial=principal.serial,
        on_behalf_of=principal.id if principal.token_id else "",
        address=request.client.host if request.client is not None else "",
        tenant=principal.tenant,
    )
