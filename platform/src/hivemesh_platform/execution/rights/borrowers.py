"""The steps to which secrets may be lent: those that run for this process, and calls below them."""

from hivemesh_sdk.contracts.manifest import Permissions
from hivemesh_sdk.contracts.tickets import Ticket
from hivemesh_sdk.trust.identity import SpiffeId

from hivemesh_platform.credentials.model import StepSecrets
from hivemesh_platform.execution.held import HeldSteps
from hivemesh_platform.execution.ports import Catalogue
from hivemesh_platform.execution.rights.shown import root_of


class Borrowers:
    """Implements the port of secrets over the held steps."""

    def __init__(self, held: HeldSteps, catalogue: Catalogue) -> None:
        self._held = held
        self._catalogue = catalogue

    def secrets_of(self, ticket: Ticket) -> StepSecrets | None:
        """What the holder of a checked ticket may be lent; None where its step does not run.

        Of a call that another worker makes for the step, the ticket alone says what it names, and
        the leases end with the step.
        """
        step = self._held.find_active(root_of(ticket.step))
        if step is None or step.claim.fence.attempt != ticket.attempt:
            return None
        claim = step.claim
        known = self._catalogue.find(ticket.cap)
        permissions = Permissions() if known is None else known.permissions
        deadline = claim.deadline_ms / 1000 if claim.deadline_ms else None
        return StepSecrets(
            run=claim.key.run,
            key=str(claim.key),
            attempt=claim.fence.attempt,
            identity=ticket.azp,
            worker=SpiffeId.parse(ticket.azp).name,
            named=frozenset(ticket.secrets),
            permitted=permissions.secrets,
            ends_at=None if deadline is None else step.started + deadline,
            on_behalf_of=claim.behalf.sub,
            grants=claim.behalf.grants,
            tenant=claim.behalf.tenant,
        )
