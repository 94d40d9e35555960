"""What steps need of the platform: artifacts by grants, secrets by leases."""

from collections.abc import Collection
from pathlib import Path
from typing import Protocol

import msgspec

from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.artifacts import Artifact, Grant, GrantRequest
from hivemesh_sdk.contracts.secrets import SecretLease, SecretRequest
from hivemesh_sdk.contracts.submits import SubmitHow, SubmitReply, SubmitRequest
from hivemesh_sdk.contracts.tickets import ExchangeReply, ExchangeRequest
from hivemesh_sdk.transport.balance import Caller
from hivemesh_sdk.worker.calls import Asking, Calls, OwnTickets
from hivemesh_sdk.worker.questions import Question, name_of, unavailable

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

    async def submit(self, request: SubmitRequest, *, ticket: str) -> SubmitReply:
        """Have a job started.

        Raises:
            HivemeshError: it is refused, or the platform cannot be reached.
        """
        ...

    async def exchange(self, request: ExchangeRequest) -> ExchangeReply:
        """Ask for a ticket of one's own for one that was shown.

        Raises:
            HivemeshError: it is refused, or the platform cannot be reached.
        """
        ...


class ArtifactService:
    """Reads and stores artifacts for the executors; grants are asked once and reused.

    Passes secrets and the answers of other workers on and keeps none.
    """

    def __init__(
        self,
        platform: PlatformPort,
        clock: Clock,
        caller: Caller | None = None,
        callable_: Collection[str] = (),
    ) -> None:
        self._platform = platform
        self._tickets = OwnTickets(platform, clock.monotonic)
        self._calls = None if caller is None else Calls(caller, self._tickets, callable_)
        self._clock = clock
        self._grants: dict[tuple[str, int, str], tuple[float, Grant]] = {}

    async def read(self, step: Asking, artifact: Artifact, offset: int, length: int) -> bytes:
        """Read a part of an artifact.

        Raises:
            HivemeshError: it is refused, or the platform cannot be reached.
        """
        grant = await self._grant_to_read(step, artifact)
        return await self._platform.get(grant, offset, length)

    async def read_all(self, step: Asking, artifact: Artifact, block: int) -> bytes:
        """Read a whole artifact into memory, block by block."""
        starts = range(0, artifact.size, block)
        parts = [
            await self.read(step, artifact, start, min(block, artifact.size - start))
            for start in starts
        ]
        return b"".join(parts)

    async def store(self, step: Asking, artifact: Artifact, data: bytes | Path) -> None:
        """Store an artifact unless the platform has it already."""
        grant = await self._platform.grant(
            _request(step, artifact, "put"), ticket=await self._tickets.of(step)
        )
        if not grant.present:
            await self._platform.put(grant, data, artifact.size)

    async def lend(self, step: Asking, path: str) -> SecretLease:
        """Ask for a secret on behalf of a step."""
        request = SecretRequest(path=path, step=step.key, attempt=step.attempt)
        return await self._platform.lend(request, ticket=await self._tickets.of(step))

    async def call(self, step: Asking, question: Question, left_s: float | None) -> bytes:
        """Call another worker on behalf of a step, or have a job started: the answer, or its id.

        Raises:
            HivemeshError: it is refused, cannot be reached, or ended with a problem.
        """
        if question.submit:
            return await self._submit(step, question)
        if self._calls is None:
            raise unavailable(question.capability)
        return await self._calls.call(step, question, left_s)

    async def _submit(self, step: Asking, question: Question) -> bytes:
        """The platform decides: it knows what the manifest asks for and on whose behalf this is."""
        request = SubmitRequest(
            step=step.key,
            attempt=step.attempt,
            name=name_of(question, "submit"),
            capability=question.capability,
            input=msgspec.Raw(question.document),
            options=msgspec.json.decode(question.options),
            how=msgspec.json.decode(question.how or b"{}", type=SubmitHow),
        )
        reply = await self._platform.submit(request, ticket=await self._tickets.of(step))
        return msgspec.json.encode(reply.job)

    async def _grant_to_read(self, step: Asking, artifact: Artifact) -> Grant:
        name = (step.key, step.attempt, artifact.sha256)
        known = self._grants.get(name)
        now = self._clock.monotonic()
        if known is not None and now < known[0]:
            return known[1]
        grant = await self._platform.grant(
            _request(step, artifact, "get"), ticket=await self._tickets.of(step)
        )
        while len(self._grants) >= MAX_GRANTS:
            del self._grants[next(iter(self._grants))]
        self._grants[name] = (now + grant.expires_in_s - GRANT_MARGIN_S, grant)
        return grant


def _request(step: Asking, artifact: Artifact, operation: str) -> GrantRequest:
    return GrantRequest(
        operation=operation,
        sha256=artifact.sha256,
        size=artifact.size,
        step=step.key,
        attempt=step.attempt,
        media_type=artifact.media_type,
        name=artifact.name,
    )
