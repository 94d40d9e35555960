"""Who may do what with which object: a right on x is one on x only, and what is hidden is absent."""

import hashlib
import json
from collections.abc import AsyncIterator

import pytest
from access_support import ADMIN
from api_support import Answer, call
from execution_support import PIPELINE, core, worker
from fastapi import FastAPI
from hivemesh_platform.access.model import Grant, Principal, Rights
from hivemesh_platform.access.roles import ROLES
from hivemesh_platform.api import artifacts, datasets, errors, jobs, pipelines, runs
from hivemesh_platform.api.requests import RequestIds
from hivemesh_platform.api.work import Work
from hivemesh_platform.artifacts.service import ArtifactService
from hivemesh_platform.audit.ports import NoAudit
from hivemesh_sdk.clock import SystemClock

RUNS = ("run:pipeline", "run:capability")


def somebody(name: str, *grants: str, tenant: str = "default") -> Principal:
    rights = Rights(Grant.parse(text) for text in grants)
    return Principal(
        id=f"spiffe://test.hivemesh.internal/user/{name}", tenant=tenant, grants=rights.texts()
    )


def of_role(name: str, *more: str, tenant: str = "default") -> Principal:
    return somebody(f"a-{name}", *ROLES[name].grants, *more, tenant=tenant)


@pytest.fixture
async def app(tmp_path) -> AsyncIterator[RequestIds]:
    async with core(tmp_path, worker(records=5)) as platform:
        execution = platform.execution
        files = ArtifactService(
            platform.database, platform.artifacts, execution.held, SystemClock()
        )
        made = FastAPI()
        for router in (
            runs.router(execution.runs, files, NoAudit()),
            jobs.router(execution.jobs, execution.runs, files),
            pipelines.router(execution.pipelines, execution.runs, files),
            datasets.router(execution.datasets, NoAudit()),
            artifacts.router(files, execution.runs, NoAudit(), execution.tickets),
        ):
            made.include_router(router)
        errors.install(made)
        yield RequestIds(made)


async def stored(app, who: Principal = ADMIN) -> None:
    answer = await call(app, "POST", "/v1/pipelines", body=PIPELINE, principal=who)
    assert answer.status == 201, answer.body


async def ended(app, who: Principal) -> str:
    answer = await call(app, "POST", "/v1/runs", body={"pipeline": "sums"}, principal=who)
    assert answer.status == 202, answer.body
    run, version = answer.json()["id"], 0
    while True:
        path = f"/v1/runs/{run}/changes?after={version}&wait=5"
        found = (await call(app, "GET", path, principal=of_role("admin", tenant=who.tenant))).json()
        version = found["version"]
        if found["run"]["ended_at"]:
            return str(run)


def without_place(answer: Answer) -> dict[str, object]:
    """A refusal without the request's own id and address."""
    document = answer.json()
    address = document.pop("instance")
    document.pop("request_id")
    name = address.rpartition("/")[2]
    for part in address.split("/"):
        if part.startswith(("run_", "job_")) or len(part) == 64:
            name = part
    return json.loads(json.dumps(document).replace(name, "X"))


def same(one: Answer, two: Answer) -> bool:
    return one.status == two.status == 404 and without_place(one) == without_place(two)


async def test_who_may_write_a_dataset_may_write_that_one_only(app) -> None:
    await stored(app)
    for grant, status in (
        ("write:sums.records", 202),
        ("write:sums.*", 202),
        ("write:other", 404),
        ("read:sums.records", 403),
    ):
        who = somebody("anna", *RUNS, grant)
        answer = await call(app, "POST", "/v1/runs", body={"pipeline": "sums"}, principal=who)
        assert answer.status == status, (grant, answer.body)


async def test_a_pipeline_lends_no_capability(app) -> None:
    await stored(app)
    allowed = ("run:pipeline", "write:dataset", "run:capability/test.read@1")
    who = somebody("anna", *allowed, "run:capability/test.double@1")
    body = {"pipeline": "sums"}
    assert (await call(app, "POST", "/v1/runs", body=body, principal=who)).status == 404
    who = somebody("anna", *allowed, "run:capability/test.*")
    assert (await call(app, "POST", "/v1/runs", body=body, principal=who)).status == 202


