"""What steps need of the platform: artifacts by grants, secrets by leases."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.artifacts import Artifact, Grant, GrantRequest
from hivemesh_sdk.contracts.secrets import SecretLease, SecretRequest

GRANT_MARGIN_S = 10.0  # a grant is not used in its last seconds
MAX_GRANTS = 256


class PlatformPort(Protocol):
    """The platform as a running step sees it."""

    async def grant(self, request: GrantRequest, *, ticket: str) -> Grant:
        """Ask where bytes go or come from.

        Raises:
            HivemeshError: it is refused, or the platform cannot be reached.
        """
        ...

    async def get(self, grant: Grant, offset: int, length: int) -> bytes:
        """Read a part of an artifact."""
        ...

    async def put(self, grant: Grant, data: bytes | Path, size: int) -> None:
        """Store an artifact: bytes, or the content of a file."""
        ...

    async def lend(self, request: SecretRequest, *, ticket: str) -> SecretLease:
        """Ask for a secret.

        Raises:
            HivemeshError: it is refused, or the platform cannot be reached.
        """
        ...


@dataclass(frozen=True, slots=True)
class Holder:
    """The step on whose behalf artifacts are moved."""

    key: str
    attempt: int
    ticket: str


class ArtifactService:
    """Reads and stores artifacts for the executors; grants are asked once and reused.

    Passes secrets on and keeps none.
    """

    def __init__(self, platform: PlatformPort, clock: Clock) -> None:
        self._platform = platform
        self._clock = clock
        self._grants: dict[tuple[str, int, str], tuple[float, Grant]] = {}

    async def read(self, holder: Holder, artifact: Artifact, offset: int, length: int) -> bytes:
        """Read a part of an artifact.

        Raises:
            HivemeshError: it is refused, or the platform cannot be reached.
        """
        grant = await self._grant_to_read(holder, artifact)
        return await self._platform.get(grant, offset, length)

    async def read_all(self, holder: Holder, artifact: Artifact, block: int) -> bytes:
        """Read a whole artifact into memory, block by block."""
        starts = range(0, artifact.size, block)
        parts = [
            await self.read(holder, artifact, start, min(block, artifact.size - start))
            for start in starts
        ]
        return b"".join(parts)

    async def store(self, holder: Holder, artifact: Artifact, data: bytes | Path) -> None:
        """Store an artifact unless the platform has it already."""
        grant = await self._platform.grant(_request(holder, artifact, "put"), ticket=holder.ticket)
        if not grant.present:
            await self._platform.put(grant, data, artifact.size)

    async def lend(self, holder: Holder, path: str) -> SecretLease:
        """Ask for a secret on behalf of a step."""
        request = SecretRequest(path=path, step=holder.key, attempt=holder.attempt)
        return await self._platform.lend(request, ticket=holder.ticket)

    async def _grant_to_read(self, holder: Holder, artifact: Artifact) -> Grant:
        name = (holder.key, holder.attempt, artifact.sha256)
        known = self._grants.get(name)
        now = self._clock.monotonic()
        if known is not None and now < known[0]:
            return known[1]
        grant = await self._platform.grant(_request(holder, artifact, "get"), ticket=holder.ticket)
        while len(self._grants) >= MAX_GRANTS:
            del self._grants[next(iter(self._grants))]
        self._grants[name] = (now + grant.expires_in_s - GRANT_MARGIN_S, grant)
        return grant


def _request(holder: Holder, artifact: Artifact, operation: str) -> GrantRequest:
    return GrantRequest(
        operation=operation,
        sha256=artifact.sha256,
        size=artifact.size,
        step=holder.key,
        attempt=holder.attempt,
        media_type=artifact.media_type,
        name=artifact.name,
    )
