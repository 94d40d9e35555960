"""Tickets that workers show to the platform: for what they ask under a step, and to exchange them.

A ticket counts only while its attempt is the one that runs.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import structlog
from hivemesh_sdk.contracts.artifacts import highest
from hivemesh_sdk.contracts.names import CALL_NAME
from hivemesh_sdk.contracts.references import permits
from hivemesh_sdk.contracts.tickets import GIVEN, STORED, ExchangeReply, ExchangeRequest, Ticket
from hivemesh_sdk.trust.identity import SpiffeId
from hivemesh_sdk.trust.jws import SignatureInvalidError, is_sealed
from hivemesh_sdk.trust.tickets import TicketReader, TicketRefusedError

from hivemesh_platform.execution.held import HeldSteps
from hivemesh_platform.execution.ledger.counters import ExecutionCounters
from hivemesh_platform.execution.ledger.port import StaleAttemptError
from hivemesh_platform.execution.ports import Catalogue, KnownCapability
from hivemesh_platform.execution.rights.classes import exceeded
from hivemesh_platform.execution.rights.tickets import TicketMint

_log = structlog.get_logger("hivemesh.execution")

PARTS_OF_STEP = 3  # run.node.seq; each call below it adds one


class StepTickets:
    """Checks tickets and exchanges them; nothing it gives allows more than what was shown."""

    def __init__(
        self,
        reader: TicketReader,
        held: HeldSteps,
        mint: TicketMint,
        catalogue: Catalogue,
        counters: ExecutionCounters,
    ) -> None:
        self._reader = reader
        self._counters = counters
        self._held = held
        self._mint = mint
        self._catalogue = catalogue

    async def check(self, token: str, identity: str, step: str, attempt: int) -> Ticket:
        """The claims of a ticket that a worker shows for a step of its own.

        Raises:
            TicketRefusedError: there is none, or it is not its own, or of something else.
            StaleAttemptError: the attempt is over.
        """
        await self._held.look_up(root_of(step))
        with self._counted(identity):
            return self._checked(token, identity, step, attempt)

    def _checked(self, token: str, identity: str, step: str, attempt: int) -> Ticket:
        ticket = self._read(token)
        if ticket.azp != identity:
            message = "the ticket was given to another caller"
            raise TicketRefusedError(message, reason="other-holder")
        if not self._is_of(ticket, step, attempt):
            message = f"the ticket is one of attempt {ticket.attempt} of {ticket.step!r}"
            raise TicketRefusedError(message, reason="other-step")
        self._check_current(ticket)
        return ticket

    def _is_of(self, ticket: Ticket, step: str, attempt: int) -> bool:
        """Whether it is the ticket of the step, or of the request with which the step travels."""
        if ticket.step == step:
            return ticket.attempt == attempt
        held = self._held.with_member(step)
        return (
            held is not None
            and str(held.claim.key) == ticket.step
            and held.members[step].fence.attempt == attempt
        )

    async def exchange(
        self, request: ExchangeRequest, asker: SpiffeId, now: float
    ) -> ExchangeReply:
        """A ticket of the asker's own for one that it was shown as the callee.

        Raises:
            TicketRefusedError: it was not shown to the asker, or does not allow the call.
            StaleAttemptError: the attempt is over.
        """
        await self._held.look_up(root_of(request.step))
        with self._counted(str(asker)):
            return self._exchanged(request, asker, now)

    def _exchanged(self, request: ExchangeRequest, asker: SpiffeId, now: float) -> ExchangeReply:
        shown = self._read(request.ticket)
        known = self._callee(shown, request, asker)
        self._check_current(shown)
        data_class = highest(
            one for one in (shown.data_class, request.data_class) if one is not None
        )
        if data_class.exceeds(known.declared.data_class_max):
            raise TicketRefusedError(
                exceeded(data_class, known.declared),
                reason="data-class",
                slug="data-class-exceeded",
            )
        calls = _both(shown.calls, known.permissions.call, request.calls)
        until = shown.exp
        if request.lifetime_s is not None:
            until = min(until, int(now) + max(1, request.lifetime_s))
        ticket = msgspec.structs.replace(
            shown,
            aud=self._mint.audience(asker.name, calls),
            azp=str(asker),
            iat=min(int(now), until - 1),
            exp=until,
            jti=self._mint.next_id(),
            step=request.step,
            cap=request.capability,
            calls=calls,
            artifacts=_narrowed(shown.artifacts, request.artifacts),
            datasets=_both(shown.datasets, _datasets(known), request.datasets),
            secrets=[
                path
                for path in shown.secrets
                if permits(known.permissions.secrets, path)
                and (request.secrets is None or path in request.secrets)
            ],
            data_class=data_class,
            act=[shown.azp, *shown.act],
        )
        return ExchangeReply(ticket=self._mint.sign(ticket), expires_in_s=until - int(now))

    @contextmanager
    def _counted(self, who: str) -> Iterator[None]:
        """Count and log what is refused."""
        try:
            yield
        except TicketRefusedError as error:
            self._counters.tickets_refused[error.reason] += 1
            _log.warning("ticket_refused", reason=error.reason, caller=who, detail=error.detail)
            raise

    def _read(self, token: str) -> Ticket:
        if not token:
            message = "a worker shows the ticket of the step that it holds"
            raise TicketRefusedError(message, reason="missing", slug="ticket-missing")
        if not is_sealed(token):
            return self._reader.from_holder(token.encode("ascii", "replace"))
        try:
            return self._reader.timely(self._mint.unseal(token))
        except SignatureInvalidError as error:
            raise TicketRefusedError(
                error.detail, reason="signature", slug="signature-invalid"
            ) from error

    def _callee(self, shown: Ticket, request: ExchangeRequest, asker: SpiffeId) -> KnownCapability:
        """The called capability, if the ticket allowed the call to the asker; also to its holder."""
        if asker.name not in shown.aud:
            message = "the ticket was not shown to the asker"
            raise TicketRefusedError(message, reason="other-audience")
        step, _, name = request.step.rpartition(".")
        if step != shown.step or not CALL_NAME.fullmatch(name):
            message = f"the ticket allows calls below {shown.step!r}"
            raise TicketRefusedError(message, reason="other-step")
        known = self._catalogue.find(request.capability)
        if known is None or known.worker != asker.name or request.capability not in shown.calls:
            message = f"the ticket does not allow {request.capability} of {asker.name}"
            raise TicketRefusedError(message, reason="other-capability")
        return known

    def _check_current(self, ticket: Ticket) -> None:
        holder = ticket.act[-1] if ticket.act else ticket.azp
        held = self._held.find_active(root_of(ticket.step))
        if (
            held is None
            or held.claim.fence.attempt != ticket.attempt
            or held.endpoint.identity != holder
        ):
            self._held.count_stale()
            message = (
                f"attempt {ticket.attempt} of {ticket.step!r} is over; "
                "what it stores or asks for is refused"
            )
            raise StaleAttemptError(message)


def root_of(step: str) -> str:
    """The key of the step that the platform dispatched: without the names of calls below it."""
    return ".".join(step.split(".", PARTS_OF_STEP)[:PARTS_OF_STEP])


def _datasets(known: KnownCapability) -> list[str]:
    datasets = known.permissions.datasets
    return [
        *(f"read:{name}" for name in datasets.read),
        *(f"write:{name}" for name in datasets.write),
    ]


def _both(
    shown: list[str], permitted: list[str] | tuple[str, ...], asked: list[str] | None
) -> list[str]:
    """What was shown and is permitted and, where something is asked, is asked for."""
    return [one for one in shown if one in permitted and (asked is None or one in asked)]


def _narrowed(shown: list[str], asked: list[str] | None) -> list[str]:
    if asked is None:
        return shown
    if GIVEN not in shown:
        return [one for one in shown if one in asked]
    return [one for one in asked if one != STORED or STORED in shown]
