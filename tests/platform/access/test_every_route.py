"""Every route of both listeners of the platform, asked by every kind of peer: default deny."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from api_support import TRUST_DOMAIN, call, peer
from fastapi import FastAPI
from fastapi.routing import APIRoute
from hivemesh_platform.app import Platform
from hivemesh_sdk.trust.identity import Peer, SpiffeId
from platform_support import install, platform
from registry_support import heartbeat, manifest, registration
from starlette.routing import BaseRoute

pytestmark = pytest.mark.integration

OWN, OTHER, OPERATOR, REPLICA = "own", "other", "operator", "replica"
PEERS: dict[str, Peer] = {
    OWN: peer(SpiffeId.worker(TRUST_DOMAIN, "echo", "i1")),
    OTHER: peer(SpiffeId.worker(TRUST_DOMAIN, "echo", "i2")),
    OPERATOR: peer(SpiffeId.user(TRUST_DOMAIN, "operator")),
    REPLICA: peer(SpiffeId.platform(TRUST_DOMAIN, "p2")),
}
EVERYBODY = set(PEERS)
WORKERS = {OWN, OTHER}
# Who gets past the rules; all that is not listed here is the operator's alone.
ALLOWED: dict[str, set[str]] = {
    "PUT /v1/instances/{instance_id}": {OWN},
    "POST /v1/instances/{instance_id}/heartbeat": {OWN},
    "DELETE /v1/instances/{instance_id}": {OWN},
    "POST /v1/artifacts/grants": WORKERS,
    "PUT /v1/artifacts/{sha256}": WORKERS,
    "GET /v1/artifacts/{sha256}": WORKERS | {OPERATOR},
    "GET /v1/discovery": EVERYBODY,
    "GET /v1/bundle": EVERYBODY,
    "GET /v1/health": EVERYBODY,
    "POST /v1/renew": WORKERS | {OPERATOR},
    "GET /v1/status": {OPERATOR, REPLICA},
    "GET /metrics": {OPERATOR, REPLICA},
}
FORGED = {
    "x-forwarded-for": "127.0.0.1",
    "x-forwarded-client-cert": "URI=spiffe://test.hivemesh.internal/user/operator",
    "x-spiffe-id": "spiffe://test.hivemesh.internal/user/operator",
    "x-ssl-client-s-dn": "CN=operator",
    "authorization": "Bearer operator",
}


@pytest.fixture
async def found(tmp_path: Path) -> AsyncIterator[Platform]:
    install(tmp_path, manifest())
    async with platform(tmp_path) as running:
        yield running


def endpoints(app: object) -> list[tuple[str, str]]:
    """Every address that the application answers at, whoever has added it."""
    application = getattr(app, "_app", app)
    assert isinstance(application, FastAPI)
    return [
        (method, path)
        for route in flat(application.routes)
        for path in [str(getattr(route, "path", ""))]
        for method in sorted(getattr(route, "methods", None) or {"GET"})
        if method != "HEAD"
    ]


def flat(routes: list[BaseRoute]) -> list[BaseRoute]:
    """Routers that were included may show as one entry with routes of its own."""
    found: list[BaseRoute] = []
    for one in routes:
        below = getattr(getattr(one, "original_router", one), "routes", None)
        found += flat(below) if below and not isinstance(one, APIRoute) else [one]
    return found


def filled(path: str) -> str:
    known = path.replace("{instance_id}", "i1").replace("{sha256}", "0" * 64)
    return re.sub(r"\{(\w+)\}", r"\1", known)


def allowed(method: str, path: str) -> set[str]:
    return ALLOWED.get(f"{method} {path}", {OPERATOR})


async def test_without_an_identity_no_route_of_the_mesh_answers(found: Platform) -> None:
    for method, path in endpoints(found.mesh_app):
        answer = await call(found.mesh_app, method, filled(path), as_=None, body={}, headers=FORGED)
        assert answer.status == 401, (method, path)


@pytest.mark.parametrize("who", PEERS)
async def test_who_is_not_listed_is_denied(found: Platform, who: str) -> None:
    listed = endpoints(found.mesh_app)
    assert len(listed) > 30
    for method, path in listed:
        if who in allowed(method, path) or (who == OTHER and "{instance_id}" in path):
            continue  # the last ones are told apart by the service, see below
        query = "?step=run_1.a.0&attempt=1" if "{sha256}" in path else ""
        answer = await call(
            found.mesh_app, method, filled(path) + query, as_=PEERS[who], body={}, headers=FORGED
        )
        assert answer.status == 403, (method, path, answer.body)
        assert answer.json()["type"].endswith(":not-authorized")


@pytest.mark.parametrize("data", [b"{", b"[1, 1]", b'{"a": 1, "a": 2}', b"x" * 2_000_000])
async def test_nothing_is_read_from_who_may_not_send_it(found: Platform, data: bytes) -> None:
    for method, path in endpoints(found.mesh_app):
        if method == "POST" and not allowed(method, path) & WORKERS:
            address = filled(path)
            answer = await call(found.mesh_app, method, address, as_=PEERS[OWN], body=data)
            if "instance" not in path:
                assert answer.status == 403, (method, path, answer.body)


@pytest.mark.parametrize("who", PEERS)
async def test_who_is_listed_gets_past_the_rules(found: Platform, who: str) -> None:
    for method, path in endpoints(found.mesh_app):
        if who in allowed(method, path):
            answer = await call(found.mesh_app, method, filled(path), as_=PEERS[who], body={})
            # Renewal: this identity never enrolled here; what is asked for is refused by its name.
            if path != "/v1/renew":
                assert answer.status not in {401, 403}, (method, path, answer.body)


async def test_the_rules_of_this_page_name_routes_that_exist(found: Platform) -> None:
    assert set(ALLOWED) <= {f"{method} {path}" for method, path in endpoints(found.mesh_app)}


async def test_the_enrolment_listener_has_one_route(found: Platform) -> None:
    assert endpoints(found.enrolment_app) == [("POST", "/v1/enrol")]
    for path in ("/openapi.json", "/docs", "/redoc", "/v1/status", "/metrics"):
        assert (await call(found.enrolment_app, "GET", path, as_=None)).status == 404


async def test_no_interface_describes_itself_to_strangers(found: Platform) -> None:
    for who in (None, *PEERS.values()):
        assert (await call(found.mesh_app, "GET", "/openapi.json", as_=who)).status == 404


async def test_no_other_instance_speaks_for_one(found: Platform) -> None:
    own = "/v1/instances/i1"
    bodies = {
        ("PUT", own): registration(manifest()),
        ("POST", f"{own}/heartbeat"): heartbeat(),
        ("DELETE", own): {},
    }
    for who, expected in ((OTHER, {403}), (OWN, {200, 204}), (OTHER, {403})):
        for (method, path), body in bodies.items():
            if (who, method) == (OWN, "DELETE"):
                continue  # it stays, so that the other one meets a registered instance as well
            answer = await call(found.mesh_app, method, path, as_=PEERS[who], body=body)
            assert answer.status in expected, (who, method, answer.body)
