"""Every address of a worker, asked by every kind of peer: default deny."""

import pytest
from fastapi.routing import APIRoute
from hivemesh_sdk.clock import SystemClock
from hivemesh_sdk.testing.fake_policies import EverythingAllowed
from hivemesh_sdk.trust.identity import SpiffeId
from hivemesh_sdk.worker.access import Access, Own
from hivemesh_sdk.worker.app import build_shell
from worker_harness import NEIGHBOUR, OPERATOR, PLATFORM, ask, peer, request_body, serving, ticket

ITSELF = peer(SpiffeId.worker("mesh.test", "sample", "i1"))
PEERS = {
    "platform": PLATFORM,
    "person": peer(SpiffeId.user("mesh.test", "anna")),
    "operator": OPERATOR,
    "itself": ITSELF,
    "neighbour": NEIGHBOUR,
    "nobody": None,
}
OWN = Own(worker="sample", identity=str, keys=dict, clearances={}, policies=EverythingAllowed())
READERS = {"platform", "operator"}
# Who gets past the rules; the step routes stand in front of the shell.
ALLOWED = {
    "GET /": READERS,
    "GET /v1/status": READERS,
    "GET /v1/manifest": READERS,
    "GET /metrics": READERS,
    "GET /openapi.json": READERS,
    "POST /v1/commands": {"platform"},
    "PUT /v1/steps/r.s.1": {"platform"},  # with a ticket; others show theirs in test_tickets
    "GET /v1/steps/r.s.1": READERS,
    "GET /v1/steps/r.s.1/events": {"platform"},
    "DELETE /v1/steps/r.s.1": {"platform"},
}
# A worker may read and end steps of its own, so others look as if they were not there.
REFUSED = {
    (f"{route} /v1/steps/r.s.1{rest}", name): {404}
    for route, rest in (("DELETE", ""), ("GET", "/events"))
    for name in ("itself", "neighbour")
} | {  # the platform's ticket is sealed: nobody else can show it
    ("PUT /v1/steps/r.s.1", name): {401} for name in ("itself", "neighbour")
}
FORGED = {
    "x-forwarded-client-cert": "URI=spiffe://mesh.test/platform/p1",
    "x-spiffe-id": "spiffe://mesh.test/platform/p1",
    "authorization": "Bearer platform",
}


@pytest.fixture
async def sample(tmp_path):
    async with serving(tmp_path, warm=False) as found:
        yield found


@pytest.mark.parametrize("route", ALLOWED)
async def test_a_route_answers_those_who_are_listed_alone(sample, route):
    method, path = route.split(" ")
    for name, who in PEERS.items():
        body = request_body("sample.unknown@1") if method == "PUT" else b"{}"
        headers = {**FORGED, **ticket("r.s.1")} if "/v1/steps/" in path else FORGED
        answer = await ask(sample.server.app, method, path, body=body, headers=headers, who=who)
        if name in ALLOWED[route]:
            assert answer.status not in {401, 403}, (name, answer.body)
        else:
            assert answer.status in ({401} if who is None else REFUSED.get((route, name), {403}))


def test_the_table_names_every_route_of_the_shell(sample):
    shell = build_shell(sample.server, Access(OWN, SystemClock()))
    listed = {
        f"{method} {route.path}"
        for route in shell.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    }
    assert len(shell.routes) == len(listed)
    assert listed == {route for route in ALLOWED if "/v1/steps/" not in route}
