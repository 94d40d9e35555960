"""What the registry needs of a directory."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from hivemesh_sdk.contracts.instances import Heartbeat

from hivemesh_platform.registry.model import Instance


class InstanceDirectory(Protocol):
    """Remembers instances and tells when the set of routable ones has changed.

    `version` grows whenever an instance comes, goes, or changes state; load alone does not
    change it. Adapters pass `InstanceDirectoryConformance`.
    """

    @property
    def version(self) -> int:
        """Number of changes so far."""
        ...

    def now(self) -> float:
        """The monotonic time at which leases are judged."""
        ...

    async def put(self, instance: Instance) -> None:
        """Add an instance or replace the one with its id."""
        ...

    async def beat(
        self,
        instance_id: str,
        heartbeat: Heartbeat,
        expires_at: datetime | None = None,
        clock_off: str = "",
    ) -> Instance:
        """Renew the lease; take over load, expiry of the certificate, and by how much its clock is off.

        Raises:
            InstanceUnknownError: it is not there, or is another incarnation.
        """
        ...

    async def remove(self, instance_id: str) -> None:
        """Forget an instance; no error where it is not there."""
        ...

    def get(self, instance_id: str) -> Instance | None:
        """One instance, whatever its state."""
        ...

    async def find(self, instance_id: str) -> Instance | None:
        """One instance, also one that registered at another replica a moment ago."""
        ...

    def all(self) -> Sequence[Instance]:
        """Every instance that has not been forgotten."""
        ...

    def updates(self) -> Sequence[str]:
        """Ids put, beaten or removed since the last call; there is one caller, routing."""
        ...

    async def changed(self, after: int, timeout_s: float) -> int:
        """Wait until `version` is above `after`, at most `timeout_s`; returns the version."""
        ...
