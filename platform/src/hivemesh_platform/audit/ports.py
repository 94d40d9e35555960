"""What the rest of the platform needs of the audit trail."""

from typing import Protocol

from hivemesh_platform.audit.model import AuditEvent


class AuditTrail(Protocol):
    """Writes records down."""

    async def record(self, event: AuditEvent) -> None:
        """Write a security action down; durable when this returns, so the action may follow.

        Raises:
            AuditUnavailableError: it cannot be made durable; the action must not happen.
        """
        ...

    def note(self, event: AuditEvent) -> None:
        """Write an event of the data plane down within a second; never raises, never waits."""
        ...


class NoAudit:
    """Keeps nothing: for tests of parts that write records which the test does not read."""

    async def record(self, event: AuditEvent) -> None:
        """Forget it."""

    def note(self, event: AuditEvent) -> None:
        """Forget it."""
