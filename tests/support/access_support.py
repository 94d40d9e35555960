"""Principals, and the routes of an application whatever stands before them."""

from fastapi import FastAPI
from fastapi.routing import APIRoute
from hivemesh_platform.access import store
from hivemesh_platform.access.model import Principal
from hivemesh_platform.access.store import Subject
from hivemesh_platform.app import Platform
from hivemesh_platform.storage.transaction import Transaction
from starlette.routing import BaseRoute

ADMIN = Principal(
    id="spiffe://test.hivemesh.internal/user/operator", roles=("admin",), grants=("admin:*",)
)


def application(app: object) -> FastAPI:
    """The application behind request ids and fronts."""
    while not isinstance(app, FastAPI):
        app = getattr(app, "_app", None) or app.app
    return app


def endpoints(app: object) -> list[tuple[str, str]]:
    """Every method and path that the application answers at, whoever has added it."""
    return [
        (method, path)
        for route in flat(application(app).routes)
        for path in [str(getattr(route, "path", ""))]
        for method in sorted(getattr(route, "methods", None) or {"GET"})
        if method != "HEAD"
    ]


def flat(routes: list[BaseRoute]) -> list[BaseRoute]:
    """Routers that were included may show as one entry with routes of its own."""
    found: list[BaseRoute] = []
    for one in routes:
        below = getattr(getattr(one, "original_router", one), "routes", None)
        found += flat(below) if below and not isinstance(one, APIRoute) else [one]
    return found


async def name_users(found: Platform, users: dict[str, tuple[str, str]]) -> None:
    """Give users a role (or grant) in a tenant: name -> (role, tenant)."""
    access = found.people.access

    def write(tx: Transaction) -> None:
        for name, (what, tenant) in users.items():
            store.add_user(tx, name, tenant, 0)
            held = what if ":" in what else f"role:{what}"
            store.entitle(tx, Subject("user", name, tenant), held, 0)

    await access.database.write(write)
    access.changed()


async def token_of(found: Platform, user: str, *scope: str) -> str:
    """Make a token of a user, as himself; without a scope with all that he has."""
    actor = await found.people.access.user(user)
    text, _ = await found.people.service.create_token(actor, "test", owner=user, scope=scope)
    return text
