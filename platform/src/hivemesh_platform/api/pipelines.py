"""Pipelines: listed, checked, stored."""

from typing import Annotated

from fastapi import APIRouter, Body, Request
from hivemesh_sdk.contracts.api import Page, PipelineView
from hivemesh_sdk.contracts.pipeline import Pipeline
from pydantic import JsonValue

from hivemesh_platform.api.access import before_body, may, principal_of, require, require_some
from hivemesh_platform.api.behalf import behalf_of_request
from hivemesh_platform.api.bodies import router as strict_router
from hivemesh_platform.api.declared import declares
from hivemesh_platform.api.work import Work
from hivemesh_platform.artifacts.service import ArtifactService
from hivemesh_platform.execution.runs.pipelines import STORED, KnownPipeline, PipelineService
from hivemesh_platform.execution.runs.service import RunService

Document = Annotated[dict[str, JsonValue], Body()]


def router(pipelines: PipelineService, runs: RunService, artifacts: ArtifactService) -> APIRouter:
    """The routes."""
    routes = strict_router()
    work = Work(runs, artifacts)

    @routes.get("/v1/pipelines")
    async def list_pipelines(request: Request) -> Page[PipelineView]:
        """List pipelines, each in its newest version, and files that are not valid."""
        principal = require_some(request, "read:pipeline")
        found = [one.view() for one in await pipelines.newest(principal.tenant)]
        found += [one.view() for one in pipelines.broken()]
        return Page(items=[one for one in found if may(principal, "read:pipeline", one.name)])

    @routes.get("/v1/pipelines/{name}")
    async def get_pipeline(name: str, request: Request) -> PipelineView:
        """Show a pipeline."""
        principal = require(request, "read:pipeline", name)
        return (await pipelines.get(name, principal.tenant)).view()

    @routes.post("/v1/pipelines", status_code=201)
    @before_body("create:pipeline")
    @declares(reads=Pipeline, problems=("pipeline-invalid", "artifact-missing"))
    async def store_pipeline(document: Document, request: Request) -> PipelineView:
        """Store a pipeline."""
        plan = await pipelines.check(document, principal_of(request).tenant)
        name = plan.pipeline.metadata.name
        known = await pipelines.newest(principal_of(request).tenant)
        is_new = all(one.document.metadata.name != name for one in known)
        require(request, "create:pipeline" if is_new else "write:pipeline", name)
        await work.check_pipeline(request, plan)
        return (await pipelines.store(document, behalf_of_request(request))).view()

    @routes.post("/v1/pipelines/validate")
    @before_body("read:pipeline", "create:pipeline")
    @declares(reads=Pipeline, problems=("pipeline-invalid",))
    async def validate_pipeline(document: Document, request: Request) -> PipelineView:
        """Check a pipeline without storing it."""
        plan = await pipelines.checked(document, behalf_of_request(request))
        return KnownPipeline(plan.pipeline, STORED).view()

    return routes
