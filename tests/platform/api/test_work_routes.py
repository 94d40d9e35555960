"""The routes of runs, jobs, pipelines, datasets and artifacts, over a core with fake workers."""

import hashlib
import json
import os
from urllib.parse import quote

import pytest
from api_support import OPERATOR, WORKER, call
from execution_support import PIPELINE, core, worker
from fastapi import FastAPI
from hivemesh_platform.api import (
    artifacts,
    datasets,
    errors,
    job_batches,
    jobs,
    pipelines,
    runs,
)
from hivemesh_platform.api.requests import RequestIds
from hivemesh_platform.artifacts.kept import KeptDigests
from hivemesh_platform.artifacts.local import BLOCK, SMALL
from hivemesh_platform.artifacts.service import ArtifactService
from hivemesh_platform.audit.ports import NoAudit
from hivemesh_sdk.clock import SystemClock


@pytest.fixture
async def platform(tmp_path):
    async with core(tmp_path, worker(records=25, bad={7})) as opened:
        yield opened


class Trail(NoAudit):
    """Keeps what is recorded before it happens."""

    def __init__(self):
        self.recorded = []

    async def record(self, event):
        self.recorded.append((event.action, event.target))


@pytest.fixture
def trail():
    return Trail()


@pytest.fixture
def app(platform, trail):
    execution = platform.execution
    files = ArtifactService(platform.database, platform.artifacts, execution.held, SystemClock())
    made = FastAPI()
    for router in (
        runs.router(execution.runs, files, NoAudit()),
        jobs.router(execution.jobs, execution.runs, files),
        job_batches.router(execution.batches, execution.runs, files, trail),
        pipelines.router(execution.pipelines, execution.runs, files),
        datasets.router(execution.datasets, NoAudit()),
        artifacts.router(files, execution.runs, NoAudit(), execution.tickets),
    ):
        made.include_router(router)
    errors.install(made)
    return RequestIds(made)


async def started(app, **body):
    answer = await call(app, "POST", "/v1/runs", body={"document": PIPELINE, **body})
    assert answer.status == 202, answer.body
    return answer.json()["id"]


async def ended(app, run):
    version = 0
    while True:
        answer = await call(app, "GET", f"/v1/runs/{run}/changes?after={version}&wait=5")
        found = answer.json()
        version = found["version"]
        if found["run"]["ended_at"]:
            return found["run"]


@pytest.fixture
async def run(app):
    return await ended(app, await started(app))


async def test_a_run_is_started_followed_and_shown(app, run):
    assert run["state"] == "partial"
    assert run["submitter"] == OPERATOR.uri
    shown = (await call(app, "GET", f"/v1/runs/{run['id']}")).json()
    assert shown == run
    assert shown["outputs"]["records"] == {
        "kind": "dataset",
        "name": "sums.records",
        "version": 1,
        "state": "partial",
        "records": 24,
    }


@pytest.mark.parametrize("path", ["runs/{}/events?wait=0&after={}", "runs/{}/explain?after={}"])
async def test_an_offset_that_nothing_has_is_refused_before_the_database_is_asked(app, run, path):
    answer = await call(app, "GET", "/v1/" + path.format(run["id"], 2**70))
    assert answer.status == 422
    [wrong] = answer.json()["errors"]
    assert wrong["pointer"].endswith("after")


async def test_the_log_of_a_run_is_read_from_an_offset(app, run):
    first = (await call(app, "GET", f"/v1/runs/{run['id']}/events?limit=2")).json()
    assert [one["type"] for one in first["items"]] == ["run_accepted", "run_started"]
    path = f"/v1/runs/{run['id']}/events?after={first['next']}"
    rest = (await call(app, "GET", path)).json()["items"]
    assert [(one["type"], one["node"]) for one in rest] == [
        ("node_partial", "read"),
        ("node_completed", "double"),
        ("node_completed", "sum"),
        ("dataset_closed", "double"),
        ("run_partial", ""),
    ]


async def test_outputs_are_streamed(app, run):
    records = await call(app, "GET", f"/v1/runs/{run['id']}/outputs/records")
    assert records.headers["content-type"].startswith("application/x-ndjson")
    assert len(records.body.splitlines()) == 24
    total = await call(app, "GET", f"/v1/runs/{run['id']}/outputs/total")
    assert total.json() == 2 * (sum(range(25)) - 7)


async def test_a_missing_output_is_named_with_the_known_ones(app, run):
    answer = await call(app, "GET", f"/v1/runs/{run['id']}/outputs/totl")
    assert (answer.status, answer.json()["code"]) == (404, "HM-1404")
    assert "total, records" in answer.json()["detail"]


async def test_rejected_records_are_paged(app, run):
    answer = await call(app, "GET", f"/v1/runs/{run['id']}/rejected?limit=1")
    assert answer.json() == {
        "items": [
            {
                "node": "read",
                "seq": 0,
                "reason": "bad",
                "detail": "",
                "position": 7,
                "data_class": "internal",
            }
        ],
        "next": None,
    }


