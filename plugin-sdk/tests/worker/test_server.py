"""The shell: status, manifest, metrics, commands, and how a worker drains."""

import asyncio
import json

import msgspec
import pytest
from hivemesh_sdk.contracts.steps import WorkerStatus
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs
from worker_harness import NEIGHBOUR, OPERATOR, PLATFORM, ask, serving, until


async def command(sample, name, who=PLATFORM):
    body = json.dumps({"command": name}).encode()
    return await ask(sample.server.app, "POST", "/v1/commands", body=body, who=who)


@pytest.fixture
async def cold(tmp_path):
    """The sample worker before its first executor."""
    async with serving(tmp_path, warm=False) as sample:
        yield sample


@pytest.mark.parametrize("path", ["/", "/v1/status"])
async def test_status_tells_slots_and_executions(cold, path):
    answer = await cold.get(path)
    status = msgspec.json.decode(answer.body, type=WorkerStatus)
    assert (status.worker, status.instance, status.protocol) == ("sample", "i1", 1)
    assert status.slots["sample.echo@1"].total == 1


async def test_the_manifest_is_served_as_json(cold):
    document = json.loads((await cold.get("/v1/manifest")).body)
    assert document == cold.server.manifest.document()


@pytest.mark.parametrize("path", ["/", "/v1/status", "/v1/manifest", "/metrics", "/openapi.json"])
async def test_people_may_look_and_workers_may_not(cold, path):
    assert (await cold.get(path, who=OPERATOR)).status == 200
    assert (await cold.get(path, who=NEIGHBOUR)).status == 403
    assert (await cold.get(path, who=None)).status == 401


async def test_the_description_covers_the_steps(cold):
    document = json.loads((await cold.get("/openapi.json")).body)
    assert {"/v1/status", "/v1/steps/{key}", "/v1/steps/{key}/events"} <= set(document["paths"])


async def test_only_the_platform_commands(cold):
    assert (await command(cold, "drain", OPERATOR)).status == 403
    assert not cold.server.draining


async def test_drain_refuses_new_steps(cold):
    assert (await command(cold, "drain")).status == 202
    answer = await cold.put("sample.echo@1", inputs=[b"{}"])
    assert (answer.status, answer.slug) == (503, "draining")
    assert answer.headers["retry-after"]


@pytest.mark.parametrize("body", [b"", b"{}", b'{"command":"explode"}', b"[]"])
async def test_a_wrong_command_is_refused(cold, body):
    answer = await ask(cold.server.app, "POST", "/v1/commands", body=body)
    assert answer.status in {400, 422}
    assert answer.headers["content-type"] == "application/problem+json"


async def test_what_is_not_there_is_a_problem(cold):
    assert (await cold.get("/v1/nothing")).slug == "not-found"
    assert (await ask(cold.server.app, "PUT", "/v1/status")).slug == "method-not-allowed"


async def test_metrics_count_steps_by_capability(cold):
    await cold.put("sample.echo@1", inputs=[b"{}"])
    text = (await cold.get("/metrics")).body.decode()
    samples = {
        (one.name, one.labels.get("capability"), one.labels.get("le")): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }
    assert samples["hivemesh_worker_steps_started_total", "sample.echo@1", None] == 1
    assert samples["hivemesh_worker_step_seconds_bucket", "sample.echo@1", "+Inf"] == 1
    assert samples["hivemesh_worker_slots", "sample.echo@1", None] == 1
    assert samples["hivemesh_worker_executor_crashes_total", None, None] == 0


async def test_drain_waits_for_running_steps(cold):
    flag = cold.folder / "flag"
    task = asyncio.create_task(
        cold.put("sample.wait@1", key="r.s.1", parameters={"path": str(flag)})
    )
    await until(flag.exists)
    drained = asyncio.create_task(cold.server.drain(30.0))
    await until(lambda: cold.server.draining)
    assert not drained.done()
    await cold.delete("r.s.1")
    assert (await task).failure
    await drained
    assert not cold.server.busy


async def test_drain_ends_what_does_not_end(cold):
    flag = cold.folder / "flag"
    task = asyncio.create_task(cold.put("sample.wait@1", parameters={"path": str(flag)}))
    await until(flag.exists)
    await cold.server.drain(0.0)
    assert (await task).failure.type.endswith(":draining")


async def test_time_goes_on_behind_a_fault_that_is_told_once(cold, monkeypatch):
    tick, faults = cold.server._table.tick, []

    def faulty():
        if len(faults) < 3:
            faults.append(1)
            raise RuntimeError
        tick()

    monkeypatch.setattr(cold.server._table, "tick", faulty)
    with capture_logs() as lines:
        flag = {"path": str(cold.folder / "flag")}
        answer = await cold.put("sample.wait@1", deadline_ms=100, parameters=flag)
    assert answer.failure.type.endswith(":deadline-exceeded")
    assert [one["event"] for one in lines].count("tick_failed") == 1
