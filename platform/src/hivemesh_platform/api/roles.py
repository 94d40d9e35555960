"""Roles, grants and groups: shown, given and taken away; and whether somebody may do something."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from hivemesh_sdk.contracts.access_api import (
    GrantBody,
    GrantView,
    GroupView,
    MemberBody,
    PrincipalView,
    RoleBody,
    RoleView,
    VerdictView,
)
from hivemesh_sdk.contracts.api import Page

from hivemesh_platform.access.model import Grant, Principal
from hivemesh_platform.access.people import PeopleService, no_role, no_user
from hivemesh_platform.access.roles import Role
from hivemesh_platform.access.service import AccessService
from hivemesh_platform.access.store import Subject
from hivemesh_platform.api.access import (
    before_body,
    may,
    person_of,
    require,
    require_some,
    verdict_of,
)
from hivemesh_platform.api.bodies import router as strict_router
from hivemesh_platform.api.declared import declares
from hivemesh_platform.api.whoami import view as principal_view

User = Annotated[str, Query(max_length=64)]
Action = Annotated[str, Query(max_length=300)]


def router(access: AccessService, people: PeopleService) -> APIRouter:
    """The routes."""
    routes = strict_router()
    _users(routes, access, people)
    _roles(routes, access, people)
    _grants(routes, people)
    _groups(routes, people)
    return routes


def _users(routes: APIRouter, access: AccessService, people: PeopleService) -> None:
    @routes.get("/v1/auth/can")
    @declares(problems=("grant-invalid", "not-authorized", "not-found"))
    async def check_permission(request: Request, action: Action, user: User = "") -> VerdictView:
        """Tell whether a user may do an action, and by which rule."""
        asked = Grant.parse(action)
        person_of(request)
        principal = await _about(access, request, user)
        verdict = verdict_of(principal, asked.verb, asked.kind, asked.name)
        return VerdictView(
            user=principal.name,
            action=str(asked),
            allowed=verdict.allowed,
            rule=verdict.rule,
            reason=verdict.reason,
        )

    @routes.get("/v1/auth/users")
    async def list_users(request: Request) -> Page[PrincipalView]:
        """List users."""
        principal = require_some(request, "read:user")
        found = await people.users(principal)
        return Page(
            items=[principal_view(one) for one in found if may(principal, "read:user", one.name)]
        )

    @routes.get("/v1/auth/users/{name}")
    async def get_user(name: str, request: Request) -> PrincipalView:
        """Show a user and what he may do."""
        return principal_view(await _about(access, request, name))


def _roles(routes: APIRouter, access: AccessService, people: PeopleService) -> None:
    @routes.get("/v1/auth/roles")
    async def list_roles(request: Request) -> Page[RoleView]:
        """List roles."""
        principal = require_some(request, "read:role")
        known = (await access.roles(principal.tenant)).values()
        return Page(items=[_role(one) for one in known if may(principal, "read:role", one.name)])

    @routes.get("/v1/auth/roles/{name}")
    async def get_role(name: str, request: Request) -> RoleView:
        """Show a role."""
        principal = require(request, "read:role", name)
        known = await access.roles(principal.tenant)
        if name not in known:
            raise no_role(name)
        return _role(known[name])

    @routes.put("/v1/auth/roles/{name}")
    @before_body("write:role")
    @declares(problems=("grant-invalid", "grant-too-wide"))
    async def put_role(name: str, body: RoleBody, request: Request) -> RoleView:
        """Make or change a role."""
        principal = require(request, "write:role", name)
        role = Role(name, body.description, tuple(body.grants), built_in=False)
        return _role(await people.put_role(principal, role))

    @routes.delete("/v1/auth/roles/{name}", status_code=204)
    @declares(problems=("conflict",))
    async def delete_role(name: str, request: Request) -> None:
        """Delete a role."""
        await people.delete_role(require(request, "write:role", name), name)


def _grants(routes: APIRouter, people: PeopleService) -> None:
    @routes.post("/v1/auth/grants", status_code=201)
    @before_body("write:user", "write:group")
    @declares(problems=("grant-invalid", "role-unknown", "grant-too-wide"))
    async def add_grant(body: GrantBody, request: Request) -> GrantView:
        """Give a user or group a role or a grant."""
        principal = require(request, f"write:{body.subject}", body.name)
        subject = Subject(body.subject, body.name, body.tenant)
        given = await people.grant(principal, subject, body.grant)
        return GrantView(subject=body.subject, name=body.name, grant=given)

    @routes.post("/v1/auth/grants/revoke")
    @before_body("write:user", "write:group")
    @declares(problems=("grant-invalid", "not-found"))
    async def revoke_grant(body: GrantBody, request: Request) -> GrantView:
        """Take a role or a grant from a user or group."""
        principal = require(request, f"write:{body.subject}", body.name)
        subject = Subject(body.subject, body.name, body.tenant)
        taken = await people.revoke(principal, subject, body.grant)
        return GrantView(subject=body.subject, name=body.name, grant=taken)


def _groups(routes: APIRouter, people: PeopleService) -> None:
    @routes.get("/v1/auth/groups")
    async def list_groups(request: Request) -> Page[GroupView]:
        """List groups with their members."""
        principal = require_some(request, "read:group")
        return Page(
            items=[
                GroupView(name=name, members=members, grants=grants)
                for name, members, grants in await people.groups(principal)
                if may(principal, "read:group", name)
            ]
        )

    @routes.post("/v1/auth/members", status_code=204)
    @before_body("write:group")
    @declares(problems=("grant-too-wide",))
    async def add_member(body: MemberBody, request: Request) -> None:
        """Add a user to a group."""
        principal = require(request, "write:group", body.group)
        await people.set_member(principal, body.group, body.user, member=True)

    @routes.post("/v1/auth/members/remove", status_code=204)
    @before_body("write:group")
    async def remove_member(body: MemberBody, request: Request) -> None:
        """Remove a user from a group."""
        principal = require(request, "write:group", body.group)
        await people.set_member(principal, body.group, body.user, member=False)


async def _about(access: AccessService, request: Request, user: str) -> Principal:
    """The caller himself, or with `read:user` another one of his tenant."""
    principal = person_of(request)
    if not user or user == principal.name:
        return principal
    require(request, "read:user", user)
    found = await access.user(user)
    if found.tenant != principal.tenant:
        raise no_user(user)
    return found


def _role(role: Role) -> RoleView:
    return RoleView(
        name=role.name,
        description=role.description,
        grants=list(role.grants),
        built_in=role.built_in,
    )