async def test_placements_are_paged_by_offset(app, run):
    first = (await call(app, "GET", f"/v1/runs/{run['id']}/explain?limit=2")).json()
    assert (len(first["items"]), first["next"]) == (2, "2")
    second = (await call(app, "GET", f"/v1/runs/{run['id']}/explain?limit=200&after=2")).json()
    assert second["next"] is None
    keys = [one["key"] for one in first["items"] + second["items"]]
    assert len(keys) == len(set(keys)) == 1 + 3 + 2


async def test_runs_are_paged_by_id(app):
    ids = [await started(app) for _ in range(3)]
    first = (await call(app, "GET", "/v1/runs?limit=2")).json()
    second = (await call(app, "GET", f"/v1/runs?limit=2&after={first['next']}")).json()
    found = [one["id"] for one in first["items"] + second["items"]]
    assert found == ids[::-1]
    for run in ids:
        await ended(app, run)


async def test_an_ended_run_cannot_be_cancelled(app, run):
    answer = await call(app, "POST", f"/v1/runs/{run['id']}/cancel", body={})
    assert (answer.status, answer.json()["code"]) == (409, "HM-1403")


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        ({}, 422, None),
        ({"pipeline": "none"}, 404, None),
        ({"document": {**PIPELINE, "stepps": {}}}, 422, "/stepps"),
        ({"document": PIPELINE, "parameters": {"fro": "x"}}, 422, "/parameters/fro"),
        ({"documents": PIPELINE}, 422, "/documents"),
    ],
)
async def test_what_cannot_be_started(app, body, status, pointer):
    answer = await call(app, "POST", "/v1/runs", body=body)
    assert answer.status == status
    if pointer:
        assert answer.json()["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize(
    "path", ["/v1/runs/run_x", "/v1/runs/run_x/outputs/a", "/v1/jobs/job_x", "/v1/datasets/x"]
)
async def test_what_is_not_there(app, path):
    assert (await call(app, "GET", path)).status == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/runs"),
        ("GET", "/v1/runs"),
        ("GET", "/v1/runs/x/changes"),
        ("POST", "/v1/jobs"),
        ("GET", "/v1/pipelines"),
        ("GET", "/v1/datasets"),
        ("POST", "/v1/artifacts"),
    ],
)
async def test_a_worker_may_do_none_of_it(app, method, path):
    document = {"document": PIPELINE} if path == "/v1/runs" else {"capability": "test.echo@1"}
    answer = await call(app, method, path, as_=WORKER, body=document)
    assert answer.status == 403


@pytest.mark.parametrize("value", [5, "x" * 100_000], ids=["short", "long"])
async def test_a_job_that_ends_in_time_answers_200_with_its_result(app, value):
    body = {"capability": "test.echo@1", "input": value, "wait_s": 20}
    answer = await call(app, "POST", "/v1/jobs", body=body)
    assert answer.status == 200
    job = answer.json()
    assert job["outputs"]["result"]["value"] == value
    assert (await call(app, "GET", f"/v1/jobs/{job['id']}")).json() == job


async def test_a_job_that_nobody_waits_for_answers_202_unless_it_has_ended(app, platform):
    answer = await call(app, "POST", "/v1/jobs", body={"capability": "test.echo@1"})
    assert answer.status == (200 if answer.json()["state"] == "completed" else 202)
    assert (await platform.end(answer.json()["id"])).state == "completed"


async def test_pipelines_are_stored_and_listed(app):
    assert (await call(app, "POST", "/v1/pipelines", body=PIPELINE)).status == 201
    [listed] = (await call(app, "GET", "/v1/pipelines")).json()["items"]
    assert (listed["name"], listed["steps"]) == ("sums", ["read", "double", "sum"])
    run = await call(app, "POST", "/v1/runs", body={"pipeline": "sums"})
    await ended(app, run.json()["id"])


async def test_a_version_of_a_pipeline_does_not_change(app):
    await call(app, "POST", "/v1/pipelines", body=PIPELINE)
    assert (await call(app, "POST", "/v1/pipelines", body=PIPELINE)).status == 201
    other = {**PIPELINE, "outputs": {}}
    assert (await call(app, "POST", "/v1/pipelines", body=other)).status == 409


async def test_a_pipeline_is_validated_without_being_stored(app):
    answer = await call(app, "POST", "/v1/pipelines/validate", body=PIPELINE)
    assert answer.json()["outputs"] == ["total", "records"]
    assert (await call(app, "GET", "/v1/pipelines")).json()["items"] == []


async def test_a_dataset_shows_where_it_comes_from(app, run):
    [listed] = (await call(app, "GET", "/v1/datasets")).json()["items"]
    shown = (await call(app, "GET", "/v1/datasets/sums.records")).json()
    assert (listed["name"], shown["records"], shown["run"]) == ("sums.records", 24, run["id"])
    assert shown["provenance"]["workers"] == ["fake 1.0.0"]
    assert shown["provenance"]["pipeline"] == "sums"


