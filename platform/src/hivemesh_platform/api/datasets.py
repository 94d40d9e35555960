"""Datasets: listed, shown with provenance, and their records as NDJSON."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from hivemesh_sdk.contracts.api import DatasetView, Page
from hivemesh_sdk.contracts.names import NDJSON_MEDIA_TYPE
from hivemesh_sdk.errors import InvalidError

from hivemesh_platform.api.access import require, require_some
from hivemesh_platform.api.bodies import router as strict_router
from hivemesh_platform.api.declared import EXPORT, declares, lines
from hivemesh_platform.api.paging import LARGEST, Limit, number, page_of
from hivemesh_platform.api.recorded import recorded
from hivemesh_platform.artifacts.streams import begun
from hivemesh_platform.audit.ports import AuditTrail
from hivemesh_platform.execution.runs.views import iso
from hivemesh_platform.knowledge.model import DatasetVersion
from hivemesh_platform.knowledge.service import DatasetService

Version = Annotated[int | None, Query(ge=1, le=LARGEST)]

RECORD = {"description": "a record: any JSON value, as its step has given it"}


def router(datasets: DatasetService, audit: AuditTrail) -> APIRouter:
    """The routes."""
    routes = strict_router()

    @routes.get("/v1/datasets")
    async def list_datasets(
        request: Request, after: str = "", limit: Limit = 100
    ) -> Page[DatasetView]:
        """List the versions of datasets."""
        principal = require_some(request, "read:dataset")
        versions = await datasets.page(_place(after), limit + 1, principal)
        found = [view(one) for one in versions]
        return page_of(found, limit, lambda one: f"{one.name}~{one.version}")

    @routes.get("/v1/datasets/{name}")
    async def get_dataset(name: str, request: Request, version: Version = None) -> DatasetView:
        """Show a version of a dataset; the newest where none is named."""
        principal = require(request, "read:dataset", name)
        return view(await datasets.get(name, version, principal.tenant))

    @routes.get("/v1/datasets/{name}/records", response_class=StreamingResponse)
    @declares(
        answers=lines(RECORD, "the records in their order"), problems=(*EXPORT, "artifact-damaged")
    )
    async def read_records(
        name: str, request: Request, version: Version = None
    ) -> StreamingResponse:
        """Read the records of a dataset."""
        principal = require(request, "read:dataset", name)
        found = await datasets.get(name, version, principal.tenant)
        await recorded(request, audit, "export:dataset", f"{found.name}@{found.version}")
        chunks = await begun(datasets.records(found))
        return StreamingResponse(chunks, media_type=NDJSON_MEDIA_TYPE)

    return routes


def view(found: DatasetVersion) -> DatasetView:
    """Make the view of a version."""
    return DatasetView(
        name=found.name,
        version=found.version,
        state=found.state.value,
        records=found.records,
        bytes=found.bytes,
        created_at=iso(found.created_at) or "",
        run=found.run,
        node=found.node,
        data_class=found.data_class,
        provenance=found.provenance,
    )


def _place(after: str) -> tuple[str, int]:
    """Where a page begins: behind `name~version`."""
    if not after:
        return "", 0
    name, _, text = after.rpartition("~")
    version = number(text)
    if version is None:
        message = f"{after!r} is no place in the list; use `next` of the page before"
        raise InvalidError(message)
    return name, version
