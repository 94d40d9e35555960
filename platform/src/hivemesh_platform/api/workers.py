"""Installed workers and their instances: list, show, scale, restart, and the end of their log."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from hivemesh_sdk.contracts.api import Page, ScaleRequest, WorkerView
from hivemesh_sdk.errors import ConflictError

from hivemesh_platform.api.access import before_body, may, require, require_some
from hivemesh_platform.api.bodies import router as strict_router
from hivemesh_platform.api.declared import TEXT, declares
from hivemesh_platform.overview import Overview
from hivemesh_platform.supervisor.service import Supervisor

Lines = Annotated[int, Query(ge=1, le=10_000)]


def router(overview: Overview, supervisor: Supervisor | None) -> APIRouter:
    """The routes; without a supervisor, containers decide how many instances there are."""
    routes = strict_router()

    def processes_of(name: str) -> Supervisor:
        """Who keeps the processes of a worker.

        Raises:
            NotFoundError: there is no such worker.
            ConflictError: it has none, since it is not valid, or others keep them.
        """
        found = overview.worker(name)
        if found.state == "invalid":
            message = f"{name!r} is not valid, so it has no processes: {found.reason}"
            raise ConflictError(message, remedy="mend it; `hivemesh-worker check` in its folder")
        return _supervised(supervisor)

    @routes.get("/v1/workers")
    async def list_workers(request: Request) -> Page[WorkerView]:
        """List the installed workers and their instances."""
        principal = require_some(request, "read:worker")
        found = overview.workers()
        return Page(items=[one for one in found if may(principal, "read:worker", one.name)])

    @routes.get("/v1/workers/{name}")
    async def get_worker(name: str, request: Request) -> WorkerView:
        """Show a worker and its instances."""
        require(request, "read:worker", name)
        return overview.worker(name)

    @routes.post("/v1/workers/{name}/scale")
    @before_body("write:worker")
    @declares(problems=("conflict",))
    async def scale_worker(name: str, body: ScaleRequest, request: Request) -> WorkerView:
        """Set how many instances of a worker there are."""
        require(request, "write:worker", name)
        processes_of(name).scale(name, body.instances)
        return overview.worker(name)

    @routes.post("/v1/workers/{name}/restart")
    @declares(problems=("conflict",))
    async def restart_worker(name: str, request: Request) -> WorkerView:
        """Replace the instances of a worker, one after the other; each finishes its steps first."""
        require(request, "write:worker", name)
        processes_of(name).restart(name)
        return overview.worker(name)

    @routes.get("/v1/workers/{name}/logs")
    @declares(answers=TEXT, problems=("conflict",))
    async def read_worker_log(name: str, request: Request, lines: Lines = 200) -> Response:
        """Read the end of a worker's log."""
        require(request, "read:worker", name)
        require(request, "read:log", name)
        text = processes_of(name).log_tail(name, lines)
        return Response(text, media_type="text/plain; charset=utf-8")

    return routes


def _supervised(supervisor: Supervisor | None) -> Supervisor:
    if supervisor is None:
        message = "workers.supervise is off: the containers decide; use their own tools"
        raise ConflictError(message)
    return supervisor
