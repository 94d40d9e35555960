"""What the API answers about people: who one is, roles, grants, groups and API tokens."""

from typing import Annotated, Literal

from pydantic import Field

from hivemesh_sdk.contracts.api import Body, View
from hivemesh_sdk.contracts.names import TENANT


class PrincipalView(View):
    """`GET /v1/whoami`: who asks, and everything that he may do."""

    id: str
    name: str
    kind: str = "user"
    tenant: str = "default"
    roles: list[str] = Field(default_factory=list)
    groups: list[str] = Field(default_factory=list)
    grants: list[str] = Field(default_factory=list)
    token_id: str = ""


class VerdictView(View):
    """`GET /v1/auth/can`: whether a user may do something, and why."""

    user: str
    action: str  # verb:kind/name, in the long form
    allowed: bool
    rule: str = ""  # the grant that allows it
    reason: str = ""


class RoleView(View):
    """A role and what it grants."""

    name: str
    description: str = ""
    grants: list[str]
    built_in: bool = True


class RoleBody(Body):
    """`PUT /v1/auth/roles/{name}`."""

    description: Annotated[str, Field(max_length=200)] = ""
    grants: Annotated[list[str], Field(max_length=200)]


class GroupView(View):
    """A group, its members, and the roles (`role:analyst`) and grants that they have by it."""

    name: str
    members: list[str] = Field(default_factory=list)
    grants: list[str] = Field(default_factory=list)


class GrantBody(Body):
    """`POST /v1/auth/grants`: a role or a grant for a user or a group."""

    subject: Literal["user", "group"]
    name: str
    grant: str
    tenant: Annotated[str, Field(pattern=f"^{TENANT.pattern}$")] = "default"


class GrantView(View):
    """A role or grant as it was given or taken away."""

    subject: str
    name: str
    grant: str


class MemberBody(Body):
    """`POST /v1/auth/members`: a user in a group."""

    group: str
    user: str


class TokenBody(Body):
    """`POST /v1/tokens`: an API token; without roles and grants it has those of its owner."""

    name: str
    user: str = ""  # the owner; empty: the caller
    roles: Annotated[list[str], Field(max_length=50, default_factory=list)]
    grants: Annotated[list[str], Field(max_length=200, default_factory=list)]
    lifetime_s: Annotated[float, Field(gt=0, le=366 * 86_400)] = 30 * 86_400.0


class TokenView(View):
    """An API token, without its secret."""

    id: str
    name: str
    owner: str
    scope: list[str]
    created_by: str
    created_at: str
    expires_at: str
    last_used_at: str | None = None
    state: str = "valid"  # valid, expired, revoked


class NewTokenView(TokenView):
    """A token that was just made; `token` is shown this once."""

    token: str
