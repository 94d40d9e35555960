"""What the platform's API says and takes about denials, credentials and its authority."""

from typing import Annotated, Literal

from pydantic import Field

from hivemesh_sdk.contracts.api import Body, View

Reason = Annotated[str, Field(min_length=1, max_length=500)]
Target = Annotated[str, Field(min_length=1, max_length=600)]


class DenialRequest(Body):
    """`POST /v1/denials`: refuse a worker, an instance, an identity, a serial or a package.

    An evicted one may enrol again with a new token; a banned one may not until the ban is lifted.
    """

    action: Literal["evict", "ban"]
    target: Target
    reason: Reason


class LiftRequest(Body):
    """`POST /v1/denials/lift`: refuse it no longer."""

    target: Target
    reason: Reason


class DenialView(View):
    """One thing that is refused."""

    rule: str  # SPIFFE ID, prefix ending in /*, serial:<hex> or package:<sha-256>
    kind: str  # eviction, ban, quarantine
    reason: str
    at: str
    until: str | None = None
    by: str = ""


class CredentialView(View):
    """A deployment credential, without its secret."""

    id: str
    worker: str
    created_at: str
    max_live: int
    revoked_at: str | None = None
