"""Pipelines: listed, checked, stored."""

from typing import Annotated

from fastapi import APIRouter, Body, Request
from hivemesh_sdk.contracts.api import Page, PipelineView
from pydantic import JsonValue

from hivemesh_platform.api.access import before_body, require
from hivemesh_platform.api.behalf import behalf_of_request
from hivemesh_platform.api.bodies import router as strict_router
from hivemesh_platform.execution.pipelines import STORED, KnownPipeline, PipelineService

Document = Annotated[dict[str, JsonValue], Body()]


def router(pipelines: PipelineService) -> APIRouter:
    """The routes."""
    routes = strict_router()

    @routes.get("/v1/pipelines")
    async def list_pipelines(request: Request) -> Page[PipelineView]:
        require(request, "pipelines:read")
        return Page(items=[one.view() for one in await pipelines.newest()])

    @routes.get("/v1/pipelines/{name}")
    async def get_pipeline(name: str, request: Request) -> PipelineView:
        require(request, "pipelines:read")
        return (await pipelines.get(name)).view()

    @routes.post("/v1/pipelines", status_code=201)
    @before_body("pipelines:write")
    async def store_pipeline(document: Document, request: Request) -> PipelineView:
        return (await pipelines.store(document, behalf_of_request(request))).view()

    @routes.post("/v1/pipelines/validate")
    @before_body("pipelines:read")
    async def validate_pipeline(document: Document) -> PipelineView:
        return KnownPipeline(pipelines.check(document).pipeline, STORED).view()

    return routes
