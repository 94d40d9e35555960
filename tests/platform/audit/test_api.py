"""The routes and commands of the trail: searched, verified and exported; never changed."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from access_support import endpoints, name_users
from api_support import call, peer
from audit_support import event
from hivemesh_platform.app import Platform
from hivemesh_platform.audit import records
from hivemesh_platform.audit.export import verify_export
from hivemesh_platform.audit.segments import segments
from hivemesh_sdk.errors import RemoteError
from hivemesh_sdk.trust.identity import SpiffeId
from platform_support import ask, install, join, platform
from registry_support import manifest

pytestmark = pytest.mark.integration
COMMAND = Path(sys.executable).with_name("hivemesh")


@pytest.fixture
async def found(tmp_path: Path) -> AsyncIterator[Platform]:
    install(tmp_path, manifest())
    async with platform(tmp_path) as running:
        yield running


def hivemesh(found: Platform, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(COMMAND), *words]
    environment = {"PATH": "", "HIVEMESH_STATE__FOLDER": str(found.state_folder)}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=environment, check=False
    )


async def test_no_route_changes_or_removes_a_record(found):
    methods = {method for method, path in endpoints(found.mesh_app) if "/v1/audit" in path}
    writing = {
        path for method, path in endpoints(found.mesh_app) if method == "POST" and "audit" in path
    }
    assert methods == {"GET", "POST"}
    assert writing == {"/v1/audit/hash"}


async def test_what_was_done_is_found_at_once_newest_first(found):
    worker = manifest()
    await join(found, worker)
    await ask(found, "grant", "user", "anna", "viewer")
    records = await ask(found, "audit", {"actor": "*/user/operator"})
    assert records[0].action == "write:user"
    assert records[0].address == "127.0.0.1" or records[0].serial
    assert records[0].request_id
    enrolled = await ask(found, "audit", {"action": "enrolment:*"})
    assert [one.action for one in enrolled] == ["enrolment:enrol", "enrolment:create-token"]
    assert enrolled[0].object.endswith("/worker/echo/" + enrolled[0].object.rsplit("/", 1)[1])


async def test_a_refused_enrolment_is_a_record(found):
    with pytest.raises(RemoteError):
        await join(found, manifest(), token=await foreign_token(found))
    (record,) = await ask(found, "audit", {"decision": "deny"})
    assert (record.action, record.actor) == ("enrolment:enrol", "address:127.0.0.1")


async def foreign_token(found):
    token = await found.enrolment.create_token("echo")
    kind, identifier, _, root = token.split(".")
    return f"{kind}.{identifier}.{'x' * 43}.{root}"


async def test_a_denial_names_actor_action_and_reason(found):
    await name_users(found, {"vera": ("viewer", "default")})
    user = peer(SpiffeId.user(found.authority.trust_domain, "vera"))
    answer = await call(found.mesh_app, "GET", "/v1/audit", as_=user)
    assert answer.status == 403
    (record,) = await ask(found, "audit", {"decision": "deny"})
    assert (record.actor, record.action) == (user.uri, "read:audit")
    assert "vera" in record.reason


async def test_pages_go_on_where_the_last_one_ended(found):
    for number in range(7):
        await found.audit.record(event(number))
    everything = await ask(found, "audit")
    pages = []
    after = ""
    operator = peer(SpiffeId.user(found.authority.trust_domain, "operator"))
    while after is not None:
        path = f"/v1/audit?limit=3&after={after}"
        page = (await call(found.mesh_app, "GET", path, as_=operator)).json()
        assert len(page["items"]) <= 3
        pages += [one["seq"] for one in page["items"]]
        after = page.get("next")
    assert pages == [one.seq for one in everything]


@pytest.mark.parametrize(
    "query",
    [
        "decision=maybe",
        "since=yesterday",
        "since=2026-01-01T00:00:00",
        "after=x",
        "after=9.²",
        "limit=0",
    ],
)
async def test_a_query_that_means_nothing_is_refused(found, query):
    operator = peer(SpiffeId.user(found.authority.trust_domain, "operator"))
    answer = await call(found.mesh_app, "GET", f"/v1/audit?{query}", as_=operator)
    assert answer.status == 422


async def test_a_tenant_sees_its_own_records_and_not_the_chain(found):
    await name_users(found, {"olga": ("operator", "acme")})
    user = peer(SpiffeId.user(found.authority.trust_domain, "olga"))
    await found.audit.record(event(1))
    await found.audit.record(event(2, tenant="acme"))
    page = (await call(found.mesh_app, "GET", "/v1/audit", as_=user)).json()
    assert {one["tenant"] for one in page["items"]} == {"acme"}
    for path in ("/v1/audit/verification", "/v1/audit/export"):
        assert (await call(found.mesh_app, "GET", path, as_=user)).status == 403


async def test_an_export_is_recorded_and_verifies_alone(found, tmp_path):
    await ask(found, "grant", "user", "anna", "viewer")
    path = tmp_path / "trail.ndjson"
    answer = await asyncio.to_thread(hivemesh, found, "audit", "export", "--file", str(path))
    assert answer.returncode == 0, answer.stderr
    report = verify_export(path)
    assert report.finding is None
    assert b'"action":"export:audit"' in path.read_bytes()
    answer = await asyncio.to_thread(hivemesh, found, "audit", "verify", "--file", str(path))
    assert answer.returncode == 0, answer.stderr


async def test_the_command_names_the_first_bad_record_and_fails(found):
    await found.audit.record(event(1))
    await found.audit.record(event(2))
    answer = await asyncio.to_thread(hivemesh, found, "audit", "verify", "-o", "json")
    assert answer.returncode == 0
    assert json.loads(answer.stdout)["holds"]
    path = segments(found.state_folder / "audit")[-1].path
    data = path.read_bytes()
    bad = records.read(next(one for one in data.splitlines() if b'"object":"run_1"' in one))
    path.write_bytes(data.replace(b'"object":"run_1"', b'"object":"run_7"'))
    for where in ([], ["--folder", str(found.state_folder / "audit")]):
        answer = await asyncio.to_thread(hivemesh, found, "audit", "verify", *where)
        assert answer.returncode == 1
        assert f"record {bad.seq}: " in answer.stderr
        assert "HM-1701" in answer.stderr
    path.write_bytes(data)


async def test_a_known_value_finds_its_records(found):
    await found.audit.record(event(1, parameters={"worker": "echo", "depth": 3}))
    known = await ask(found, "audit_hash", "worker", "echo")
    (record,) = await ask(found, "audit", {"object": "run_1"})
    assert record.params_hmac["worker"] == known
    assert await ask(found, "audit_hash", "worker", "other") != known
    assert await ask(found, "audit_hash", "depth", 3) == record.params_hmac["depth"]


async def test_the_command_lists_by_duration_and_refuses_nonsense(found):
    await found.audit.record(event(1))
    answer = await asyncio.to_thread(
        hivemesh, found, "audit", "list", "--since", "1h", "-o", "json"
    )
    assert "run_1" in {one["object"] for one in json.loads(answer.stdout)}
    answer = await asyncio.to_thread(hivemesh, found, "audit", "list", "--since", "soon")
    assert answer.returncode == 2
    assert "30m, 12h, 7d" in answer.stderr
