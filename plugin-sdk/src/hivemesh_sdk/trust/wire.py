"""Enrolment on the wire: `POST /v1/enrol`, `POST /v1/renew`; `GET /v1/bundle` is a `BundleDocument`."""

import msgspec

from hivemesh_sdk.trust.bundle import BundleDocument

ENROL_PATH = "/v1/enrol"
RENEW_PATH = "/v1/renew"
BUNDLE_PATH = "/v1/bundle"


class EnrolRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A newcomer shows its token and asks for a certificate."""

    token: str
    csr: str  # PEM
    worker: str
    instance: str | None = None  # absent: the platform chooses a name
    manifest_digest: str = ""
    version: str = ""

    def __repr__(self) -> str:
        """Without the token."""
        return f"EnrolRequest(worker={self.worker!r}, instance={self.instance!r})"


class RenewRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The caller, known by its certificate, asks for the next one with a new key."""

    csr: str  # PEM


class IdentityAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The certificate (leaf first, without the root), whom to trust, and the caller's name."""

    certificate_chain: str  # PEM
    bundle: BundleDocument
    instance: str
    platforms: list[str] = []  # mesh addresses of the replicas that live
    enrolments: list[str] = []  # and where they enrol
