"""What can be wrong with secrets. No message holds a value."""

from hivemesh_sdk.errors import (
    ConflictError,
    FatalError,
    InvalidError,
    NotAuthorizedError,
    NotFoundError,
)
from hivemesh_sdk.errors import RetryableError as _Retryable


class SecretMissingError(NotFoundError):
    """There is no such secret, no such version, or it was deleted."""

    slug = "secret-missing"


class SecretsSealedError(_Retryable):
    """The store cannot be opened or reached at the moment; what waits for it goes on later."""

    slug = "secrets-sealed"


class SecretDeniedError(NotAuthorizedError):
    """The step, the worker or the platform may not use this secret."""

    slug = "secret-denied"


class LeaseEndedError(ConflictError):
    """The step to which a secret was lent has ended."""

    slug = "secret-lease-expired"


class SecretDamagedError(FatalError):
    """Stored bytes are not what was encrypted; they are never given out."""

    slug = "secret-damaged"


class SecretInvalidError(InvalidError):
    """The path or the value is none that can be stored."""
