"""Jobs: one capability call each; shown and cancelled like runs."""

from fastapi import APIRouter, Request, Response
from hivemesh_sdk.contracts.api import JobRequest, RunView
from hivemesh_sdk.contracts.names import IDEMPOTENCY_HEADER

from hivemesh_platform.api.access import before_body
from hivemesh_platform.api.behalf import behalf_of_request
from hivemesh_platform.api.bodies import router as strict_router
from hivemesh_platform.api.declared import IDEMPOTENCY, SUBMIT, declares
from hivemesh_platform.api.work import Work
from hivemesh_platform.artifacts.service import ArtifactService
from hivemesh_platform.execution.jobs.service import JobService
from hivemesh_platform.execution.runs.service import RunService

JSON = "application/json"


def router(jobs: JobService, runs: RunService, artifacts: ArtifactService) -> APIRouter:
    """The routes."""
    routes = strict_router()
    work = Work(runs, artifacts)

    @routes.post("/v1/jobs", status_code=202)
    @before_body("run:capability")
    @declares(answers={200: RunView, 202: RunView}, headers=(IDEMPOTENCY,), problems=SUBMIT)
    async def start_job(body: JobRequest, request: Request, response: Response) -> RunView:
        """Start a job: one call of a capability."""
        await work.check_job(request, body)
        key = request.headers.get(IDEMPOTENCY_HEADER, "")
        view, is_new = await jobs.start_once(body, behalf_of_request(request), key)
        response.status_code = 202 if is_new and not view.state.ended else 200
        return view

    @routes.get("/v1/jobs/{job}", response_model=RunView)
    async def get_job(job: str, request: Request) -> RunView | Response:
        """Show a job."""
        await work.check_seen(request, job)
        found = await runs.document(job)
        return Response(found, media_type=JSON) if isinstance(found, bytes) else found

    @routes.post("/v1/jobs/{job}/cancel")
    @declares(problems=("run-ended",))
    async def cancel_job(job: str, request: Request) -> RunView:
        """Cancel a job."""
        await work.check_changed(request, job)
        return await runs.cancel(job)

    return routes
