"""How a worker asks for a secret on behalf of the step that it holds, and what it is given."""

import msgspec


class SecretRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /v1/secrets/resolve`."""

    path: str  # a.b of {{ vault.a.b }}
    step: str  # key of the step that the caller runs
    attempt: int


class SecretLease(msgspec.Struct, frozen=True, kw_only=True):
    """A secret, lent until the step ends and at most for `expires_in_s`."""

    id: str
    path: str
    version: int
    value: str
    expires_in_s: float

    def __repr__(self) -> str:
        return f"SecretLease(id={self.id!r}, path={self.path!r}, version={self.version})"
