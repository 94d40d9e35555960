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


class RotateRequest(Body):
    """`POST /v1/ca/rotate`: begin to change a key; `emergency` changes all of them at once.

    After an emergency nothing that was signed before is trusted, so everybody enrols again.
    """

    key: Literal["root", "issuer", "signer"] = "issuer"
    emergency: bool = False


class CaKeyView(View):
    """One key of the authority and where it stands."""

    kind: str  # root, issuer, signer
    state: str  # prepared, active, tainted, revoked
    id: str
    since: str
    not_after: str | None = None
    waits_for: str = ""
    waiting: list[str] = Field(default_factory=list)  # instances that it waits for
    latest: str | None = None  # when the next step is taken whatever is missing


class CaView(View):
    """`GET /v1/ca`: the authority of this installation."""

    trust_domain: str
    root_sha256: str  # as tokens carry it
    bundle_sequence: int
    external: bool = False  # whether the platform's own identity comes from files
    keys: list[CaKeyView]


class RootsView(View):
    """`GET /v1/ca/roots`: the roots to trust now, the one in use first."""

    pem: str
    sha256: list[str]
