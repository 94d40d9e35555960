"""Jobs: one capability call, one row of the ledger, no workflow."""

from collections.abc import Mapping
from types import MappingProxyType

import msgspec
from hivemesh_sdk.contracts.api import JobRequest, RunView
from hivemesh_sdk.contracts.artifacts import DataClass, highest
from hivemesh_sdk.contracts.manifest import Capability
from hivemesh_sdk.contracts.pipeline import Retry
from hivemesh_sdk.contracts.problems import FieldProblem
from hivemesh_sdk.contracts.references import references_in
from hivemesh_sdk.errors import InvalidError, NotFoundError
from pydantic import JsonValue

from hivemesh_platform import crash
from hivemesh_platform.artifacts.store import known_classes
from hivemesh_platform.execution.behalf import Behalf, effective
from hivemesh_platform.execution.ledger.group_rules import together_of
from hivemesh_platform.execution.ledger.limit_rules import key_of
from hivemesh_platform.execution.ledger.port import NewJob, milliseconds
from hivemesh_platform.execution.ledger.submit_sql import SubmitKey
from hivemesh_platform.execution.plans.inputs import unfit
from hivemesh_platform.execution.plans.policies import policy_of
from hivemesh_platform.execution.plans.secret_uses import secret_problems
from hivemesh_platform.execution.plans.spec import JobSpec, artifact_digests, written
from hivemesh_platform.execution.ports import Catalogue
from hivemesh_platform.execution.rights.classes import check_clearance, output_class
from hivemesh_platform.execution.runs.service import RunParts, RunService
from hivemesh_platform.ids import new_job_id
from hivemesh_platform.storage.transaction import Transaction

NO_LABELS: Mapping[str, str] = MappingProxyType({})
_CALLABLE = frozenset({"call", "map"})  # every map also answers one record


class UnknownCapabilityError(NotFoundError):
    """No installed worker declares the capability."""

    slug = "unknown-capability"


def refuse_unfit(declared: Capability, value: JsonValue, pointer: str) -> None:
    """Refuse an input that the capability cannot take.

    Raises:
        InvalidError: with the place of each fault, below `pointer`.
    """
    wrong = unfit(value, declared.input, pointer)
    if wrong:
        message = f"{declared.id} cannot take this: {wrong[0].pointer} {wrong[0].message}"
        raise InvalidError(message, slug="input-invalid", errors=wrong)