async def test_a_viewer_writes_nothing(app) -> None:
    await stored(app)
    viewer = of_role("viewer")
    for path, body in (
        ("/v1/runs", {"pipeline": "sums"}),
        ("/v1/jobs", {"capability": "test.echo@1"}),
        ("/v1/pipelines", PIPELINE),
        ("/v1/artifacts", b"bytes"),
    ):
        assert (await call(app, "POST", path, body=body, principal=viewer)).status == 403, path


async def test_an_analyst_runs_what_others_have_written(app) -> None:
    await stored(app)
    analyst = of_role("analyst")
    run = await ended(app, analyst)
    assert (await call(app, "GET", f"/v1/runs/{run}", principal=analyst)).json()["submitter"] == (
        analyst.id
    )
    own = {**PIPELINE, "metadata": {"name": "own", "version": 1}}
    for path, body in (("/v1/pipelines", own), ("/v1/runs", {"document": own})):
        assert (await call(app, "POST", path, body=body, principal=analyst)).status == 403
    author = of_role("author")
    assert (await call(app, "POST", "/v1/pipelines", body=own, principal=author)).status == 201


async def test_a_new_pipeline_needs_create_and_a_known_one_write(app) -> None:
    creator = somebody("anna", "create:pipeline", "read:pipeline")
    await stored(app, creator)
    second = {**PIPELINE, "metadata": {"name": "sums", "version": 2}}
    answer = await call(app, "POST", "/v1/pipelines", body=second, principal=creator)
    assert answer.status == 403
    writer = somebody("bert", "write:pipeline/sums")
    answer = await call(app, "POST", "/v1/pipelines", body=second, principal=writer)
    assert answer.status == 201


async def test_a_run_is_seen_by_its_submitter_and_by_who_may_read_it(app) -> None:
    await stored(app)
    anna = somebody("anna", *RUNS, "write:dataset")
    run = await ended(app, anna)
    for who, status in (
        (anna, 200),
        (somebody("bert", *RUNS), 404),
        (somebody("bert", "read:run/sums"), 200),
        (somebody("bert", "read:run/other"), 404),
        (somebody("anna", "read:run/other"), 404),  # who lost the right to run it sees it no more
    ):
        answer = await call(app, "GET", f"/v1/runs/{run}", principal=who)
        assert answer.status == status, who
        listed = await call(app, "GET", "/v1/runs", principal=who)
        assert [one["id"] for one in listed.json()["items"]] == ([run] if status == 200 else [])


async def test_others_runs_are_cancelled_by_who_may_write_runs(app) -> None:
    await stored(app)
    run = await ended(app, somebody("anna", *RUNS, "write:dataset"))
    path = f"/v1/runs/{run}/cancel"
    for who, status in (
        (somebody("bert", *RUNS), 404),
        (of_role("analyst"), 403),
        (of_role("operator"), 409),
        (somebody("anna", *RUNS), 409),
    ):
        assert (await call(app, "POST", path, body={}, principal=who)).status == status, who


async def test_records_of_an_output_are_those_of_its_dataset(app) -> None:
    await stored(app)
    anna = somebody("anna", *RUNS, "write:dataset")
    run = await ended(app, anna)
    path = f"/v1/runs/{run}/outputs"
    assert (await call(app, "GET", f"{path}/records", principal=anna)).status == 404
    assert (await call(app, "GET", f"{path}/total", principal=anna)).status == 200
    reader = somebody("bert", "read:run/sums", "read:sums.records")
    assert (await call(app, "GET", f"{path}/records", principal=reader)).status == 200


async def test_datasets_are_listed_and_read_by_name(app) -> None:
    await stored(app)
    await ended(app, ADMIN)
    for grant, count in (("read:sums.records", 1), ("read:dataset/sums*", 1), ("read:x", 0)):
        who = somebody("anna", grant)
        listed = (await call(app, "GET", "/v1/datasets", principal=who)).json()["items"]
        assert len(listed) == count
        answer = await call(app, "GET", "/v1/datasets/sums.records/records", principal=who)
        assert answer.status == (200 if count else 404)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/runs/{}",
        "/v1/runs/{}/changes",
        "/v1/runs/{}/events",
        "/v1/runs/{}/outputs/total",
        "/v1/runs/{}/rejected",
        "/v1/runs/{}/explain",
        "/v1/jobs/{}",
    ],
)
async def test_a_guessed_run_is_answered_like_one_that_is_not_there(app, path: str) -> None:
    await stored(app)
    run = await ended(app, ADMIN)
    absent = run[:-8] + "00000000"
    for who in (somebody("bert", *RUNS, "read:run/other"), of_role("admin", tenant="acme")):
        there = await call(app, "GET", path.format(run), principal=who)
        nowhere = await call(app, "GET", path.format(absent), principal=who)
        assert same(there, nowhere), (there.body, nowhere.body)


