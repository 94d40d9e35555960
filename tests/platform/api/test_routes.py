"""Every route of the platform, asked by those who may and those who may not."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from access_support import endpoints
from api_support import OPERATOR, WORKER, call
from hivemesh_platform.api.permissions import ROUTES
from hivemesh_platform.app import Platform
from hivemesh_sdk.trust.identity import Peer, SpiffeId
from platform_support import install, platform
from registry_support import heartbeat, manifest, registration

pytestmark = pytest.mark.integration


@pytest.fixture
async def found(tmp_path: Path) -> AsyncIterator[Platform]:
    install(tmp_path, manifest())
    (tmp_path / "workers" / "broken").mkdir()
    (tmp_path / "workers" / "broken" / "plugin.yaml").write_text("kind: [")
    async with platform(tmp_path) as running:
        yield running


def routes(found: Platform) -> list[tuple[str, str]]:
    listed = endpoints(found.mesh_app)
    assert len(listed) > 20
    return listed


def member(found: Platform, name: str) -> Peer:
    own = SpiffeId.worker(found.authority.trust_domain, "echo", name)
    return Peer(id=own, not_after=WORKER.not_after, serial=1, uri=str(own))


def filled(path: str) -> str:
    return path.replace("{instance_id}", "i1").replace("{", "").replace("}", "")


async def test_nobody_gets_anything_without_a_certificate(found: Platform) -> None:
    for method, path in routes(found):
        answer = await call(found.mesh_app, method, filled(path), as_=None, body={})
        assert answer.status == 401, (method, path)


async def test_a_worker_reaches_what_workers_need_and_nothing_else(found: Platform) -> None:
    for method, path in routes(found):
        needs = ROUTES[f"{method} {path}"]
        if needs.processes or needs.workers or needs.everybody:
            continue
        answer = await call(found.mesh_app, method, filled(path), as_=WORKER, body={})
        assert answer.status == 403, (method, path)


async def test_the_enrolment_listener_serves_one_route(found: Platform) -> None:
    answer = await call(found.enrolment_app, "GET", "/v1/status", as_=None)
    assert answer.status == 404
    answer = await call(found.enrolment_app, "POST", "/v1/enrol", as_=None, body={})
    assert answer.status == 422


async def test_the_status_tells_who_runs_where(found: Platform) -> None:
    status = (await call(found.mesh_app, "GET", "/v1/status")).json()
    assert status["trust_domain"] == found.authority.trust_domain
    assert status["state_folder"] == str(found.state_folder)
    assert status["ready"] is True


async def test_the_status_tells_how_busy_the_live_instances_are(found: Platform) -> None:
    before = (await call(found.mesh_app, "GET", "/v1/status")).json()
    assert (before["cpu_percent"], before["memory_percent"], before["active_steps"]) == (0, 0, 0)
    for name in ("i1", "i2"):
        body = registration(manifest())
        peer = member(found, name)
        answer = await call(found.mesh_app, "PUT", f"/v1/instances/{name}", as_=peer, body=body)
        assert answer.status == 200, answer.body
    status = before
    for _ in range(50):  # on a busy machine a heartbeat may be too old a moment later
        for name, cpu, active in (("i1", 0.2, 2), ("i2", 0.5, 1)):
            beat = heartbeat(cpu=cpu, memory=0.31, active=active)
            url = f"/v1/instances/{name}/heartbeat"
            await call(found.mesh_app, "POST", url, as_=member(found, name), body=beat)
        status = (await call(found.mesh_app, "GET", "/v1/status")).json()
        if status["live_instances"] == 2:
            break
    assert (status["live_instances"], status["active_steps"]) == (2, 3)
    assert (status["cpu_percent"], status["memory_percent"]) == (35.0, 31.0)


async def test_health_is_told_to_every_member(found: Platform) -> None:
    for ready in (True, False):
        found.ready = ready
        answer = await call(found.mesh_app, "GET", "/v1/health", as_=member(found, "i1"))
        assert (answer.status, answer.json()) == (200, {"ready": ready})


async def test_settings_are_told_with_their_origin(found: Platform) -> None:
    rows = (await call(found.mesh_app, "GET", "/v1/config")).json()["items"]
    port = next(row for row in rows if row["key"] == "api.port")
    assert port == {"key": "api.port", "value": 0, "origin": "flag api.port"}


async def test_workers_are_listed_broken_ones_too(found: Platform) -> None:
    items = (await call(found.mesh_app, "GET", "/v1/workers")).json()["items"]
    states = {item["name"]: item["state"] for item in items}
    assert states == {"broken": "invalid", "echo": "stopped"}
    assert "line" in next(item["reason"] for item in items if item["name"] == "broken")


async def test_an_unknown_worker_is_not_found(found: Platform) -> None:
    for method, path in (("GET", ""), ("GET", "/logs"), ("POST", "/restart")):
        answer = await call(found.mesh_app, method, f"/v1/workers/nobody{path}")
        assert (answer.status, answer.json()["code"]) == (404, "HM-1003")


async def test_a_worker_that_is_not_valid_has_no_log_and_why_is_told(found: Platform) -> None:
    for method, path in (("GET", "/logs"), ("POST", "/restart")):
        answer = await call(found.mesh_app, method, f"/v1/workers/broken{path}")
        assert (answer.status, answer.json()["code"]) == (409, "HM-1010")
        assert "'broken' is not valid" in answer.json()["detail"]
        assert "line" in answer.json()["detail"]


async def test_without_a_supervisor_nothing_is_scaled(found: Platform) -> None:
    body = {"instances": 2}
    answer = await call(found.mesh_app, "POST", "/v1/workers/echo/scale", body=body)
    assert answer.status == 409
    assert "workers.supervise" in answer.json()["detail"]


async def test_scaling_is_bounded(found: Platform) -> None:
    body = {"instances": 65}
    answer = await call(found.mesh_app, "POST", "/v1/workers/echo/scale", body=body)
    assert answer.json()["errors"][0]["pointer"] == "/instances"


async def test_capabilities_are_told_with_who_serves_them(found: Platform) -> None:
    one = (await call(found.mesh_app, "GET", "/v1/capabilities/echo.say@1")).json()
    assert (one["worker"], one["live_instances"], one["free_slots"]) == ("echo", 0, 0)
    answer = await call(found.mesh_app, "GET", "/v1/capabilities/echo.nothing@1")
    assert answer.status == 404


async def test_job_types_are_told_with_the_schemas_of_what_they_take(tmp_path: Path) -> None:
    takes = {"type": "object", "required": ["text"]}
    options = {"type": "object", "properties": {"loud": {"type": "boolean"}}}
    say = {"id": "echo.say@1", "kind": "call", "input": takes, "options": options}
    install(tmp_path, manifest(capabilities=[say, {"id": "echo.read@1", "kind": "source"}]))
    async with platform(tmp_path) as found:
        (one,) = (await call(found.mesh_app, "GET", "/v1/job-types")).json()["items"]
        assert (one["id"], one["kind"]) == ("echo.say@1", "call")
        assert (one["input"], one["options"]) == (takes, options)
        body = {"capability": "echo.say@1", "input": {}}
        answer = await call(found.mesh_app, "POST", "/v1/jobs", body=body)
        assert (answer.status, answer.json()["errors"][0]["pointer"]) == (422, "/input")


async def test_a_join_token_is_made_for_the_operator(found: Platform) -> None:
    answer = await call(found.mesh_app, "POST", "/v1/workers/echo/join-tokens", body={})
    assert answer.status == 201
    assert answer.json()["token"].startswith("jt1.")


async def test_the_metrics_count_jobs_by_their_state(found: Platform) -> None:
    for priority in (0, 5, 6):
        body = {"capability": "echo.say@1", "priority": priority}
        assert (await call(found.mesh_app, "POST", "/v1/jobs", body=body)).status == 202
    text = (await call(found.mesh_app, "GET", "/metrics", as_=OPERATOR)).body.decode()
    assert 'hivemesh_jobs{state="queued"} 3.0' in text
    assert 'hivemesh_jobs_pending{queue="high"} 1.0' in text
    assert 'hivemesh_jobs_pending{queue="background"} 2.0' in text


async def test_the_queue_is_told_by_capability_and_priority(found: Platform) -> None:
    assert (await call(found.mesh_app, "GET", "/v1/queue")).json()["items"] == []
    for priority in (0, 5, 6):
        body = {"capability": "echo.say@1", "priority": priority}
        assert (await call(found.mesh_app, "POST", "/v1/jobs", body=body)).status == 202
    (one,) = (await call(found.mesh_app, "GET", "/v1/queue")).json()["items"]
    assert one.pop("oldest_s") >= 0
    assert one == {"capability": "echo.say@1", "high": 1, "background": 2}


async def test_the_six_metrics_are_there(found: Platform) -> None:
    answer = await call(found.mesh_app, "GET", "/metrics", as_=OPERATOR)
    text = answer.body.decode()
    for name in (
        "hivemesh_workers_active gauge",
        "hivemesh_jobs_completed_total counter",
        "hivemesh_jobs_failed_total counter",
        "hivemesh_data_processed_bytes_total counter",
        "hivemesh_data_processed_records_total counter",
        "hivemesh_processing_seconds histogram",
        "hivemesh_worker_health gauge",
    ):
        assert f"# TYPE {name}" in text
    assert 'hivemesh_workers_active{worker="echo"} 0.0' in text


async def test_the_metrics_tell_what_the_steps_of_a_worker_brought(found: Platform) -> None:
    found.counters.records_by_worker["echo"] += 70
    found.counters.bytes_by_worker["echo"] += 819
    text = (await call(found.mesh_app, "GET", "/metrics", as_=OPERATOR)).body.decode()
    assert 'hivemesh_data_processed_records_total{worker="echo"} 70.0' in text
    assert 'hivemesh_data_processed_bytes_total{worker="echo"} 819.0' in text


async def test_a_job_is_hurried_by_an_admin_in_local_mode_and_that_is_on_record(
    found: Platform,
) -> None:
    body = {"capability": "echo.say@1"}
    job = (await call(found.mesh_app, "POST", "/v1/jobs", body=body)).json()["id"]
    answer = await call(found.mesh_app, "POST", f"/v1/jobs/{job}/process", body={})
    assert (answer.status, answer.json()["id"]) == (202, job)
    trail = (await call(found.mesh_app, "GET", "/v1/audit?action=process:run")).json()["items"]
    assert [one["object"] for one in trail] == [job]


async def test_no_job_is_hurried_in_production(tmp_path: Path) -> None:
    install(tmp_path, manifest())
    phrase = {"trust.passphrase": "kX7-plover-quartz-91-weir-dune"}
    async with platform(tmp_path, mode="production", **phrase) as running:
        body = {"capability": "echo.say@1"}
        job = (await call(running.mesh_app, "POST", "/v1/jobs", body=body)).json()["id"]
        answer = await call(running.mesh_app, "POST", f"/v1/jobs/{job}/process", body={})
        assert answer.status == 404
        assert "production" in answer.json()["detail"]