class JobService:
    """What the API offers on jobs."""

    def __init__(self, parts: RunParts, runs: RunService, catalogue: Catalogue) -> None:
        self._parts = parts
        self._runs = runs
        self._catalogue = catalogue

    async def start(self, request: JobRequest, submitter: Behalf) -> RunView:
        """Accept a job (durable when this returns) and wait up to `wait_s` for its end.

        Raises:
            UnknownCapabilityError, InvalidError, DataClassError: as `start_once` has it.
        """
        return (await self.start_once(request, submitter, ""))[0]

    async def start_once(
        self, request: JobRequest, submitter: Behalf, key: str
    ) -> tuple[RunView, bool]:
        """Accept a job, or find the one that the same request meant before under the same `key`.

        The second value says whether it was accepted now.

        Raises:
            UnknownCapabilityError: no installed worker declares the capability.
            InvalidError: the capability is no call and no map.
            DataClassError: the data is above the clearance of the capability.
            OtherBodyError, InFlightError: the key was used for something else, or is in use.
        """
        submits = self._parts.submits
        kept = submits.key(key, "job", request, submitter)
        with submits.accepting(kept):
            earlier = await submits.earlier(kept)
            job = await self._accept(request, submitter, kept) if earlier is None else earlier
        return await self._wait(job, request.wait_s), earlier is None

    async def _accept(self, request: JobRequest, submitter: Behalf, key: SubmitKey | None) -> str:
        job = await self.prepare(request, submitter)
        now = milliseconds(self._parts.clock)

        def accept(tx: Transaction) -> str | None:
            earlier = self._parts.submits.keep(tx, key, job.id)
            if earlier is None:
                self._parts.ledger.add_job(tx, job, now)
            return earlier

        crash.reach("accept.before")
        earlier = await self._parts.database.write(accept)
        crash.reach("accept.after")
        self._parts.work.give()
        return job.id if earlier is None else earlier

    async def prepare(
        self,
        request: JobRequest,
        submitter: Behalf,
        *,
        replay_of: str = "",
        labels: Mapping[str, str] = NO_LABELS,
        is_fit: bool = False,
    ) -> NewJob:
        """Check a job and make it ready to be accepted; `is_fit`: its input was checked before.

        Raises:
            UnknownCapabilityError, InvalidError, DataClassError: as `start` has it.
        """
        if not is_fit:
            refuse_unfit(self.declared(request.capability), request.input, "/input")
        inputs = await self._class_of(request)
        spec = self._spec(request, effective(submitter), inputs)
        await self.check_secrets(request.capability, request.options, effective(submitter))
        if replay_of:
            spec = msgspec.structs.replace(spec, replay_of=replay_of, labels=dict(labels))
        return NewJob(
            id=new_job_id(),
            capability=request.capability,
            submitter=submitter.sub,
            tenant=submitter.tenant,
            priority=request.priority,
            spec=written(spec),
            limit_key=key_of(submitter.tenant, request.concurrency_key),
            together="" if replay_of else self._together(request, spec),
        )

    def _together(self, request: JobRequest, spec: JobSpec) -> str:
        """With which jobs it may travel: none, where it needs more than its input."""
        named, _ = artifact_digests([request.input, request.options])
        return "" if named else self.together(request.capability, spec)

    def together(self, capability: str, spec: JobSpec) -> str:
        """With which jobs one of this kind may travel that names no artifact."""
        known = self._catalogue.find(capability)
        if known is None or known.permissions.call or known.permissions.secrets:
            return ""
        return together_of(capability, spec)

    async def check_secrets(
        self, capability: str, options: dict[str, JsonValue], behalf: Behalf
    ) -> None:
        """Refuse options that name secrets which the principal may not use.

        Raises:
            InvalidError: with a pointer for each.
        """
        known = self._catalogue.find(capability)
        if known is None:
            return
        problems = [
            *secret_problems(options, known, "/options"),
            *unfit(options, known.declared.options, "/options"),
        ]
        if problems:
            raise InvalidError(problems[0].message, slug="options-invalid", errors=problems)
        uses = references_in(options, known.declared.options, "/options")
        await self._parts.secrets.refuse(uses, behalf, "options-invalid")

    async def _wait(self, job: str, wait_s: float) -> RunView:
        until = self._parts.clock.monotonic() + wait_s
        with self._parts.runs.listen(job) as changed:
            while True:
                view = await self._runs.get(job)
                left = until - self._parts.clock.monotonic()
                if view.state.ended or left <= 0:
                    return view
                await changed.wait(left)

    async def _class_of(self, request: JobRequest) -> DataClass:
        """The class of what the request says and of the artifacts that it names, folders opened."""
        named, trees = artifact_digests([request.input, request.options])
        if not named:
            return request.data_class
        folders = {tree: await self._parts.trees.entries(tree) for tree in trees}
        known: dict[str, DataClass] = await self._parts.database.read(
            lambda tx: known_classes(tx, named, folders)
        )
        return highest((request.data_class, *known.values()))

    def declared(self, capability: str) -> Capability:
        """Return what the worker says of a capability that jobs may call.

        Raises:
            UnknownCapabilityError: no installed worker declares it.
            InvalidError: it is no call and no map.
        """
        known = self._catalogue.find(capability)
        if known is None:
            message = f"no installed worker has {capability!r}; `hivemesh capability list`"
            raise UnknownCapabilityError(message)
        declared = known.declared
        if declared.kind not in _CALLABLE:
            message = f"{declared.id} is a {declared.kind}; use it in a pipeline"
            pointer = FieldProblem(pointer="/capability", message=message)
            raise InvalidError(message, errors=[pointer])
        return declared

    def _spec(self, request: JobRequest, behalf: Behalf, inputs: DataClass) -> JobSpec:
        declared = self.declared(request.capability)
        check_clearance(inputs, declared)
        options: dict[str, JsonValue] = request.options
        deadline_s = request.deadline_s or declared.timeout_s
        idle_s = request.idle_timeout_s or declared.idle_timeout_s
        policy = policy_of(declared, self._parts.settings, Retry(max_retries=request.max_retries))
        return JobSpec(
            input=msgspec.Raw(msgspec.json.encode(request.input)),
            options=dict(options),
            labels=request.requires,
            tags=request.labels,
            deadline_ms=round(deadline_s * 1000),
            idle_timeout_ms=round(idle_s * 1000),
            max_retries=policy.max_retries,
            retry_base_s=policy.base_s,
            retry_max_s=policy.max_s,
            behalf=behalf,
            data_class=inputs,
            output_class=output_class(inputs, declared),
        )
