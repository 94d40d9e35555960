"""Batches of jobs: a line of what they have in common, then a line of input for each."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from hivemesh_sdk.contracts.api import BatchRequest, BatchRetry, BatchView, Page
from hivemesh_sdk.contracts.names import IDEMPOTENCY_HEADER, NDJSON_MEDIA_TYPE
from hivemesh_sdk.safeio.documents import validated
from hivemesh_sdk.safeio.json import parse_json
from pydantic import JsonValue

from hivemesh_platform.api.access import before_body, person_of, require_some
from hivemesh_platform.api.behalf import behalf_of_request
from hivemesh_platform.api.bodies import MediaTypeError, bounded
from hivemesh_platform.api.bodies import router as strict_router
from hivemesh_platform.api.declared import EXPORT, IDEMPOTENCY, SUBMIT, declares, lines
from hivemesh_platform.api.filters import Filtered
from hivemesh_platform.api.paging import Limit, page_of
from hivemesh_platform.api.recorded import recorded
from hivemesh_platform.api.work import Work
from hivemesh_platform.artifacts.service import ArtifactService
from hivemesh_platform.audit.ports import AuditTrail
from hivemesh_platform.execution.jobs.batches import JobBatches, first_job, read_inputs
from hivemesh_platform.execution.runs.service import RunService

MAX_BYTES = 64 * 1024 * 1024
RESULT: dict[str, JsonValue] = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "state": {"$ref": "#/components/schemas/RunState"},
        "attempts": {"type": "integer"},
        "result": {"description": "of a completed job: any JSON value"},
        "problem": {"$ref": "#/components/schemas/Problem"},
    },
    "required": ["id", "state", "attempts"],
}


def router(
    batches: JobBatches, runs: RunService, artifacts: ArtifactService, audit: AuditTrail
) -> APIRouter:
    """The routes."""
    routes = strict_router()
    work = Work(runs, artifacts)

    @routes.post("/v1/jobs/batch", status_code=202)
    @declares(
        reads=lines(BatchRequest, "this line, then a line of input for each job"),
        answers={200: BatchView, 202: BatchView},
        headers=(IDEMPOTENCY,),
        problems=(*SUBMIT, "media-type-unsupported"),
    )
    async def start_batch(request: Request, response: Response) -> BatchView:
        """Start a job for each input of a batch."""
        require_some(request, "run:capability")
        _check_lines(request)
        data = await bounded(request, MAX_BYTES)
        head, _, rest = data.partition(b"\n")
        body = validated(BatchRequest, parse_json(head, name="line 1"), name="line 1")
        inputs = await read_inputs(rest.removesuffix(b"\n").split(b"\n") if rest else [])
        await work.check_batch(request, body, inputs)
        key = request.headers.get(IDEMPOTENCY_HEADER, "")
        view = await batches.start(body, inputs, behalf_of_request(request), key)
        response.status_code = 202 if view.open else 200
        return view

    @routes.get("/v1/jobs/batch")
    async def list_batches(
        request: Request, filters: Filtered, after: str = "", limit: Limit = 50
    ) -> Page[BatchView]:
        """List batches of jobs."""
        principal = require_some(request, "read:run", "run:capability")
        found = await batches.page(after, limit + 1, principal, filters.of("capability"))
        return page_of(found, limit, lambda one: one.id)

    @routes.get("/v1/jobs/batch/{batch}")
    async def get_batch(batch: str, request: Request) -> BatchView:
        """Show a batch of jobs."""
        person_of(request)  # before the id is read: who is no person learns nothing of ids
        await work.check_seen(request, first_job(batch))
        return await batches.get(batch)

    @routes.get("/v1/jobs/batch/{batch}/results")
    @declares(answers=lines(RESULT, "a line for each job, in order"), problems=EXPORT)
    async def read_batch_results(
        batch: str, request: Request, after: Annotated[int, Query(ge=0, le=999_999)] = 0
    ) -> StreamingResponse:
        """Read the results of a batch, a line for each job."""
        person_of(request)
        await work.check_seen(request, first_job(batch))
        await recorded(request, audit, "export:batch", batch)
        return StreamingResponse(batches.results(batch, after), media_type=NDJSON_MEDIA_TYPE)

    @routes.post("/v1/jobs/batch/{batch}/cancel")
    @declares(problems=("run-ended",))
    async def cancel_batch(batch: str, request: Request) -> BatchView:
        """Cancel the jobs of a batch that have not ended."""
        person_of(request)
        await work.check_changed(request, first_job(batch))
        await recorded(request, audit, "cancel:batch", batch)
        return await batches.cancel(batch)

    @routes.post("/v1/jobs/batch/{batch}/retry", status_code=202)
    @before_body("write:run", "run:capability")
    @declares(problems=("nothing-to-retry",))
    async def retry_batch(batch: str, body: BatchRetry, request: Request) -> BatchView:
        """Queue jobs of a batch once more."""
        person_of(request)
        await work.check_again(request, first_job(batch))
        await recorded(request, audit, "retry:batch", batch, {"states": sorted(body.states)})
        return await batches.retry(batch, body.states, behalf_of_request(request))

    return routes


def _check_lines(request: Request) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != NDJSON_MEDIA_TYPE:
        message = f"the body is {media_type or 'of no media type'!r}; send {NDJSON_MEDIA_TYPE}"
        raise MediaTypeError(message)
