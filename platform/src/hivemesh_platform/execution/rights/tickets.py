"""Mints the ticket of a step: on whose behalf it runs, and what it may touch.

A ticket is made when it is first sent and sent again until half of its life is over. Only one that
its holder may show to another worker is signed: a signature takes longer than the rest of a
dispatch. The others are sealed, which this platform alone can check, and it alone has to.
"""

import itertools
import os
from typing import Protocol

import msgspec
from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.artifacts import DataClass
from hivemesh_sdk.contracts.manifest import Permissions
from hivemesh_sdk.contracts.steps import digest_of_members
from hivemesh_sdk.contracts.tickets import (
    GIVEN,
    GRACE_S,
    MAX_LIFETIME_S,
    MAX_NAMED_ARTIFACTS,
    STORED,
    TICKET_TYPE,
    Ticket,
)
from hivemesh_sdk.errors import NotAuthorizedError
from hivemesh_sdk.trust.policy import Decision, Facts, Policies

from hivemesh_platform.execution.held import HeldStep, members_of
from hivemesh_platform.execution.ledger.port import Claim
from hivemesh_platform.execution.ports import Catalogue
from hivemesh_platform.execution.rights.secrets import secrets_of_claim

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Ticket).decode


class Signer(Protocol):
    """Signs documents under the identity of this replica."""

    def sign(self, payload: bytes, typ: str) -> str:
        """Sign a payload as a document of the kind `typ`."""
        ...

    def seal(self, payload: bytes) -> str:
        """Seal a payload that only this platform reads again."""
        ...

    def unseal(self, token: str) -> bytes:
        """The payload of what was sealed here.

        Raises:
            SignatureInvalidError: it was not.
        """
        ...


class PolicyDeniedError(NotAuthorizedError):
    """The policy does not allow the call that a step is."""

    slug = "policy-denied"


class TicketMint:
    """Makes the tickets of one replica."""

    def __init__(
        self,
        issuer: str,
        signer: Signer,
        catalogue: Catalogue,
        clock: Clock,
        policies: Policies,
    ) -> None:
        self._policies = policies
        self._issuer = issuer
        self._signer = signer
        self._catalogue = catalogue
        self._clock = clock
        self._prefix = os.urandom(8).hex()
        self._numbers = itertools.count(1)

    def of(self, step: HeldStep) -> str:
        """The ticket of a step: the one that was sent, or a new one after half of its life.

        Raises:
            PolicyDeniedError: the policy does not let this platform call the worker for it.
        """
        self._ask_policy(step)
        now = self._clock.now().timestamp()
        if not step.ticket or now >= step.ticket_until:
            ticket = self._ticket(step, int(now))
            step.ticket = self.sign(ticket) if ticket.calls else self.seal(ticket)
            step.ticket_until = now + (ticket.exp - ticket.iat) / 2
        return step.ticket

    def _ask_policy(self, step: HeldStep) -> None:
        """Send nothing that the callee would refuse, and say by which rule."""
        denied = self.denied(step.claim, step.endpoint.worker)
        if denied:
            raise PolicyDeniedError(denied)

    def denied(self, claim: Claim, worker: str) -> str:
        """Why the policy does not let this platform call the worker for a row, or ""."""
        facts = Facts(
            ticket=True,
            roles=claim.behalf.roles,
            data_class=claim.data_class,
            other_roles=claim.behalf.other_roles,
        )
        decision = self._policies.current().decide(self._issuer, worker, claim.capability, facts)
        return "" if decision.allowed else _why_denied(decision, worker, claim.capability)

    def clearance(self, capability: str) -> DataClass:
        """The highest class that a capability may be given; public where it is not installed."""
        known = self._catalogue.find(capability)
        return DataClass.PUBLIC if known is None else known.declared.data_class_max

    def secrets_of(self, claim: Claim) -> frozenset[str]:
        """The secrets that a row's options refer to, if its worker may have any."""
        known = self._catalogue.find(claim.capability)
        if known is None or not known.permissions.secrets:
            return frozenset()
        return secrets_of_claim(claim, known)

    def sign(self, ticket: Ticket) -> str:
        """Sign claims as they are."""
        return self._signer.sign(_encode(ticket), TICKET_TYPE)

    def seal(self, ticket: Ticket) -> str:
        """Seal claims that nobody but the holder and this platform will be shown."""
        return self._signer.seal(_encode(ticket))

    def unseal(self, token: str) -> Ticket:
        """The claims of a sealed ticket.

        Raises:
            SignatureInvalidError: it was not sealed here.
        """
        return _decode(self._signer.unseal(token))

    def next_id(self) -> str:
        """An id that no other ticket has."""
        return f"{self._prefix}-{next(self._numbers):x}"

    def audience(self, worker: str, calls: list[str]) -> list[str]:
        """The worker types that may accept a ticket: its holder's, and those of what it calls."""
        known = map(self._catalogue.find, calls)
        return list(dict.fromkeys((worker, *(one.worker for one in known if one is not None))))

    def _ticket(self, step: HeldStep, now: int) -> Ticket:
        claim, behalf = step.claim, step.claim.behalf
        known = self._catalogue.find(claim.capability)
        permissions = Permissions() if known is None else known.permissions
        calls = list(permissions.call)
        many = len(step.digests) > MAX_NAMED_ARTIFACTS
        return Ticket(
            iss=self._issuer,
            aud=self.audience(step.endpoint.worker, calls),
            azp=step.endpoint.identity,
            sub=behalf.sub,
            iat=now,
            exp=now + lifetime_s(claim.deadline_ms),
            jti=self.next_id(),
            run=claim.key.run,
            step=str(claim.key),
            attempt=claim.fence.attempt,
            cap=claim.capability,
            tenant=behalf.tenant,
            roles=list(behalf.roles),
            other_roles=list(behalf.other_roles),
            calls=calls,
            artifacts=[*([GIVEN] if many else sorted(step.digests)), STORED],
            datasets=[
                *(f"read:{name}" for name in permissions.datasets.read),
                *(f"write:{name}" for name in permissions.datasets.write),
            ],
            secrets=sorted(step.secrets),
            data_class=claim.data_class,
            members=digest_of_members(members_of(step)),
        )


def _why_denied(decision: Decision, worker: str, capability: str) -> str:
    by = f"has no rule that allows {capability}"
    if decision.rule:
        by = f"may not call {capability}: rule {decision.rule!r} decides ({decision.reason.value})"
    ask = f"hivemesh policy explain platform {worker} {capability}"
    return f"worker {worker!r} refuses: caller 'platform' {by}; ask `{ask}`"


def lifetime_s(deadline_ms: int) -> int:
    """Seconds that a ticket lives: a minute longer than its step may take, at most 15 minutes."""
    if not deadline_ms:
        return MAX_LIFETIME_S
    return min(MAX_LIFETIME_S, -(-deadline_ms // 1000) + GRACE_S)
