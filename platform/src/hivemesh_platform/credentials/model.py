"""Secrets by name and version, leases, and on whose behalf a step asks. Pure."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretInfo:
    """What is told of a secret: never its value."""

    path: str  # a.b.c
    version: int  # the present one; 0 where the secret is a record that others have written
    created_at: int  # of the present version, milliseconds since 1970
    versions: int = 1  # how many are kept
    deleted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSecret:
    """A value as the store gives it."""

    path: str
    version: int
    value: str = field(repr=False)
    lease: str = ""  # of the store, where it lends what it makes
    lease_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSecrets:
    """A step that a worker runs at the moment, and the secrets that concern it."""

    run: str
    key: str
    attempt: int
    identity: str  # of the instance
    worker: str
    named: frozenset[str]  # paths that its options refer to in secret fields
    permitted: tuple[str, ...]  # patterns of the manifest
    ends_at: float | None  # monotonic; None where the step has no deadline
    on_behalf_of: str = ""
    grants: tuple[str, ...] = ()  # of the one it is done for
    tenant: str = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A secret that a step was lent."""

    id: str
    path: str
    version: int
    run: str
    step: str
    attempt: int
    identity: str
    created_at: int
    expires_at: int
    store_lease: str = ""
    tenant: str = "default"
