"""A graph of pipelines on a real platform that is killed in the middle, and jobs by the command."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from whole_platform import ROOT, Installation, Shared, installed, until

pytestmark = pytest.mark.e2e

WORKER = ROOT / "tests/support/workers/hostile"
RECORDS = 200_000


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, shared: Shared) -> Iterator[Installation]:
    with installed(tmp_path_factory.mktemp("graphs"), shared, workers=[WORKER]) as found:
        found.start()
        found.until_live()
        yield found


def written(folder: Path, name: str, steps: dict[str, object], **others: object) -> Path:
    document = {
        "apiVersion": "hivemesh/v1",
        "kind": "Pipeline",
        "metadata": {"name": name, "version": 1},
        "steps": steps,
        **others,
    }
    file = folder / f"{name}.yaml"
    file.write_text(json.dumps(document))
    return file


def said(running: Installation, *words: str, code: int = 0) -> object:
    done = running.run_command(*words, "-o", "json")
    assert done.returncode == code, (done.stdout, done.stderr)
    return json.loads(done.stdout)


def figures_tell_of(running: Installation) -> None:
    """What the metrics have counted of a run that has just ended, most of it since a restart."""
    assert running.metric('hivemesh_jobs_completed_total{kind="run"}') >= 1
    assert running.metric("hivemesh_processing_seconds_count") >= 1
    assert running.metric('hivemesh_data_processed_bytes_total{worker="hostile"}') > 0
    for name in ("hivemesh_workers_active", "hivemesh_worker_health"):
        of_worker = name + '{worker="hostile"}'
        until(lambda line=of_worker: running.metric(line) == 1, 60, of_worker)


def test_a_graph_survives_a_kill_and_a_failed_branch_is_retried(
    tmp_path: Path, running: Installation
) -> None:
    squares = {
        "count": {"use": "hostile.count@1", "with": {"size": RECORDS}},
        "square": {"use": "hostile.square@1", "map": "count"},
    }
    inner = written(tmp_path, "inner", squares, outputs={"squares": "square"})
    said(running, "pipeline", "store", str(inner))
    outer = written(
        tmp_path,
        "outer",
        {
            "part": {"use": "pipeline/inner@1"},
            "never": {"use": "hostile.echo@1", "when": "${{ exists(part.nothing) }}"},
            "last": {"use": "hostile.echo@1", "needs": ["part"], "on_error": "skip"},
        },
    )
    run = said(running, "pipeline", "run", str(outer), "--no-wait")
    child = ""
    with running.client() as client:
        for view in client.watch(run["id"]):
            child = view.nodes[0].child
            if child:
                break
    running.kill()
    running.start()
    running.until_live()
    view = running.until_ended(run["id"])
    states = {node.name: node.state.value for node in view.nodes}
    assert states["part"] == "completed"
    assert states["never"] == "skipped"
    assert view.nodes[0].child == child
    with running.client() as client:
        lines = b"".join(client.output(child, "squares")).splitlines()
    assert [json.loads(line)["n"] for line in lines] == [n * n for n in range(RECORDS)]
    figures_tell_of(running)


def test_jobs_by_the_command(running: Installation) -> None:
    types = said(running, "job", "types")
    assert "hostile.echo@1" in {one["id"] for one in types}
    job = said(running, "worker", "call", "hostile.echo@1", code=1)
    assert job["state"] == "failed"
    assert said(running, "job", "list", "--in", "failed")[0]["id"] == job["id"]
    assert running.metric('hivemesh_jobs_failed_total{kind="job"}') == 1
    assert said(running, "job", "show", job["id"])["id"] == job["id"]
    assert said(running, "job", "explain", job["id"])[0]["attempt"] == 1
    said(running, "job", "retry", job["id"], "--wait", code=1)
    assert said(running, "job", "show", job["id"])["nodes"][0]["attempts"] >= 2
    waits = said(running, "job", "submit", "hostile.echo@1", "--require", "gpu=true")
    [found] = said(running, "job", "explain", waits["id"])
    assert (found["chosen"], found["attempt"]) == (None, 0)
    assert found["reason"] == "no live instance satisfies gpu=true"
    [candidate] = found["candidates"]
    assert candidate["unmet"] == "gpu=true"
    assert abs(candidate["score"] - sum(candidate["parts"].values())) < 0.001
    table = running.run_command("job", "explain", waits["id"]).stdout
    assert table.splitlines()[-1].split()[0] == candidate["instance"]
