"""Runs and jobs that are done again, and the list and the types of jobs."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Query, Request
from hivemesh_sdk.contracts.api import CapabilityView, Page, RetryRequest, RunView
from hivemesh_sdk.errors import NotFoundError

from hivemesh_platform.api.access import before_body, may, require, require_some
from hivemesh_platform.api.behalf import behalf_of_request
from hivemesh_platform.api.bodies import router as strict_router
from hivemesh_platform.api.declared import declares
from hivemesh_platform.api.filters import Filtered
from hivemesh_platform.api.paging import Limit, page_of
from hivemesh_platform.api.recorded import recorded
from hivemesh_platform.api.work import Work
from hivemesh_platform.artifacts.service import ArtifactService
from hivemesh_platform.audit.ports import AuditTrail
from hivemesh_platform.execution.runs.again import RunsAgain
from hivemesh_platform.execution.runs.service import RunService

JOB_KINDS = frozenset({"call", "map"})


def router(
    again: RunsAgain,
    runs: RunService,
    artifacts: ArtifactService,
    capabilities: Callable[[], list[CapabilityView]],
    audit: AuditTrail,
    *,
    local: bool,
) -> APIRouter:
    """The routes; `local` says that nothing here is production."""
    routes = strict_router()
    work = Work(runs, artifacts)

    @routes.post("/v1/runs/{run}/retry", status_code=202)
    @before_body("write:run", "run:pipeline", "run:capability")
    @declares(problems=("nothing-to-retry",))
    async def retry_run(run: str, body: RetryRequest, request: Request) -> RunView:
        """Do again what of a run has failed, or everything from a step on."""
        await work.check_again(request, run)
        await recorded(request, audit, "retry:run", run, {"from": body.from_step})
        return await again.retry(run, body.from_step, behalf_of_request(request))

    @routes.post("/v1/runs/{run}/backfill", status_code=202)
    @declares(problems=("nothing-missing",))
    async def backfill_run(run: str, request: Request) -> RunView:
        """Do what is missing of a run, as a run of its own."""
        await work.check_backfill(request, run)
        await recorded(request, audit, "backfill:run", run)
        return await runs.backfill(run, behalf_of_request(request))

    @routes.get("/v1/jobs")
    async def list_jobs(
        request: Request, filters: Filtered, after: str = "", limit: Limit = 50
    ) -> Page[RunView]:
        """List jobs."""
        principal = require_some(request, "read:run", "run:capability")
        found = await runs.page(after, limit + 1, principal, filters.of("capability"))
        return page_of(found, limit, lambda run: run.id)

    @routes.get("/v1/job-types")
    async def list_job_types(
        request: Request, kind: Annotated[str, Query(max_length=20)] = ""
    ) -> Page[CapabilityView]:
        """List the capabilities that jobs may call."""
        principal = require_some(request, "read:capability")
        found = [one for one in capabilities() if may(principal, "read:capability", one.id)]
        kinds = {kind} if kind else JOB_KINDS
        return Page(items=[one for one in found if one.kind in kinds])

    @routes.post("/v1/jobs/{job}/retry", status_code=202)
    @declares(problems=("nothing-to-retry",))
    async def retry_job(job: str, request: Request) -> RunView:
        """Queue a job once more that has failed or was cancelled."""
        await work.check_again(request, job)
        await recorded(request, audit, "retry:run", job)
        return await again.retry_job(job, behalf_of_request(request))

    @routes.post("/v1/jobs/{job}/process", status_code=202)
    async def process_job(job: str, request: Request) -> RunView:
        """Try a queued job at once; not in production."""
        require(request, "admin:run")
        if not local:
            message = "there is no such route in production mode"
            raise NotFoundError(message)
        await work.check_seen(request, job)
        await recorded(request, audit, "process:run", job)
        return await again.process(job)

    return routes
