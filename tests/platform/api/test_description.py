"""The published description is that of the routes, and says of each what it reads and answers."""

import asyncio
import inspect
import json
import re

import described
import pytest
from access_support import application, endpoints, flat
from api_support import call
from fastapi import FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.routing import APIRoute
from hivemesh_platform.api import errors
from hivemesh_platform.api.description import describe
from hivemesh_platform.api.permissions import ROUTES
from hivemesh_sdk.contracts.generate import text
from hivemesh_sdk.errors import HivemeshError, NotFoundError
from platform_support import platform

READS_BY_HAND = re.compile(r"\bdecoded\w*\(|\bbounded\(|\.stream\(\)|\.body\(\)")
HEALTH = "/v1/health"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A platform that has ended; its routes are there."""

    async def opened():
        async with platform(tmp_path_factory.mktemp("described")) as found:
            return found

    return asyncio.run(opened())


def operations():
    return {
        f"{method.upper()} {path}": operation
        for path, found in described.document()["paths"].items()
        for method, operation in found.items()
        if method != "servers"
    }


def contents(operation):
    answers = [one for one in operation["responses"].values() if "$ref" not in one]
    for body in (operation.get("requestBody", {}), *answers):
        yield from body.get("content", {}).values()


@pytest.mark.integration
def test_the_committed_description_is_current(served):
    assert described.PAGE.read_text() == text(describe(*served.served)), "run: make docs"


@pytest.mark.integration
def test_every_route_is_described_and_no_other(served):
    found = endpoints(served.mesh_app) + endpoints(served.enrolment_app)
    assert set(operations()) == {f"{method} {path}" for method, path in found}


@pytest.mark.integration
def test_every_body_that_a_route_reads_is_described(served):
    routes = [*flat(application(served.mesh_app).routes), *application(served.enrolment_app).routes]
    for route in (one for one in flat(routes) if isinstance(one, APIRoute)):
        reads = route.body_field or READS_BY_HAND.search(inspect.getsource(route.endpoint))
        for method in route.methods:
            operation = operations()[f"{method} {route.path}"]
            assert bool(reads) == ("requestBody" in operation), (method, route.path)


def test_every_body_has_a_schema():
    for name, operation in operations().items():
        assert all(one["schema"] for one in contents(operation)), name
        done = [status for status in operation["responses"] if status.startswith("2")]
        assert done, name
        for status in set(done) - {"204"}:
            assert operation["responses"][status]["content"], name
    assert all(described.document()["components"]["schemas"].values())


def test_every_operation_says_its_name_who_may_and_what_is_refused():
    found = operations()
    assert len({one["operationId"] for one in found.values()}) == len(found)
    for name, operation in found.items():
        assert operation["summary"], name
        assert {"500", "default"} <= set(operation["responses"]), name
        assert bool(operation["security"]) == (name in ROUTES), name
        for action in ROUTES[name].alternatives if name in ROUTES else ():
            assert {"token": list(action)} in operation["security"] or ROUTES[name].everybody, name


def test_every_reference_resolves():
    for reference in set(re.findall(r'"\$ref": "#/([^"]+)"', described.PAGE.read_text())):
        found = described.document()
        for part in reference.split("/"):
            found = found[part]
        assert isinstance(found, dict), reference


async def _noted(answer):
    """What is noted of an answer at an address that is described."""
    app = FastAPI(openapi_url=None)
    app.add_middleware(described.Held)
    errors.install(app)

    @app.get(HEALTH)
    async def health() -> Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    await call(app, "GET", HEALTH)
    noted, described.broken[:] = list(described.broken), []
    return noted


async def test_an_answer_as_it_is_described_holds():
    assert await _noted(JSONResponse({"ready": True})) == []
    assert await _noted(HivemeshError("it is away", slug="database-unreachable")) == []


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (JSONResponse({"ready": "yes"}), "/ready"),
        (JSONResponse({}), "required"),
        (JSONResponse({"ready": True, "more": 1}), "more"),
        (JSONResponse({"ready": True}, status_code=201), "status 201 is not described"),
        (PlainTextResponse("ready"), "'text/plain'"),
        (JSONResponse({"detail": "no"}, status_code=404), "a refusal is 'application/json'"),
        (NotFoundError("there is none"), "not-found (404) is not listed"),
    ],
)
async def test_an_answer_that_is_described_otherwise_is_noted(answer, what):
    [noted] = await _noted(answer)
    assert noted.startswith(f"GET {HEALTH}: ")
    assert what in noted


async def test_a_refusal_with_a_status_of_its_own_is_noted():
    document = {
        "type": "urn:hivemesh:problem:not-found",
        "title": "",
        "status": 403,
        "code": "HM-1",
    }
    body = json.dumps(document)
    answer = Response(body, status_code=403, media_type="application/problem+json")
    [noted] = await _noted(answer)
    assert "status 403 with urn:hivemesh:problem:not-found" in noted
