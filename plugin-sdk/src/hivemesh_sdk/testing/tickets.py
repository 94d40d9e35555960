"""Tickets for tests: right ones, and every wrong one."""

import itertools
import time
from collections.abc import Callable

import msgspec

from hivemesh_sdk.clock import SystemClock
from hivemesh_sdk.contracts.steps import StepRequest, digest_of_members
from hivemesh_sdk.contracts.tickets import (
    TICKET_TYPE,
    ExchangeReply,
    ExchangeRequest,
    Ticket,
)
from hivemesh_sdk.trust.identity import SpiffeId
from hivemesh_sdk.trust.jws import SigningKey, is_sealed
from hivemesh_sdk.trust.tickets import TicketReader, TicketRefusedError

LIFETIME_S = 300
RENEW_S = 120  # a remembered ticket is used for so long


class ThrowawayTickets:
    """Mints tickets as a platform would; each claim can be replaced."""

    def __init__(
        self, signing: SigningKey, issuer: str, *, now: Callable[[], float] = time.time
    ) -> None:
        self.signing = signing
        self.issuer = issuer
        self.sub = issuer.partition("/platform/")[0] + "/user/tester"
        self._now = now
        keys = {signing.public.id: signing.public}
        self._reader = TicketReader(lambda: keys, SystemClock())
        self._numbers = itertools.count(1)
        self._used: dict[tuple[str, str, int], tuple[float, str]] = {}

    def claims(
        self, holder: SpiffeId, step: str, capability: str, attempt: int = 1, **changes: object
    ) -> Ticket:
        """The claims of a right ticket, with some replaced."""
        now = int(self._now())
        ticket = Ticket(
            iss=self.issuer,
            aud=[holder.name],
            azp=str(holder),
            sub=self.sub,
            iat=now,
            exp=now + LIFETIME_S,
            jti=f"test-{next(self._numbers)}",
            run=step.partition(".")[0],
            step=step,
            attempt=attempt,
            cap=capability,
            roles=["viewer", "analyst", "author", "operator", "admin"],
            artifacts=["*", "run"],
        )
        return msgspec.structs.replace(ticket, **changes)

    def sign(self, ticket: Ticket, *, signing: SigningKey | None = None) -> str:
        """The signed form, by another key if one is given."""
        return (signing or self.signing).sign(msgspec.json.encode(ticket), TICKET_TYPE)

    def given(self, ticket: Ticket) -> str:
        """What the platform gives to a holder: signed only if it may be shown to other workers."""
        if ticket.calls:
            return self.sign(ticket)
        return self.signing.seal(msgspec.json.encode(ticket))

    def of(self, holder: SpiffeId, step: str, capability: str, attempt: int = 1) -> str:
        """A right ticket, signed: the same one for a while, as the platform sends it."""
        name = (f"{holder} {step}", capability, attempt)
        known = self._used.get(name)
        if known is None or self._now() > known[0]:
            token = self.given(self.claims(holder, step, capability, attempt))
            known = self._used[name] = (self._now() + RENEW_S, token)
        return known[1]

    def fresh(self, holder: SpiffeId, step: str, request: StepRequest) -> str:
        """A ticket that has begun nothing yet, signed; `for_request` gives it from now on."""
        self._used.pop((f"{holder} {step}", request.capability, request.attempt), None)
        return self.for_request(holder, step, request)

    def check(self, token: str, identity: str, step: str, attempt: int) -> Ticket:
        """The claims of a ticket that a worker shows for a step of its own.

        Raises:
            TicketRefusedError: there is none, or it is one of something else.
        """
        if not token:
            raise TicketRefusedError(step, reason="missing", slug="ticket-missing")
        if is_sealed(token):
            ticket = msgspec.json.decode(self.signing.unseal(token), type=Ticket)
        else:
            ticket = self._reader.from_holder(token.encode())
        if (ticket.azp, ticket.step, ticket.attempt) != (identity, step, attempt):
            raise TicketRefusedError(step, reason="other-step")
        return ticket

    def exchange(self, request: ExchangeRequest, asker: SpiffeId) -> ExchangeReply:
        """A ticket of the asker's own; allows no calls.

        Raises:
            TicketRefusedError: the ticket was not shown to the asker.
        """
        shown = self._reader.from_holder(request.ticket.encode())
        if asker.name not in shown.aud or request.step.rpartition(".")[0] != shown.step:
            raise TicketRefusedError(request.step, reason="other-audience")
        claims = msgspec.structs.replace(
            shown,
            aud=[asker.name],
            azp=str(asker),
            jti=f"test-{next(self._numbers)}",
            step=request.step,
            cap=request.capability,
            calls=[],
            act=[shown.azp, *shown.act],
        )
        return ExchangeReply(ticket=self.sign(claims), expires_in_s=int(shown.exp - self._now()))

    def for_request(self, holder: SpiffeId, step: str, request: StepRequest) -> str:
        """A right ticket for a step request."""
        if request.members:
            members = digest_of_members(request.members)
            return self.given(self.claims(holder, step, request.capability, members=members))
        return self.of(holder, step, request.capability, request.attempt)
