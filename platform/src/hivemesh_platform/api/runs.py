"""Runs: started, listed, followed, cancelled, and their outputs."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from hivemesh_sdk.contracts.api import ExplainView, Page, RejectedView, RunRequest, RunView, View
from hivemesh_sdk.contracts.names import IDEMPOTENCY_HEADER

from hivemesh_platform.api.access import before_body, require_some
from hivemesh_platform.api.behalf import behalf_of_request
from hivemesh_platform.api.bodies import router as strict_router
from hivemesh_platform.api.declared import BYTES, EXPORT, GIVEN, IDEMPOTENCY, declares
from hivemesh_platform.api.filters import Filtered
from hivemesh_platform.api.paging import Limit, Offset, offset_page, page_of
from hivemesh_platform.api.recorded import recorded
from hivemesh_platform.api.work import Work
from hivemesh_platform.artifacts.service import ArtifactService
from hivemesh_platform.audit.ports import AuditTrail
from hivemesh_platform.execution.runs.service import RunService
from hivemesh_platform.execution.runs.views import RunEvent

Wait = Annotated[float, Query(ge=0, le=20)]


class RunChange(View):
    """`GET /v1/runs/{id}/changes`: the run, and the number to ask with next."""

    version: int
    run: RunView


def router(runs: RunService, artifacts: ArtifactService, audit: AuditTrail) -> APIRouter:
    """The routes."""
    routes = strict_router()
    work = Work(runs, artifacts)

    @routes.post("/v1/runs", status_code=202)
    @before_body("run:pipeline")
    @declares(headers=(IDEMPOTENCY,), problems=(*GIVEN, "pipeline-invalid", "parameter-invalid"))
    async def start_run(body: RunRequest, request: Request) -> RunView:
        """Start a run of a pipeline."""
        demands = await work.check_run(request, body)
        key = request.headers.get(IDEMPOTENCY_HEADER, "")
        return await runs.start(body, behalf_of_request(request), demands, key)

    @routes.get("/v1/runs")
    async def list_runs(
        request: Request, filters: Filtered, after: str = "", limit: Limit = 50
    ) -> Page[RunView]:
        """List runs and jobs."""
        principal = require_some(request, "read:run", "run:pipeline", "run:capability")
        found = await runs.page(after, limit + 1, principal, filters.of())
        return page_of(found, limit, lambda run: run.id)

    @routes.get("/v1/runs/{run}")
    async def get_run(run: str, request: Request) -> RunView:
        """Show a run."""
        await work.check_seen(request, run)
        return await runs.get(run)

    @routes.get("/v1/runs/{run}/changes")
    async def follow_run(
        run: str, request: Request, after: int = 0, wait: Wait = 10.0
    ) -> RunChange:
        """Show a run, once it has changed."""
        await work.check_seen(request, run)
        version, view = await runs.changes(run, after, wait)
        return RunChange(version=version, run=view)

    @routes.get("/v1/runs/{run}/events")
    async def follow_events(
        run: str, request: Request, after: Offset = 0, limit: Limit = 200, wait: Wait = 10.0
    ) -> Page[RunEvent]:
        """List the events of a run, once there are more."""
        await work.check_seen(request, run)
        found = await runs.events(run, after, limit, wait)
        return Page(items=found, next=str(found[-1].no) if found else None)

    @routes.post("/v1/runs/{run}/cancel")
    @declares(problems=("run-ended",))
    async def cancel_run(run: str, request: Request) -> RunView:
        """Cancel a run."""
        await work.check_changed(request, run)
        return await runs.cancel(run)

    @routes.get("/v1/runs/{run}/outputs/{name}", response_class=StreamingResponse)
    @declares(answers=BYTES, problems=(*EXPORT, "output-missing", "artifact-damaged"))
    async def read_output(run: str, name: str, request: Request) -> StreamingResponse:
        """Read an output of a run."""
        await work.check_seen(request, run)
        await work.check_output(request, run, name)
        await recorded(request, audit, "export:run", f"{run}/{name}")
        output = await runs.output(run, name)
        return StreamingResponse(output.chunks, media_type=output.media_type)

    @routes.get("/v1/runs/{run}/rejected")
    async def list_rejected(
        run: str, request: Request, after: Offset = 0, limit: Limit = 200
    ) -> Page[RejectedView]:
        """List the records that a run has refused."""
        await work.check_seen(request, run)
        return offset_page(await runs.rejected(run, after, limit + 1), limit, after)

    @routes.get("/v1/runs/{run}/explain")
    async def explain_run(
        run: str, request: Request, after: Offset = 0, limit: Limit = 200
    ) -> Page[ExplainView]:
        """Explain where the attempts of a run were placed."""
        await work.check_seen(request, run)
        return offset_page(await runs.explain(run, after, limit + 1), limit, after)

    return routes
