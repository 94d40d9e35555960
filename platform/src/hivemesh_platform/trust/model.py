"""What the authority remembers and how it refuses. Pure."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from hivemesh_sdk.errors import ConflictError, FatalError, NotAuthorizedError, RetryableError


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """A join token as it is stored: its secret only as a hash."""

    id: str
    secret_hash: bytes = field(repr=False)
    worker: str
    created_at: datetime
    expires_at: datetime
    instance: str = ""  # the only instance name that it may ask for; empty: any free one
    manifest_digest: str = ""  # the only manifest that it may bring; empty: any
    used_at: datetime | None = None
    used_key: str = ""  # hash of the public key that used it


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialRecord:
    """A deployment credential as it is stored."""

    id: str
    secret_hash: bytes = field(repr=False)
    worker: str
    created_at: datetime
    max_live: int
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedRecord:
    """A certificate that was issued, and what came after it."""

    serial: int
    identity: str
    key_hash: str
    issued_at: datetime
    not_after: datetime
    chain: str = field(repr=False)  # PEM, public
    credential: str = ""
    successor_key: str = ""  # who renewed from it; a second one is a thief
    package: str = ""  # digest of the manifest that it enrolled with


class DenialKind(StrEnum):
    """Why something is refused, and what may follow."""

    EVICTION = "eviction"  # these certificates; a new token lets it in again
    BAN = "ban"  # for good, until it is lifted
    QUARANTINE = "quarantine"  # two keys renewed from one certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """A certificate, every certificate of an identity or prefix, or a package that is refused."""

    rule: str  # a SPIFFE ID, a prefix that ends in /*, serial:<hex>, or package:<sha-256>
    reason: str
    at: datetime
    until: datetime | None = None  # when nothing is left that it could refuse
    kind: DenialKind = DenialKind.BAN
    by: str = ""  # who decided


@dataclass(frozen=True, slots=True, kw_only=True)
class DenyList:
    """What is refused now, as callees look it up; the serials include those of denied packages."""

    serials: frozenset[int] = frozenset()
    identities: frozenset[str] = frozenset()  # exact, or prefixes that end in /*
    packages: frozenset[str] = frozenset()  # SHA-256 of manifests
    denials: tuple[Denial, ...] = field(default=(), compare=False)


class EnrolmentRefusedError(FatalError):
    """Unknown, expired or used token: which of them is not told."""

    slug = "enrolment-refused"


class CsrInvalidError(FatalError):
    """The certificate request is not acceptable."""

    slug = "csr-invalid"


class CsrTooLargeError(FatalError):
    """The certificate request is larger than any honest one."""

    slug = "too-large"


class KeyReusedError(ConflictError):
    """The public key was certified before."""

    slug = "key-reused"


class InstanceDuplicateError(ConflictError):
    """Another process holds a valid certificate of this name."""

    slug = "instance-duplicate"


class EnrolmentRateLimitedError(RetryableError):
    """Too many failures from one address."""

    slug = "enrolment-rate-limited"


class RenewalRefusedError(NotAuthorizedError):
    """This certificate cannot be renewed."""

    slug = "renewal-refused"


class CaBusyError(ConflictError):
    """A change of the authority's keys is under way."""

    slug = "ca-busy"


class RootExpiredError(FatalError):
    """The root has expired: nothing can be signed under it."""

    slug = "root-expired"


class SigningLimitedError(RetryableError):
    """More certificates are asked for than anybody needs."""

    slug = "signing-limited"