async def test_the_records_of_a_dataset_are_streamed_in_order(app, run):
    answer = await call(app, "GET", "/v1/datasets/sums.records/records?version=1")
    numbers = [json.loads(line)["n"] for line in answer.body.splitlines()]
    assert numbers == [2 * n for n in range(25) if n != 7]


async def test_datasets_are_paged(app):
    for _ in range(3):
        await ended(app, await started(app))
    first = (await call(app, "GET", "/v1/datasets?limit=2")).json()
    second = (await call(app, "GET", f"/v1/datasets?limit=2&after={first['next']}")).json()
    assert [one["version"] for one in first["items"] + second["items"]] == [3, 2, 1]


async def test_a_damaged_part_is_refused_before_anything_is_sent(app, run, platform):
    [row] = await platform.database.read(
        lambda tx: tx.all("SELECT sha256 FROM dataset_part WHERE seq = 1")
    )
    platform.artifacts._forget(row["sha256"])
    path = platform.artifacts._path(row["sha256"])
    path.write_bytes(path.read_bytes()[:-1])
    answer = await call(app, "GET", "/v1/datasets/sums.records/records")
    assert (answer.status, answer.json()["code"]) == (500, "HM-1503")


async def uploaded(app, data, name="a.txt"):
    headers = {"content-type": "text/plain"}
    answer = await call(app, "POST", f"/v1/artifacts?name={name}", body=data, headers=headers)
    assert answer.status == 201
    return answer.json()


async def test_an_upload_is_answered_with_its_reference(app):
    found = await uploaded(app, b"hello")
    assert found["sha256"] == hashlib.sha256(b"hello").hexdigest()
    assert (found["size"], found["name"], found["media_type"]) == (5, "a.txt", "text/plain")


async def test_a_download_is_whole_or_a_range(app):
    sha256 = (await uploaded(app, b"0123456789"))["sha256"]
    whole = await call(app, "GET", f"/v1/artifacts/{sha256}")
    assert (whole.status, whole.body) == (200, b"0123456789")
    part = await call(app, "GET", f"/v1/artifacts/{sha256}", headers={"range": "bytes=2-4"})
    assert (part.status, part.body) == (206, b"234")
    assert part.headers["content-range"] == "bytes 2-4/10"


async def test_a_download_ends_whole_while_retention_removes_what_it_reads(app, platform):
    data = bytes(SMALL + 4 * BLOCK)
    sha256 = (await uploaded(app, data))["sha256"]
    os.utime(platform.artifacts._path(sha256), (1, 1))
    files = ArtifactService(platform.database, platform.artifacts, None, SystemClock())
    removed = []

    async def collecting(scope, receive, send):
        async def sent(message):
            await send(message)
            if message.get("more_body") and not removed:
                await platform.database.write(lambda tx: tx.execute("DELETE FROM artifact"))
                removed.append(await files.collect(0.0, KeptDigests()))

        await app(scope, receive, sent)

    whole = await call(collecting, "GET", f"/v1/artifacts/{sha256}")
    assert (whole.status, removed) == (200, [0])
    assert whole.body == data
    assert await files.collect(0.0, KeptDigests()) == 1


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=4-2", "bytes=-", "bytes=0-1,3-4", "x"])
async def test_a_range_that_cannot_be_served_answers_416(app, header):
    sha256 = (await uploaded(app, b"0123456789"))["sha256"]
    answer = await call(app, "GET", f"/v1/artifacts/{sha256}", headers={"range": header})
    assert answer.status == 416


async def test_a_worker_without_a_step_sees_no_artifact(app):
    sha256 = (await uploaded(app, b"secret"))["sha256"]
    path = f"/v1/artifacts/{sha256}?step=run_1.read.0&attempt=1"
    answer = await call(app, "GET", path, as_=WORKER)
    assert (answer.status, answer.json()["code"]) == (401, "HM-1731")
    grant = {"operation": "get", "sha256": sha256, "size": 6, "step": "run_1.a.0", "attempt": 1}
    answer = await call(app, "POST", "/v1/artifacts/grants", as_=WORKER, body=grant)
    assert answer.status == 401
    answer = await call(app, "PUT", path, as_=WORKER, body=b"secret")
    assert answer.status == 401


async def test_results_of_a_batch_are_recorded_as_an_export(app, trail):
    lines = b'{"capability":"test.echo@1"}\n1\n2\n'
    kind = {"content-type": "application/x-ndjson"}
    answer = await call(app, "POST", "/v1/jobs/batch", body=lines, headers=kind)
    batch = answer.json()["id"]
    answer = await call(app, "GET", f"/v1/jobs/batch/{batch}/results")
    assert (answer.status, len(answer.body.splitlines())) == (200, 2)
    assert trail.recorded == [("export:batch", batch)]


@pytest.mark.parametrize("after", ["x", "sums.total~", "sums.total~²", "sums.total~" + "9" * 5000])
async def test_a_place_in_the_list_of_datasets_that_is_none_is_refused(app, after):
    answer = await call(app, "GET", f"/v1/datasets?after={quote(after)}")
    assert (answer.status, answer.json()["code"]) == (422, "HM-1002")
