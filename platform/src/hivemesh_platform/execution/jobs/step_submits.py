"""Jobs and runs that steps have started: on the step's behalf, once for a name, while its attempt runs.

A step starts nothing that it could not ask for itself: the capability is one of its ticket's `calls`,
the policy lets its worker call it, the artifacts and secrets are those that the ticket names, and the
data has at least the class of what the step was given. Of a pipeline this holds for each of its steps.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import msgspec
import structlog
from hivemesh_sdk.contracts.api import JobRequest, RunRequest
from hivemesh_sdk.contracts.artifacts import highest
from hivemesh_sdk.contracts.names import CALL_NAME, DEFAULT_PRIORITY
from hivemesh_sdk.contracts.pipeline import PIPELINE_USE
from hivemesh_sdk.contracts.references import written_secrets
from hivemesh_sdk.contracts.submits import SubmitReply, SubmitRequest
from hivemesh_sdk.contracts.tickets import GIVEN, STORED, Ticket
from hivemesh_sdk.errors import InvalidError, NotAuthorizedError
from hivemesh_sdk.safeio.json import parse_json_fast
from hivemesh_sdk.safeio.problems import MalformedError
from hivemesh_sdk.trust.policy import Facts, Policies
from pydantic import JsonValue, ValidationError

from hivemesh_platform import crash
from hivemesh_platform.artifacts.store import stored_by_run
from hivemesh_platform.execution.behalf import Behalf, effective
from hivemesh_platform.execution.held import HeldStep
from hivemesh_platform.execution.jobs.service import JobService
from hivemesh_platform.execution.ledger import store
from hivemesh_platform.execution.ledger.event_sql import log_event
from hivemesh_platform.execution.ledger.port import Claim, StaleAttemptError, milliseconds
from hivemesh_platform.execution.ledger.submit_sql import SubmitKey, digest_of
from hivemesh_platform.execution.plans.given import Given
from hivemesh_platform.execution.plans.plan import Plan, bind_parameters, written_by
from hivemesh_platform.execution.plans.spec import JobSpec, artifact_digests, written
from hivemesh_platform.execution.ports import Catalogue
from hivemesh_platform.execution.rights.shown import StepTickets, root_of
from hivemesh_platform.execution.runs.service import Accepted, Demands, RunParts, RunService
from hivemesh_platform.ids import new_run_id
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
        runs: RunService,
        catalogue: Catalogue,
        policies: Policies,
    ) -> None:
        self._parts = parts
        self._jobs = jobs
        self._runs = runs
        self._tickets = tickets
        self._catalogue = catalogue
        self._policies = policies

    async def submit(self, request: SubmitRequest, token: str, identity: str) -> SubmitReply:
        """Accept a job or a run, or find the one that the same step has named so before.

        Raises:
            TicketRefusedError, StaleAttemptError: as `StepTickets.check` has it.
            SubmitDeniedError: the step may not have this started.
            InvalidError, UnknownCapabilityError, NotFoundError, DataClassError: as for any job or run.
            OtherBodyError, InFlightError: the name was used for something else, or is in use.
        """
        if not CALL_NAME.fullmatch(request.name):
            message = f"{request.name!r} is no name of a submit; use up to 40 of a-z, 0-9, _ and -"
            raise InvalidError(message)
        ticket = await self._tickets.check(token, identity, request.step, request.attempt)
        step = self._parts.held.find_active(root_of(request.step))
        if step is None:  # it has ended since it was checked
            raise _over(request)
        asker = _Asker(request, ticket, identity, step, effective(step.claim.behalf))
        if request.capability not in ticket.calls:
            message = f"the ticket of {ticket.step!r} allows no call of {request.capability}"
            raise SubmitDeniedError(message)
        if PIPELINE_USE.fullmatch(request.capability):
            return SubmitReply(job=await self._start_run(asker))
        job = _job(request, ticket)
        self._check_capability(job.capability, asker)
        _check_secrets([job.input, job.options], ticket)
        await self._check_artifacts(Given(*artifact_digests([job.input, job.options])), asker)
        return SubmitReply(job=await self._accept(asker, job))

    async def _start_run(self, asker: "_Asker") -> str:
        request, behalf = asker.request, asker.behalf
        wanted = _run(request, asker.ticket)
        found = await self._parts.pipelines.nested(request.capability, behalf.tenant)
        self._check_plan(request.capability, found.plan, asker)
        parameters = bind_parameters(found.plan.pipeline, wanted.parameters)
        demands = Demands(found.plan, found.author, parameters)
        _check_secrets(wanted.parameters, asker.ticket)
        for given in (demands.given(), *map(written_by, _within(found.plan))):
            await self._check_artifacts(given, asker)
        key = asker.key(digest_of("run", wanted))
        submits, depth = self._parts.submits, await self._depth(asker.step.claim)
        with submits.accepting(key):
            await self._runs.refuse_secrets(found.plan, effective(behalf, found.author))
            accepted = Accepted(
                run=new_run_id(),
                plan=found.plan,
                parameters=parameters,
                labels=wanted.labels,
                submitter=behalf,
                author=found.author,
                data_class=wanted.data_class,
                folders=await self._runs.folders(demands.given()),
                now=milliseconds(self._parts.clock),
                priority=wanted.priority,
                parent=("", "", depth + 1),
            )

            def add(tx: Transaction) -> None:
                self._runs.accept(tx, accepted)
                by: dict[str, object] = {"step": request.step, "name": request.name}
                log_event(tx, accepted.run, "submitted_by_step", accepted.now, data=by)

            earlier = await self._keep(asker, key, accepted.run, add)
        if earlier is not None:
            return earlier
        _log.info("run_submitted_by_step", run_id=accepted.run, step=request.step)
        await self._runs.submit(accepted.run, [node.name for node in found.plan.nodes])
        return accepted.run

    def _check_plan(self, use: str, plan: Plan, asker: "_Asker") -> None:
        """All that a pipeline does, the step could do itself: no pipeline lends a right."""
        rights, name = asker.behalf.rights(), plan.pipeline.metadata.name
        if not rights.allows("run", "pipeline", name):
            message = f"{asker.behalf.sub} has no run:pipeline/{name}"
            raise SubmitDeniedError(message)
        for node in plan.nodes:
            if node.dataset and not rights.allows("write", "dataset", node.dataset):
                message = f"{asker.behalf.sub} has no write:dataset/{node.dataset}, as {use} needs"
                raise SubmitDeniedError(message)
            if node.nested is None:
                self._check_capability(node.step.use, asker)
            else:
                self._check_plan(node.step.use, node.nested.plan, asker)

    async def _accept(self, asker: "_Asker", job: JobRequest) -> str:
        request, claim, behalf = asker.request, asker.step.claim, asker.behalf
        key = asker.key(digest_of("job", job))
        submits, now = self._parts.submits, milliseconds(self._parts.clock)
        depth = await self._depth(claim)
        with submits.accepting(key):
            new = await self._jobs.prepare(job, behalf)
            spec = msgspec.json.decode(new.spec, type=JobSpec)
            spec = msgspec.structs.replace(
                spec, submitted_by=f"{request.step}.{request.name}", depth=depth + 1
            )
            new = replace(new, spec=written(spec), together="")

            def add(tx: Transaction) -> None:
                self._parts.ledger.add_job(tx, new, now)

            earlier = await self._keep(asker, key, new.id, add)
        if earlier is not None:
            return earlier
        _log.info("job_submitted_by_step", run_id=new.id, step=request.step)
        self._parts.work.give()
        return new.id

    async def _keep(
        self, asker: "_Asker", key: SubmitKey, made: str, add: Callable[[Transaction], None]
    ) -> str | None:
        """Add what was made while the step still runs; the id of what it had asked for before."""

        def accept(tx: Transaction) -> str | None:
            if tx.one(_RUNS + tx.for_share, _place(asker.step.claim)) is None:
                raise _over(asker.request)
            earlier = self._parts.submits.keep(tx, key, made)
            if earlier is None:
                add(tx)
            return earlier

        crash.reach("accept.before")
        earlier = await self._parts.database.write(accept)
        crash.reach("accept.after")
        return earlier

    def _check_capability(self, capability: str, asker: "_Asker") -> None:
        """The principal may run it, and the policy lets the worker call it."""
        ticket, identity, behalf = asker.ticket, asker.identity, asker.behalf
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

    async def _check_artifacts(self, given: Given, asker: "_Asker") -> None:
        """Hand on only what the step may read; a folder with all that is in it."""
        ticket, step = asker.ticket, asker.step
        digests, trees = await self._opened(given.digests, given.trees)
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

    async def _depth(self, claim: Claim) -> int:
        """How many steps have started each other up to this one, and runs lie in each other.

        Raises:
            InvalidError: there are too many.
        """
        if claim.spec is not None:
            depth = msgspec.json.decode(claim.spec, type=JobSpec).depth
        else:
            row = await self._parts.database.read(lambda tx: store.run(tx, claim.key.run))
            depth = 0 if row is None else int(row["depth"])
        if depth >= DEEPEST:
            message = (
                f"{claim.key} is {depth} submits deep; at {DEEPEST} nothing is started further"
            )
            raise InvalidError(message)
        return depth

    async def _opened(
        self, digests: frozenset[str], trees: frozenset[str]
    ) -> tuple[set[str], frozenset[str]]:
        found = set(digests)
        for tree in trees:
            found |= await self._parts.trees.entries(tree)
        return found, trees


@dataclass(frozen=True, slots=True)
class _Asker:
    """A step that asks for something, and what it may."""

    request: SubmitRequest
    ticket: Ticket
    identity: str
    step: HeldStep
    behalf: Behalf

    def key(self, digest: str) -> SubmitKey:
        """By which it is known that the same was asked for before."""
        request = self.request
        name = f"step {request.step}.{request.name}"  # with a blank, as no key of a person has it
        return SubmitKey(self.behalf.tenant, self.behalf.sub, name, digest)


def _within(plan: Plan) -> Iterator[Plan]:
    """The pipelines within a plan."""
    for node in plan.nodes:
        if node.nested is not None:
            yield node.nested.plan
            yield from _within(node.nested.plan)


def _run(request: SubmitRequest, ticket: Ticket) -> RunRequest:
    if request.input != msgspec.Raw(b"null") or request.how.deadline_s is not None:
        message = f"{request.capability} has parameters: give them as options, and no deadline"
        raise InvalidError(message)
    try:
        return RunRequest(
            pipeline=request.capability,
            parameters=request.options,
            labels=request.how.labels,
            priority=request.how.priority,
            data_class=highest((RunRequest.model_fields["data_class"].default, ticket.data_class)),
        )
    except ValidationError as error:
        raise _wrong(request, error) from error


def _wrong(request: SubmitRequest, error: ValidationError) -> InvalidError:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return InvalidError(f"{request.capability}: {place}: {first['msg']}")


def _job(request: SubmitRequest, ticket: Ticket) -> JobRequest:
    try:
        return JobRequest(
            capability=request.capability,
            input=parse_json_fast(bytes(request.input), name="the input"),
            options=request.options,
            labels=request.how.labels,
            deadline_s=request.how.deadline_s,
            priority=DEFAULT_PRIORITY if request.how.priority is None else request.how.priority,
            data_class=highest((JobRequest.model_fields["data_class"].default, ticket.data_class)),
        )
    except ValidationError as error:
        raise _wrong(request, error) from error
    except MalformedError as error:
        message = f"{request.capability}: {error.detail}"
        raise InvalidError(message) from error


def _check_secrets(given: JsonValue, ticket: Ticket) -> None:
    """A step names no secret that it may not have itself."""
    foreign = sorted(set(written_secrets(given)) - set(ticket.secrets))
    if foreign:
        message = f"the ticket of {ticket.step!r} allows no secret {foreign[0]!r}"
        raise SubmitDeniedError(message)


def _place(claim: Claim) -> tuple[str, str, int, int, int]:
    key, fence = claim.key, claim.fence
    return key.run, key.node, key.seq, fence.attempt, fence.epoch


def _over(request: SubmitRequest) -> StaleAttemptError:
    return StaleAttemptError(f"attempt {request.attempt} of {request.step!r} is over")