async def test_a_guessed_name_is_answered_like_one_that_is_not_there(app) -> None:
    await stored(app)
    await ended(app, ADMIN)
    for who in (
        somebody("bert", "read:dataset/x", "read:pipeline/x"),
        of_role("admin", tenant="acme"),
    ):
        for path, name in (("/v1/datasets/{}", "sums.records"), ("/v1/pipelines/{}", "sums")):
            there = await call(app, "GET", path.format(name), principal=who)
            nowhere = await call(app, "GET", path.format("nothing"), principal=who)
            assert same(there, nowhere), (there.body, nowhere.body)


async def test_bytes_are_read_by_who_stored_them_or_may_read_what_they_belong_to(app) -> None:
    anna, bert = (somebody(name, "create:artifact", *RUNS) for name in ("anna", "bert"))
    stored_bytes = await call(app, "POST", "/v1/artifacts", body=b"secret", principal=anna)
    digest = stored_bytes.json()["sha256"]
    path = f"/v1/artifacts/{digest}"
    assert (await call(app, "GET", path, principal=anna)).body == b"secret"
    there = await call(app, "GET", path, principal=bert)
    nowhere = await call(app, "GET", f"/v1/artifacts/{'0' * 64}", principal=bert)
    assert same(there, nowhere)
    reader = somebody("bert", "read:artifact")
    assert (await call(app, "GET", path, principal=reader)).status == 200
    foreign = of_role("admin", tenant="acme")
    assert (await call(app, "GET", path, principal=foreign)).status == 404


async def test_work_names_only_bytes_that_its_submitter_may_read(app) -> None:
    anna, bert = (somebody(name, "create:artifact", *RUNS) for name in ("anna", "bert"))
    answer = await call(app, "POST", "/v1/artifacts", body=b"secret", principal=anna)
    reference = answer.json()
    for who, status in ((anna, 200), (bert, 404)):
        body = {"capability": "test.echo@1", "input": {"file": reference}, "wait_s": 10}
        answer = await call(app, "POST", "/v1/jobs", body=body, principal=who)
        assert answer.status == status, answer.body


async def test_a_folder_brings_no_foreign_bytes_along(app) -> None:
    anna, bert = (somebody(name, "create:artifact", *RUNS) for name in ("anna", "bert"))
    answer = await call(app, "POST", "/v1/artifacts", body=b"secret", principal=anna)
    entry = {key: answer.json()[key] for key in ("sha256", "size", "media_type")}
    tree = json.dumps({"entries": {"stolen": entry}}).encode()
    headers = {"content-type": "application/vnd.hivemesh.tree+json"}
    for who, status in ((anna, 200), (bert, 404)):
        made = await call(app, "POST", "/v1/artifacts", body=tree, principal=who, headers=headers)
        body = {"capability": "test.echo@1", "input": {"folder": made.json()}, "wait_s": 10}
        answer = await call(app, "POST", "/v1/jobs", body=body, principal=who)
        assert answer.status == status, answer.body


async def test_parts_of_a_dataset_are_read_by_who_may_read_it(app) -> None:
    await stored(app)
    await ended(app, ADMIN)
    reader = somebody("bert", "read:sums.records")
    path = "/v1/datasets/sums.records/records"
    records = (await call(app, "GET", path, principal=reader)).body
    digest = hashlib.sha256(records).hexdigest()
    answer = await call(app, "GET", f"/v1/artifacts/{digest}", principal=reader)
    assert answer.body == records
    other = somebody("bert", "read:other")
    assert (await call(app, "GET", f"/v1/artifacts/{digest}", principal=other)).status == 404


