"""What can be wrong with the audit trail."""

from hivemesh_sdk.errors import FatalError, RetryableError


class AuditUnavailableError(RetryableError):
    """The record cannot be made durable, so the action that it tells of does not happen."""

    slug = "audit-unavailable"


class AuditDamagedError(FatalError):
    """What is to be read is no audit trail, or only a part of one."""

    slug = "audit-damaged"


class EndUntoldError(OSError):
    """The records are durable, but their end could not be told to the second place."""
