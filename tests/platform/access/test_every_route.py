"""Every route of every listener, asked by every kind of peer and role: the published permissions."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from access_support import application, endpoints, name_users, token_of
from api_support import Answer, call, peer
from hivemesh_platform.access import policy
from hivemesh_platform.access.roles import ROLES
from hivemesh_platform.api.permissions import ROUTES, matrix
from hivemesh_platform.app import Platform
from hivemesh_sdk.trust.identity import Kind, Peer, SpiffeId
from platform_support import install, platform
from registry_support import heartbeat, manifest, registration

pytestmark = pytest.mark.integration

OWN, OTHER, REPLICA = "own", "other", "replica"
TENANTS = ("default", "acme")
DATASET_ROW = """INSERT INTO dataset (name, version, state, run, node, created_at)
                 VALUES ('name', 1, 'complete', 'run', 'node', 0)"""
RUN_ROW = """INSERT INTO run (id, pipeline, version, document, parameters, labels, submitter, state,
             created_at, tenant) VALUES (?, 'name', 1, '{}', '{}', '{}', 'x', 'queued', 0, ?)"""
LETTER_ROW = """INSERT INTO dead_letter (id, run, node, seq, kind, capability, submitter, input, spec,
                problem, cause, attempts, data_class, output_class, created_at)
                VALUES ('dl_1', ?, 'job', 0, 'call', 'echo.say@1', 'x', '[]', '{}', '{}', 'crashes',
                3, 'internal', 'internal', 0)"""
# What is not there for anybody here, so that those who may are told so.
ABSENT = {
    "POST /v1/enrolment/credentials/{credential_id}/revoke",
    "GET /v1/policy/explain",
    "GET /v1/secrets/{path}",
    "POST /v1/secrets/{path}/rotate",
    "DELETE /v1/secrets/{path}",
    "POST /v1/secrets/{path}/restore",
    "POST /v1/secrets/{path}/reveal",
    "GET /v1/runs/{run}/outputs/{name}",
    "DELETE /v1/auth/roles/{name}",
    "DELETE /v1/limits/{target}",
    "DELETE /v1/tokens/{token_id}",
    "POST /v1/denials/lift",
}
BATCH = "0123456789abcdef" * 2
BATCH_ROW = """
INSERT INTO work (run, node, seq, kind, capability, submitter, rank, state, created_at)
VALUES (?, 'job', 0, 'call', 'echo.say@1', 'x', 1, 'completed', 0)
"""
FORGED = {
    "x-forwarded-for": "127.0.0.1",
    "x-forwarded-client-cert": "URI=spiffe://test.hivemesh.internal/user/operator",
    "x-spiffe-id": "spiffe://test.hivemesh.internal/user/operator",
    "x-ssl-client-s-dn": "CN=operator",
    "authorization": "Bearer operator",
}
PIPELINE = {
    "apiVersion": "hivemesh/v1",
    "kind": "Pipeline",
    "metadata": {"name": "name", "version": 1},
    "steps": {"say": {"use": "echo.say@1", "with": {}}},
    "outputs": {"name": "say"},
}


@pytest.fixture
async def found(tmp_path: Path) -> AsyncIterator[Platform]:
    install(tmp_path, manifest())
    async with platform(tmp_path) as running:
        yield running


def peers(found: Platform) -> dict[str, Peer]:
    domain = found.authority.trust_domain
    return {
        OWN: peer(SpiffeId.worker(domain, "echo", "i1")),
        OTHER: peer(SpiffeId.worker(domain, "echo", "i2")),
        REPLICA: peer(SpiffeId.platform(domain, "p2")),
    }


def user(found: Platform, name: str) -> Peer:
    return peer(SpiffeId.user(found.authority.trust_domain, name))


async def furnish(found: Platform) -> dict[str, str]:
    """Make one object of each kind; returns what stands for each part of an address."""
    operator = user(found, "operator")

    async def ask(method: str, path: str, body: object) -> dict[str, str]:
        answer = await call(found.mesh_app, method, path, as_=operator, body=body)
        assert answer.status < 300, answer.body
        return answer.json()

    await ask("POST", "/v1/pipelines", PIPELINE)
    run = await ask("POST", "/v1/runs", {"pipeline": "name"})
    job = await ask("POST", "/v1/jobs", {"capability": "echo.say@1"})
    artifact = await ask("POST", "/v1/artifacts", b"bytes")
    await found.people.access.database.write(lambda tx: tx.execute(DATASET_ROW))
    await found.people.access.database.write(
        lambda tx: tx.execute(BATCH_ROW, (f"job_{BATCH}-000001",))
    )
    await found.people.access.database.write(lambda tx: tx.execute(LETTER_ROW, (job["id"],)))
    return {"run": run["id"], "job": job["id"], "sha256": artifact["sha256"], "letter": "dl_1"}


def filled(path: str, known: dict[str, str] | None = None) -> str:
    """The path with objects that exist, as far as there are any."""
    first, _, rest = path.removeprefix("/v1/").partition("/")
    names = {
        "step": "say",
        "batch": f"batch_{BATCH}",
        "target": "all",
        "instance_id": "i1",
        "sha256": "0" * 64,
        "version": "1",
        **(known or {}),
    }
    if first in {"capabilities", "workers"}:
        names["name"] = {"capabilities": "echo.say@1", "workers": "echo"}[first]
    if rest.startswith("roles/"):
        names["name"] = "viewer"
    if rest.startswith("users/"):
        names["name"] = "somebody"
    address = re.sub(r"\{(\w+)\}", lambda part: names.get(part[1], part[1]), path)
    query = "?wait=0&capability=echo.say%401&caller=a&callee=b&action=read%3Arun&instance=i1"
    return address + query


def slug(answer: Answer) -> str:
    if answer.status < 400:
        return ""
    return str(answer.json()["type"]).rpartition(":")[2]


def agrees(route: str, answer: Answer, *, allowed: bool) -> bool:
    hidden = slug(answer) in {"not-found", "artifact-missing"}
    if answer.status == 500:
        return False
    if allowed:
        return answer.status not in {401, 403} and (not hidden or route in ABSENT)
    return answer.status == 403 or hidden


async def test_the_published_permissions_name_every_route_and_no_other(found: Platform) -> None:
    listed = {f"{method} {path}" for method, path in endpoints(found.mesh_app)}
    assert set(ROUTES) == listed


async def test_both_listeners_serve_the_same_routes(found: Platform) -> None:
    assert application(found.mesh_app) is application(found.people_app)


@pytest.mark.parametrize("role", ROLES)
async def test_each_role_reaches_what_is_published(found: Platform, role: str) -> None:
    known = await furnish(found)
    name = f"some-{role}"
    await name_users(found, {name: (role, "default"), "somebody": ("viewer", "default")})
    secret = await token_of(found, name)
    for route, allowed in matrix().items():
        if ROUTES[route].processes:
            continue
        method, _, path = route.partition(" ")
        address, body = filled(path, known), {} if method in {"POST", "PUT"} else b""
        by_certificate = await call(
            found.mesh_app, method, address, as_=user(found, name), body=body, headers=FORGED
        )
        headers = {"host": "localhost", "authorization": f"Bearer {secret}"}
        by_token = await call(
            found.people_app, method, address, as_=None, body=body, headers=headers
        )
        right = agrees(route, by_certificate, allowed=allowed[role])
        assert right, (route, by_certificate.body)
        if route != "POST /v1/tokens":  # a token makes none
            right = agrees(route, by_token, allowed=allowed[role])
            assert right, (route, by_token.body)


@pytest.mark.parametrize("role", ROLES)
async def test_another_tenant_meets_nothing_of_this_one(found: Platform, role: str) -> None:
    known = await furnish(found)
    name = f"some-{role}"
    await name_users(found, {name: (role, "acme"), "somebody": ("viewer", "default")})
    here = user(found, name)
    for route in ROUTES:
        method, _, path = route.partition(" ")
        parts = set(re.findall(r"\{(\w+)\}", path)) & {"run", "job", "batch", "sha256", "letter"}
        named = path.startswith(("/v1/datasets/{", "/v1/auth/users/{"))
        if not parts and not named:
            continue
        if ROUTES[route].processes:
            continue
        body = {} if method in {"POST", "PUT"} else b""
        there = await call(found.mesh_app, method, filled(path, known), as_=here, body=body)
        nowhere = await call(
            found.mesh_app,
            method,
            filled(
                path,
                {
                    "run": "run_0",
                    "job": "job_0",
                    "sha256": "f" * 64,
                    "letter": "dl_0",
                    "batch": f"batch_{'0' * 32}",
                },
            ).replace("/name", "/nothing"),
            as_=here,
            body=body,
        )
        assert there.status in {403, 404}, (route, there.body)
        assert slug(there) == slug(nowhere), (route, there.body, nowhere.body)
    for path in ("/v1/runs", "/v1/dead-letters", "/v1/datasets", "/v1/auth/users", "/v1/tokens"):
        answer = await call(found.mesh_app, "GET", path, as_=here)
        assert answer.status == 403 or all(
            item["name"] == name for item in answer.json()["items"]
        ), (path, answer.body)


async def test_the_installation_is_not_the_tenants(found: Platform) -> None:
    await name_users(found, {"boss": ("admin", "acme")})
    for path in ("/v1/config", "/metrics", "/v1/ca", "/v1/policy/versions", "/v1/denials"):
        answer = await call(found.mesh_app, "GET", path, as_=user(found, "boss"))
        assert answer.status == 403, path
    scale = await call(
        found.mesh_app,
        "POST",
        "/v1/workers/echo/scale",
        as_=user(found, "boss"),
        body={"instances": 3},
    )
    assert scale.status == 403


async def test_the_status_shows_another_tenant_its_own_runs_and_nothing_of_the_machine(
    found: Platform,
) -> None:
    await furnish(found)
    await found.people.access.database.write(lambda tx: tx.execute(RUN_ROW, ("run_9", "acme")))
    await name_users(found, {"boss": ("admin", "acme"), "carl": ("viewer", "other")})
    for name, active in (("boss", 1), ("carl", 0)):
        shown = (await call(found.mesh_app, "GET", "/v1/status", as_=user(found, name))).json()
        assert (shown["runs_active"], shown["state_folder"], shown["pid"]) == (active, "", 0)
        assert shown["ready"] is True
    own = (await call(found.mesh_app, "GET", "/v1/status", as_=user(found, "operator"))).json()
    assert own["pid"] > 0


async def test_who_has_no_role_reaches_nothing(found: Platform) -> None:
    known = await furnish(found)
    for route in ROUTES:
        method, _, path = route.partition(" ")
        if ROUTES[route].everybody or ROUTES[route].processes:
            continue
        body = {} if method in {"POST", "PUT"} else b""
        answer = await call(
            found.mesh_app, method, filled(path, known), as_=user(found, "nobody"), body=body
        )
        assert answer.status in {403, 404}, (route, answer.body)


async def test_without_an_identity_no_route_of_the_mesh_answers(found: Platform) -> None:
    for method, path in endpoints(found.mesh_app):
        answer = await call(found.mesh_app, method, filled(path), as_=None, body={}, headers=FORGED)
        assert answer.status == 401, (method, path)


async def test_without_a_token_no_route_of_the_people_listener_answers(found: Platform) -> None:
    for method, path in endpoints(found.people_app):
        for headers in ({}, {"authorization": "Bearer hm1.x.y"}, {"x-api-key": "hm1.x.y"}):
            sent = {"host": "localhost", **headers}
            answer = await call(
                found.people_app, method, filled(path), as_=None, body={}, headers=sent
            )
            assert answer.status in {401, 429}, (method, path)
            assert answer.status == 429 or answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("who", [OWN, OTHER, REPLICA])
async def test_processes_reach_what_is_theirs(found: Platform, who: str) -> None:
    here = peers(found)[who]
    for route, needs in ROUTES.items():
        method, _, path = route.partition(" ")
        if "{instance_id}" in path and who != REPLICA:
            continue  # told apart by the service, see below
        address, body = filled(path), {} if method in {"POST", "PUT"} else b""
        if "{sha256}" in path:
            address = address.replace("?", "?step=run_1.a.0&attempt=1&")
        answer = await call(found.mesh_app, method, address, as_=here, body=body, headers=FORGED)
        theirs = needs.processes in policy.RULES[here.id.kind] or needs.everybody
        theirs = theirs or (needs.workers and here.id.kind is Kind.WORKER)
        if path == "/v1/auth/can":
            theirs = False
        if who == REPLICA and path in {"/v1/status", "/v1/queue", "/metrics"}:
            theirs = True
        if path == "/v1/renew" and theirs:
            continue  # these never enrolled here; what is asked for is refused by its name
        stopped = slug(answer) in {"not-authorized", "no-peer-identity"}
        assert stopped is not theirs, (route, answer.body)


async def test_on_the_people_listener_there_are_no_routes_for_processes(found: Platform) -> None:
    secret = await token_of(found, "operator")
    headers = {"host": "localhost", "authorization": f"Bearer {secret}"}
    for route, needs in ROUTES.items():
        if needs.processes:
            method, _, path = route.partition(" ")
            address = filled(path).replace("?", "?step=run_1.a.0&attempt=1&")
            answer = await call(
                found.people_app, method, address, as_=None, body={}, headers=headers
            )
            assert answer.status == 404, (route, answer.body)


@pytest.mark.parametrize("data", [b"{", b"[1, 1]", b'{"a": 1, "a": 2}', b"x" * 2_000_000])
async def test_nothing_is_read_from_who_may_not_send_it(found: Platform, data: bytes) -> None:
    for route, needs in ROUTES.items():
        method, _, path = route.partition(" ")
        if method == "POST" and not needs.processes and not needs.everybody:
            answer = await call(
                found.mesh_app, method, filled(path), as_=peers(found)[OWN], body=data
            )
            assert answer.status == 403, (route, answer.body)


async def test_the_enrolment_listener_has_one_route(found: Platform) -> None:
    assert endpoints(found.enrolment_app) == [("POST", "/v1/enrol")]
    for path in ("/openapi.json", "/docs", "/redoc", "/v1/status", "/metrics"):
        assert (await call(found.enrolment_app, "GET", path, as_=None)).status == 404


async def test_no_interface_describes_itself_to_strangers(found: Platform) -> None:
    for who in (None, *peers(found).values(), user(found, "operator")):
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
            answer = await call(found.mesh_app, method, path, as_=peers(found)[who], body=body)
            assert answer.status in expected, (who, method, answer.body)
