"""Jobs that steps have started: on the step's behalf, once for a name, while its attempt runs.

A step starts nothing that it could not ask for itself: the capability is one of its ticket's `calls`,
the policy lets its worker call it, the artifacts and secrets are those that the ticket names, and the
data has at least the class of what the step was given.
"""

from dataclasses import replace

import msgspec
import structlog
from hivemesh_sdk.contracts.api import JobRequest
from hivemesh_sdk.contracts.artifacts import highest
from hivemesh_sdk.contracts.names import CALL_NAME
from hivemesh_sdk.contracts.references import written_secrets
from hivemesh_sdk.contracts.submits import SubmitReply, SubmitRequest
from hivemesh_sdk.contracts.tickets import GIVEN, STORED, Ticket
from hivemesh_sdk.errors import InvalidError, NotAuthorizedError
from hivemesh_sdk.trust.policy import Facts, Policies
from pydantic import ValidationError

from hivemesh_platform import crash
from hivemesh_platform.artifacts.store import stored_by_run
from hivemesh_platform.execution.behalf import Behalf, effective
from hivemesh_platform.execution.held import HeldStep
from hivemesh_platform.execution.jobs import JobService
from hivemesh_platform.execution.ledger import Claim, StaleAttemptError
from hivemesh_platform.execution.parts import milliseconds
from hivemesh_platform.execution.ports import Catalogue
from hivemesh_platform.execution.service import RunParts
from hivemesh_platform.execution.shown import StepTickets, root_of
from hivemesh_platform.execution.spec import JobSpec, artifact_digests, written
from hivemesh_platform.execution.submit_sql import SubmitKey, digest_of
from hivemesh_platform.storage.transaction import Transaction

DEEPEST = 8  # jobs that start jobs that start jobs, as pipelines within pipelines

_RUNS = """
SELECT 1 FROM work WHERE run = ? AND node = ? AND seq = ? AND attempt = ? AND epoch = ?
   AND state = 'running'
"""
_log = structlog.get_logger("hivemesh.execution")


class SubmitDeniedError(NotAuthorizedError):
    """The step may not have this started."""

    slug = "not-authorized"


