"""Secrets over the API: names for those who may see them, values on demand, nothing in answers."""

import pytest
import pytest_asyncio
from api_support import WORKER, call
from fastapi import FastAPI
from hivemesh_platform.access.model import Principal
from hivemesh_sdk.contracts.secrets import SecretRequest
from hivemesh_sdk.redaction import REDACTOR
from platform_support import platform

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

VALUE = "correct-horse-battery"
ANN = Principal(
    id="spiffe://test.hivemesh.internal/user/ann",
    roles=("analyst",),
    grants=("read:secret/mail.*", "write:secret/mail.inbox*", "read:run"),
)
SHOWN = ["path", "version", "versions", "created_at", "deleted"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def found(tmp_path_factory):
    async with platform(tmp_path_factory.mktemp("platform")) as running:
        for path in ("mail.inbox", "mail.outbox", "bank"):
            answer = await call(
                running.mesh_app, "PUT", f"/v1/secrets/{path}", body={"value": VALUE}
            )
            assert answer.status == 200
            assert list(answer.json()) == SHOWN
        yield running


async def test_only_a_reveal_answers_with_a_value(found):
    for method, path in (
        ("GET", "/v1/secrets"),
        ("GET", "/v1/secrets/bank"),
        ("DELETE", "/v1/secrets/bank"),
        ("POST", "/v1/secrets/bank/restore"),
    ):
        answer = await call(found.mesh_app, method, path)
        assert answer.status == 200
        assert VALUE not in answer.body.decode()
    await call(found.mesh_app, "PUT", "/v1/secrets/shown", body={"value": VALUE})
    answer = await call(found.mesh_app, "POST", "/v1/secrets/shown/reveal")
    assert answer.json()["value"] == VALUE
    assert answer.headers["cache-control"] == "no-store"


ASKED = [
    ("GET", "/v1/secrets/mail.inbox", 200),
    ("GET", "/v1/secrets/bank", 404),
    ("GET", "/v1/secrets/nothing", 404),
    ("PUT", "/v1/secrets/mail.inbox", 200),
    ("PUT", "/v1/secrets/mail.outbox", 403),
    ("PUT", "/v1/secrets/bank", 404),
    ("DELETE", "/v1/secrets/mail.outbox", 403),
    ("POST", "/v1/secrets/mail.inbox/rotate", 200),
    ("POST", "/v1/secrets/mail.inbox/reveal", 403),
    ("POST", "/v1/secrets/bank/reveal", 404),
]


async def test_each_route_asks_for_the_secret(found):
    for method, path, status in ASKED:
        body = {"value": f"of {path}"} if method != "DELETE" else b""
        answer = await call(behind(found), method, path, body=body, principal=ANN)
        assert answer.status == status, (method, path, answer.body)


def behind(found):
    """The routes behind the front that finds out who asks."""
    app = found.mesh_app
    while not isinstance(app, FastAPI):
        app = getattr(app, "_app", None) or app.app
    return app


async def test_an_admin_of_secrets_sees_none_of_another_tenant(found):
    carl, dora = (
        Principal(
            id=f"spiffe://test.hivemesh.internal/user/{name}",
            tenant=tenant,
            grants=("admin:secret/*",),
        )
        for name, tenant in (("carl", "acme"), ("dora", "default"))
    )
    body = {"value": VALUE}
    path = "/v1/secrets/db.password"
    assert (await call(behind(found), "PUT", path, body=body, principal=carl)).status == 200
    for method, path in (
        ("GET", "/v1/secrets?prefix=tenants.acme"),
        ("GET", "/v1/secrets/tenants.acme.db.password"),
        ("POST", "/v1/secrets/tenants.acme.db.password/reveal"),
    ):
        answer = await call(behind(found), method, path, principal=dora)
        assert answer.status == 422
        assert VALUE not in answer.body.decode()


async def test_a_list_shows_what_one_may_see(found):
    answer = await call(behind(found), "GET", "/v1/secrets", principal=ANN)
    assert [one["path"] for one in answer.json()["items"]] == ["mail.inbox", "mail.outbox"]


@pytest.mark.parametrize(
    "body",
    [
        {"value": ""},
        {"value": "x" * 65_537},
        {"value": 7},
        {},
        {"value": VALUE, "more": 1},
        [VALUE],
    ],
)
async def test_a_body_that_is_refused_is_not_repeated(found, body):
    answer = await call(found.mesh_app, "PUT", "/v1/secrets/bank", body=body)
    assert answer.status == 422
    assert VALUE not in answer.body.decode()


@pytest.mark.parametrize("path", ["a%2Fb", "a..b", "..", "a b", "tenants.acme.x", "a" * 200])
async def test_a_path_that_is_none_is_refused(found, path):
    answer = await call(found.mesh_app, "PUT", f"/v1/secrets/{path}", body={"value": "x"})
    assert answer.status in {404, 422}


async def test_a_worker_without_a_ticket_is_lent_nothing(found):
    body = SecretRequest(path="bank", step="run_1.a.0", attempt=1)
    answer = await call(found.mesh_app, "POST", "/v1/secrets/resolve", as_=WORKER, body=body)
    assert answer.status == 401
    for path in ("/v1/secrets", "/v1/secrets/bank"):
        assert (await call(found.mesh_app, "GET", path, as_=WORKER)).status == 403


async def test_the_status_says_whether_secrets_are_sealed(found):
    assert (await call(found.mesh_app, "GET", "/v1/status")).json()["secrets_sealed"] == ""


async def test_the_settings_show_no_secret(tmp_path):
    async with platform(tmp_path, **{"secrets.passphrase": VALUE}) as running:
        answer = await call(running.mesh_app, "GET", "/v1/config")
        shown = {one["key"]: one["value"] for one in answer.json()["items"]}
        assert shown["secrets.passphrase"] == "***"
        assert shown["secrets.vault.secret_id"] == ""
        assert VALUE not in answer.body.decode()
    REDACTOR.clear()
