"""Whether a principal may start, see or cancel a run or job, and read what comes out of it.

Who starts a pipeline may do himself what it does: call each of its capabilities, write each of its
datasets, and read each artifact that it or he names; what it names its author may read too. So no
pipeline lends a right.
"""

from fastapi import Request
from hivemesh_sdk.contracts.api import BatchRequest, JobRequest, RunRequest
from hivemesh_sdk.errors import NotAuthorizedError

from hivemesh_platform.access.model import Principal
from hivemesh_platform.api.access import may, noted, person_of, principal_of, require
from hivemesh_platform.artifacts.service import ArtifactService, missing
from hivemesh_platform.execution.behalf import as_principal
from hivemesh_platform.execution.jobs.batches import Inputs, named_by
from hivemesh_platform.execution.plans.given import Given
from hivemesh_platform.execution.plans.plan import Plan, written_by
from hivemesh_platform.execution.plans.spec import artifact_digests
from hivemesh_platform.execution.runs.service import Demands, RunService
from hivemesh_platform.execution.runs.subjects import RunSubject, no_run


class Work:
    """The decisions on runs and jobs."""

    def __init__(self, runs: RunService, artifacts: ArtifactService) -> None:
        self._runs = runs
        self._artifacts = artifacts

    async def check_run(self, request: Request, body: RunRequest) -> Demands:
        """Refuse to start a run that does what its submitter may not do himself.

        What is returned was decided about, and nothing else may be started.

        Raises:
            NotAuthorizedError, NotFoundError: as `require` has it.
        """
        if body.pipeline is not None:
            require(request, "run:pipeline", body.pipeline)
        demands = await self._runs.demands(body, principal_of(request).tenant)
        plan = demands.plan
        await self._check_nested(request, plan)
        if body.document is not None:
            require(request, "run:pipeline", plan.pipeline.metadata.name)
            require(request, "create:pipeline", plan.pipeline.metadata.name)
        for node in plan.nodes:
            if node.nested is None:
                require(request, "run:capability", node.step.use)
            if node.dataset:
                require(request, "write:dataset", node.dataset)
        await self._check_given(principal_of(request), demands.given())
        if demands.author is not None:
            await self._check_given(as_principal(demands.author), written_by(plan))
        return demands

    async def _check_nested(self, request: Request, plan: Plan) -> None:
        """Refuse pipelines within a plan as if they were started by themselves."""
        for node in plan.nodes:
            if node.nested is None:
                continue
            within = node.nested.plan
            require(request, "run:pipeline", within.pipeline.metadata.name)
            for one in within.nodes:
                if one.nested is None:
                    require(request, "run:capability", one.step.use)
                if one.dataset:
                    require(request, "write:dataset", one.dataset)
            await self._check_given(principal_of(request), written_by(within))
            if node.nested.author is not None:
                await self._check_given(as_principal(node.nested.author), written_by(within))
            await self._check_nested(request, within)

    async def check_pipeline(self, request: Request, plan: Plan) -> None:
        """Refuse to store a pipeline that names artifacts which its author may not read.

        Raises:
            ArtifactMissingError: there is no such artifact, or it is invisible.
        """
        await self._check_given(principal_of(request), written_by(plan))

    async def check_job(self, request: Request, body: JobRequest) -> None:
        """Refuse a job whose capability or artifacts its submitter may not use.

        Raises:
            NotAuthorizedError, NotFoundError: as `require` has it.
        """
        require(request, "run:capability", body.capability)
        given = Given(*artifact_digests([body.input, body.options]))
        await self._check_given(principal_of(request), given)

    async def check_batch(self, request: Request, body: BatchRequest, inputs: Inputs) -> None:
        """Refuse a batch whose capability or artifacts its submitter may not use.

        Raises:
            NotAuthorizedError, NotFoundError: as `require` has it.
        """
        require(request, "run:capability", body.capability)
        await self._check_given(principal_of(request), Given(*named_by(body, inputs)))

    async def check_seen(self, request: Request, run: str) -> RunSubject:
        """Refuse who may not see the run, as if there were none.

        Raises:
            NotFoundError: there is none, or it is invisible.
        """
        principal = person_of(request)
        subject = await self._runs.subject(run)
        if not subject.seen_by(principal):
            noted(request, principal, "read:run", run, denied="invisible")
            raise no_run(run)
        return subject

    async def check_changed(self, request: Request, run: str) -> None:
        """Refuse who may not cancel the run.

        Raises:
            NotFoundError: there is none, or it is invisible.
            NotAuthorizedError: it is neither the caller's own nor may he change others'.
        """
        subject = await self.check_seen(request, run)
        principal = principal_of(request)
        allowed = subject.changed_by(principal)
        denied = "" if allowed else "neither its submitter nor write:run"
        noted(request, principal, "write:run", run, denied=denied)
        if not allowed:
            message = f"{run} is not a run of {principal.id}, who has no write:run/{subject.name}"
            raise NotAuthorizedError(message)

    async def check_again(self, request: Request, run: str) -> None:
        """Refuse who may not set the run going again: to change it, and to call what it calls.

        Raises:
            NotFoundError: there is none, or it is invisible.
            NotAuthorizedError: he may see it only, or not call one of its capabilities.
        """
        await self.check_changed(request, run)
        subject = await self._runs.subject(run)
        require(request, f"run:{subject.kind}", subject.name)
        for node in (await self._runs.get(run)).nodes:
            if node.child:
                await self.check_again(request, node.child)
            elif node.kind != "pipeline":
                require(request, "run:capability", node.use)

    async def check_backfill(self, request: Request, run: str) -> None:
        """Refuse who may not do again what the run did, and write where it wrote.

        Raises:
            NotFoundError, NotAuthorizedError: as `check_again` has it.
        """
        await self.check_again(request, run)
        demands = await self._runs.demands_of(run)
        for node in demands.plan.nodes:
            if node.dataset:
                require(request, "write:dataset", node.dataset)
        await self._check_given(principal_of(request), demands.given())

    async def check_output(self, request: Request, run: str, name: str) -> None:
        """Refuse records of a dataset that the caller may not read, though he may see the run.

        Raises:
            NotAuthorizedError, NotFoundError: as `require` has it.
        """
        dataset = await self._runs.dataset_of(run, name)
        if dataset:
            require(request, "read:dataset", dataset)

    async def _check_given(self, principal: Principal, given: Given) -> None:
        """Refuse artifacts that a principal may not read; a folder with everything in it.

        Raises:
            ArtifactMissingError: there is no such artifact, or it is invisible.
        """
        await self._check_digests(principal, sorted(given.digests))
        for tree in sorted(given.trees):
            await self._check_digests(principal, sorted(await self._artifacts.entries(tree)))

    async def check_given(self, request: Request, given: Given) -> None:
        """Refuse work that names artifacts which the caller may not read.

        Raises:
            ArtifactMissingError: there is no such artifact, or it is invisible.
        """
        await self._check_given(principal_of(request), given)

    async def check_artifact(self, request: Request, sha256: str) -> None:
        """Refuse bytes that the caller has not stored and may not read by any of his rights.

        Raises:
            ArtifactMissingError: there are none, or they are invisible.
        """
        await self._check_digests(principal_of(request), [sha256])

    async def _check_digests(self, principal: Principal, digests: list[str]) -> None:
        found = await self._artifacts.standings(digests, principal.tenant, principal.id)
        uploads = principal.rights.any("create", "artifact")
        for sha256, standing in found.items():
            direct = standing.known and may(principal, "read:artifact", sha256)
            if not direct and not (standing.owned and uploads):
                await self._check_origin(principal, sha256)

    async def _check_origin(self, principal: Principal, sha256: str) -> None:
        datasets, runs = await self._artifacts.origins(sha256, principal.tenant)
        if any(may(principal, "read:dataset", name) for name in datasets):
            return
        for run in runs:
            if (await self._runs.subject(run)).seen_by(principal):
                return
        raise missing(sha256)
