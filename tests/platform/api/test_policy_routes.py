"""The policy over HTTP: members fetch the signed one, people change it by version."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from api_support import OPERATOR, REPLICA, WORKER, call
from hivemesh_platform.app import Platform
from hivemesh_sdk.trust.policy import open_policy
from platform_support import install, platform
from registry_support import manifest

pytestmark = pytest.mark.integration

ECHO_ONLY = "version: 1\nrules:\n  - {id: a, from: {platform: '*'}, to: {worker: echo}}\n"


@pytest.fixture
async def found(tmp_path: Path) -> AsyncIterator[Platform]:
    install(tmp_path, manifest())
    async with platform(tmp_path) as running:
        yield running


async def apply(found: Platform, text: str = ECHO_ONLY, match: str = '"1"', as_=OPERATOR):
    headers = {"if-match": match} if match else {}
    body = {"document": text, "name": "new.yaml"}
    return await call(found.mesh_app, "POST", "/v1/policy", as_=as_, body=body, headers=headers)


def opened(found: Platform, token: bytes):
    keys = found.source.bundle().verify_keys
    return open_policy(token.decode(), keys, found.authority.trust_domain)


@pytest.mark.parametrize("who", [WORKER, REPLICA])
async def test_every_process_gets_the_signed_policy(found: Platform, who) -> None:
    answer = await call(found.mesh_app, "GET", "/v1/policy?after=0&wait=0", as_=who)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/jose")
    policy = opened(found, answer.body)
    again = f"/v1/policy?after={policy.issued_at}&wait=0"
    assert (await call(found.mesh_app, "GET", again, as_=who)).status == 204


async def test_a_persons_certificate_alone_reads_no_policy(found: Platform) -> None:
    assert (await call(found.mesh_app, "GET", "/v1/policy", as_=OPERATOR)).status == 403


async def test_a_waiting_worker_gets_the_next_version_at_once(found: Platform) -> None:
    first = await call(found.mesh_app, "GET", "/v1/policy", as_=WORKER)
    known = opened(found, first.body).issued_at
    path = f"/v1/policy?after={known}&wait=20"
    waiting = asyncio.create_task(call(found.mesh_app, "GET", path, as_=WORKER))
    await asyncio.sleep(0)
    assert (await apply(found)).status == 201
    answer = await asyncio.wait_for(waiting, 30)
    assert opened(found, answer.body).version == 2


async def test_a_version_is_applied_and_told(found: Platform) -> None:
    answer = await apply(found)
    assert (answer.status, answer.headers["etag"]) == (201, '"2"')
    assert answer.json()["author"].endswith("/user/operator")
    shown = await call(found.mesh_app, "GET", "/v1/policy/versions/current")
    assert (shown.json()["document"], shown.headers["etag"]) == (ECHO_ONLY, '"2"')
    listed = await call(found.mesh_app, "GET", "/v1/policy/versions")
    assert [one["version"] for one in listed.json()["items"]] == [2, 1]


async def test_a_change_names_the_version_that_it_changes(found: Platform) -> None:
    assert (await apply(found, match="")).status == 428
    assert (await apply(found, match="*")).status == 428
    assert (await apply(found, match='"7"')).status == 412
    assert (await apply(found)).status == 201
    assert (await apply(found)).status == 412


async def test_only_who_may_write_the_policy_changes_it(found: Platform) -> None:
    for who in (WORKER, REPLICA):
        assert (await apply(found, as_=who)).status == 403
        answer = await call(found.mesh_app, "GET", "/v1/policy/versions/current", as_=who)
        assert answer.status == 403


async def test_a_mistake_is_told_with_its_line(found: Platform) -> None:
    answer = await apply(found, "version: 1\nrules:\n  - {id: a, form: {worker: x}}\n")
    assert answer.status == 422
    problem = answer.json()
    assert problem["code"] == "HM-1720"
    assert "did you mean 'from'? (line 3)" in problem["detail"]


async def test_a_review_changes_nothing(found: Platform) -> None:
    answer = await call(
        found.mesh_app, "POST", "/v1/policy/test", body={"document": ECHO_ONLY, "name": "x"}
    )
    assert (answer.status, answer.json()["added"]) == (200, ["a"])
    assert found.policy.current().version == 1


@pytest.mark.parametrize(("version", "status"), [("1", 200), ("2", 404), ("x", 404), ("-1", 404)])
async def test_versions_that_do_not_exist_are_not_found(found, version: str, status: int) -> None:
    answer = await call(found.mesh_app, "GET", f"/v1/policy/versions/{version}")
    assert answer.status == status


async def test_a_question_is_answered_with_the_rule(found: Platform) -> None:
    path = "/v1/policy/explain?caller=platform&callee=echo&capability=text.echo@1"
    answer = await call(found.mesh_app, "GET", path)
    assert (answer.json()["decision"], answer.json()["rule"]) == ("allow", "platform")
    assert (await call(found.mesh_app, "GET", path + "&data_class=secretive")).status == 422
    assert (await call(found.mesh_app, "GET", path.replace("echo&", "nobody&"))).status == 404