class StepSubmits:
    """What the API offers to steps that start jobs."""

    def __init__(
        self,
        parts: RunParts,
        jobs: JobService,
        tickets: StepTickets,
        catalogue: Catalogue,
        policies: Policies,
    ) -> None:
        self._parts = parts
        self._jobs = jobs
        self._tickets = tickets
        self._catalogue = catalogue
        self._policies = policies

    async def submit(self, request: SubmitRequest, token: str, identity: str) -> SubmitReply:
        """Accept a job, or find the one that the same step has named so before.

        Raises:
            TicketRefusedError, StaleAttemptError: as `StepTickets.check` has it.
            SubmitDeniedError: the step may not have this started.
            InvalidError, UnknownCapabilityError, DataClassError: as for any job.
            OtherBodyError, InFlightError: the name was used for something else, or is in use.
        """
        if not CALL_NAME.fullmatch(request.name):
            message = f"{request.name!r} is no name of a submit; use up to 40 of a-z, 0-9, _ and -"
            raise InvalidError(message)
        ticket = await self._tickets.check(token, identity, request.step, request.attempt)
        step = self._parts.held.find(root_of(request.step))
        if step is None:  # it has ended since it was checked
            raise _over(request)
        job = _job(request, ticket)
        behalf = effective(step.claim.behalf)
        self._check_capability(job.capability, ticket, identity, behalf)
        _check_secrets(job, ticket)
        await self._check_artifacts(job, ticket, step)
        return SubmitReply(job=await self._accept(request, job, step.claim, behalf))

    async def _accept(
        self, request: SubmitRequest, job: JobRequest, claim: Claim, behalf: Behalf
    ) -> str:
        name = f"step {request.step}.{request.name}"  # with a blank, as no key of a person has it
        key = SubmitKey(behalf.tenant, behalf.sub, name, digest_of("job", job))
        submits, now = self._parts.submits, milliseconds(self._parts.clock)
        with submits.accepting(key):
            new = await self._jobs.prepare(job, behalf)
            spec = msgspec.json.decode(new.spec, type=JobSpec)
            spec = msgspec.structs.replace(
                spec, submitted_by=f"{request.step}.{request.name}", depth=_depth(claim) + 1
            )
            new = replace(new, spec=written(spec), together="")

            def accept(tx: Transaction) -> str | None:
                if tx.one(_RUNS + tx.for_share, _place(claim)) is None:
                    raise _over(request)
                earlier = submits.keep(tx, key, new.id)
                if earlier is None:
                    self._parts.ledger.add_job(tx, new, now)
                return earlier

            crash.reach("accept.before")
            earlier = await self._parts.database.write(accept)
            crash.reach("accept.after")
        if earlier is not None:
            return earlier
        _log.info("job_submitted_by_step", run_id=new.id, step=request.step)
        self._parts.work.give()
        return new.id

    def _check_capability(
        self, capability: str, ticket: Ticket, identity: str, behalf: Behalf
    ) -> None:
        """The manifest has asked for it, the principal may run it, and the worker may call it."""
        if capability not in ticket.calls:
            message = f"the ticket of {ticket.step!r} allows no call of {capability}"
            raise SubmitDeniedError(message)
        if not behalf.rights().allows("run", "capability", capability):
            message = f"{behalf.sub} has no run:capability/{capability}"
            raise SubmitDeniedError(message)
        known = self._catalogue.find(capability)
        if known is None:
            return  # refused as for any job
        facts = Facts(
            ticket=True,
            roles=tuple(ticket.roles),
            data_class=ticket.data_class,
            other_roles=tuple(ticket.other_roles),
        )
        decision = self._policies.current().decide(identity, known.worker, capability, facts)
        if not decision.allowed:
            message = f"the policy does not let {identity} call {capability} of {known.worker}"
            raise SubmitDeniedError(message, slug="policy-denied")

    async def _check_artifacts(self, job: JobRequest, ticket: Ticket, step: HeldStep) -> None:
        """Hand on only what the step may read; a folder with all that is in it."""
        digests, trees = await self._opened(*artifact_digests([job.input, job.options]))
        if not digests:
            return
        own = step.digests if GIVEN in ticket.artifacts else step.digests & {*ticket.artifacts}
        had, _ = await self._opened(own, own & step.trees)
        run = step.claim.key.run
        foreign = sorted((digests | trees) - had)
        if STORED in ticket.artifacts and foreign:
            foreign = await self._parts.database.read(
                lambda tx: [one for one in foreign if not stored_by_run(tx, run, one)]
            )
        if foreign:
            message = f"the artifact {foreign[0]} is none that {ticket.step!r} may read"
            raise SubmitDeniedError(message)

    async def _opened(
        self, digests: frozenset[str], trees: frozenset[str]
    ) -> tuple[set[str], frozenset[str]]:
        found = set(digests)
        for tree in trees:
            found |= await self._parts.trees.entries(tree)
        return found, trees


def _job(request: SubmitRequest, ticket: Ticket) -> JobRequest:
    try:
        return JobRequest(
            capability=request.capability,
            input=msgspec.json.decode(request.input),
            options=request.options,
            data_class=highest((JobRequest.model_fields["data_class"].default, ticket.data_class)),
        )
    except (ValidationError, msgspec.DecodeError) as error:
        message = f"{request.capability}: input and options are JSON, the options an object"
        raise InvalidError(message) from error


def _check_secrets(job: JobRequest, ticket: Ticket) -> None:
    """A step names no secret that it may not have itself."""
    foreign = sorted(set(written_secrets([job.input, job.options])) - set(ticket.secrets))
    if foreign:
        message = f"the ticket of {ticket.step!r} allows no secret {foreign[0]!r}"
        raise SubmitDeniedError(message)


def _depth(claim: Claim) -> int:
    """How many steps have started each other up to this one.

    Raises:
        InvalidError: there are too many.
    """
    if claim.spec is None:
        return 0
    depth = msgspec.json.decode(claim.spec, type=JobSpec).depth
    if depth >= DEEPEST:
        message = (
            f"{claim.key} is {depth} submits deep; a job started by jobs starts none at {DEEPEST}"
        )
        raise InvalidError(message)
    return depth


def _place(claim: Claim) -> tuple[str, str, int, int, int]:
    key, fence = claim.key, claim.fence
    return key.run, key.node, key.seq, fence.attempt, fence.epoch


def _over(request: SubmitRequest) -> StaleAttemptError:
    return StaleAttemptError(f"attempt {request.attempt} of {request.step!r} is over")
