"""API tokens: made (and shown once), listed, revoked."""

from datetime import timedelta

from fastapi import APIRouter, Request
from hivemesh_sdk.contracts.access_api import NewTokenView, TokenBody, TokenView
from hivemesh_sdk.contracts.api import Page

from hivemesh_platform.access.people import PeopleService
from hivemesh_platform.access.service import AccessService
from hivemesh_platform.access.store import TokenRecord
from hivemesh_platform.api.access import before_body, person_of, principal_of, require, require_some
from hivemesh_platform.api.bodies import router as strict_router
from hivemesh_platform.api.declared import declares
from hivemesh_platform.execution.runs.views import iso


def router(access: AccessService, people: PeopleService) -> APIRouter:
    """The routes."""
    routes = strict_router()

    @routes.post("/v1/tokens", status_code=201)
    @before_body("create:token")
    @declares(problems=("grant-invalid", "role-unknown", "grant-too-wide"))
    async def create_token(body: TokenBody, request: Request) -> NewTokenView:
        """Make an API token; it is shown once."""
        principal = require(request, "create:token")
        owner = body.user or principal.name
        if owner != principal.name:
            require(request, "write:user", owner)
        text, record = await people.create_token(
            principal,
            body.name,
            owner=owner,
            scope=(*(f"role:{role}" for role in body.roles), *body.grants),
            lifetime=timedelta(seconds=body.lifetime_s),
        )
        return NewTokenView(token=text, **_view(record).model_dump())

    @routes.get("/v1/tokens")
    async def list_tokens(request: Request) -> Page[TokenView]:
        """List API tokens, without their secrets."""
        principal = require_some(request, "create:token", "read:token")
        return Page(items=[_view(one) for one in await people.tokens(principal)])

    @routes.delete("/v1/tokens/{token_id}")
    async def revoke_token(token_id: str, request: Request) -> TokenView:
        """Revoke an API token."""
        await people.revoke_token(person_of(request), token_id)
        found = [one for one in await people.tokens(principal_of(request)) if one.id == token_id]
        return _view(found[0])

    def _view(record: TokenRecord) -> TokenView:
        now = round(access.clock.now().timestamp() * 1000)
        state = "expired" if now >= record.expires_at else "valid"
        return TokenView(
            id=record.id,
            name=record.name,
            owner=record.owner,
            scope=list(record.scope),
            created_by=record.created_by,
            created_at=iso(record.created_at) or "",
            expires_at=iso(record.expires_at) or "",
            last_used_at=iso(access.used_at(record.id) or record.last_used_at),
            state=state if record.revoked_at is None else "revoked",
        )

    return routes