async def test_two_tenants_have_pipelines_and_datasets_of_one_name(app) -> None:
    for tenant in ("default", "acme"):
        admin = of_role("admin", tenant=tenant)
        await stored(app, admin)
        await ended(app, admin)
        found = await call(app, "GET", "/v1/datasets/sums.records", principal=admin)
        assert found.json()["version"] == 1
        for path in ("/v1/runs", "/v1/datasets", "/v1/pipelines"):
            listed = await call(app, "GET", path, principal=admin)
            assert len(listed.json()["items"]) == 1, path
        path = "/v1/datasets/sums.records/records"
        assert len((await call(app, "GET", path, principal=admin)).body.splitlines()) == 5


TREE = "application/vnd.hivemesh.tree+json"
AUTHOR = (*RUNS, "create:artifact", "create:pipeline", "read:pipeline")


def naming(options: dict[str, object], **parameters: object) -> dict[str, object]:
    """A pipeline of one call."""
    return {
        "apiVersion": "hivemesh/v1",
        "kind": "Pipeline",
        "metadata": {"name": "naming", "version": 1},
        "parameters": parameters,
        "steps": {"echo": {"use": "test.echo@1", "with": options}},
        "outputs": {"answer": "echo"},
    }


async def uploaded(app, who: Principal, data: bytes, media_type: str = "text/plain") -> dict:
    headers = {"content-type": media_type}
    answer = await call(app, "POST", "/v1/artifacts", body=data, principal=who, headers=headers)
    return {key: answer.json()[key] for key in ("sha256", "size", "media_type")}


async def started(app, who: Principal, document: dict[str, object], **parameters: object) -> int:
    body = {"document": document, "parameters": parameters}
    return (await call(app, "POST", "/v1/runs", body=body, principal=who)).status


@pytest.mark.parametrize("tenant", ["default", "acme"])
async def test_a_pipeline_brings_no_foreign_bytes_along(app, tenant) -> None:
    anna, bert = somebody("anna", *AUTHOR, tenant=tenant), somebody("bert", *AUTHOR)
    secret = await uploaded(app, anna, b"secret")
    digest = {"type": "string", "default": secret["sha256"]}
    documents = [
        naming({"a": secret}),
        naming({"a": "${{ parameters.p }}"}, p={"type": "artifact", "default": secret}),
        naming({"a": {**secret, "sha256": "${{ parameters.d }}"}}, d=digest),
    ]
    for document in documents:
        assert await started(app, bert, document) == 404
        assert await started(app, anna, document) == 202
        answer = await call(app, "POST", "/v1/pipelines", body=document, principal=bert)
        assert answer.status == 404


async def test_a_folder_is_looked_into_whatever_names_its_media_type(app) -> None:
    anna, bert = somebody("anna", *AUTHOR, tenant="acme"), somebody("bert", *AUTHOR)
    entries = {"x": await uploaded(app, anna, b"secret")}
    tree = await uploaded(app, bert, json.dumps({"entries": entries}).encode(), TREE)
    templated = {**tree, "media_type": "${{ parameters.m }}"}
    document = naming({"a": templated}, m={"type": "string", "default": "text/plain"})
    assert await started(app, bert, document) == 202
    assert await started(app, bert, document, m=TREE) == 404


async def test_a_stored_pipeline_lends_neither_its_author_nor_who_starts_it_bytes(app) -> None:
    anna, bert = (somebody(name, *AUTHOR) for name in ("anna", "bert"))
    document = naming({"a": await uploaded(app, anna, b"secret")})
    answer = await call(app, "POST", "/v1/pipelines", body=document, principal=anna)
    assert answer.status == 201
    for who, status in ((anna, 202), (bert, 404)):
        body = {"pipeline": "naming"}
        assert (await call(app, "POST", "/v1/runs", body=body, principal=who)).status == status


async def test_what_was_checked_runs_though_a_newer_version_is_stored_meanwhile(
    app, monkeypatch
) -> None:
    who = somebody("anna", *AUTHOR, "write:pipeline")
    first = naming({})
    await call(app, "POST", "/v1/pipelines", body=first, principal=who)
    check = Work.check_run

    async def slow(work, request, body):
        found = await check(work, request, body)
        newer = {**first, "metadata": {"name": "naming", "version": 2}}
        answer = await call(app, "POST", "/v1/pipelines", body=newer, principal=who)
        assert answer.status == 201
        return found

    monkeypatch.setattr(Work, "check_run", slow)
    answer = await call(app, "POST", "/v1/runs", body={"pipeline": "naming"}, principal=who)
    assert answer.json()["version"] == 1
