"""Jobs on a real platform: by the command in hundreds, and those that steps start."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from whole_platform import ROOT, Installation, Shared, installed, until

pytestmark = pytest.mark.e2e

WORKERS = [ROOT / "tests" / "support" / "workers" / name for name in ("converter", "notary")]
COUNT = "sheet.count@1"
NOTARIES = 3
SIZES = {
    "apiVersion": "hivemesh/v1",
    "kind": "Pipeline",
    "metadata": {"name": "sizes", "version": 1},
    "parameters": {"sheet": {"type": "artifact"}},
    "steps": {"size": {"use": "sheet.size@1", "with": {"sheet": "${{ parameters.sheet }}"}}},
    "outputs": {"length": "size.length"},
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, shared: Shared) -> Iterator[Installation]:
    folder, three = tmp_path_factory.mktemp("jobs"), f'workers.instances={{"notary": {NOTARIES}}}'
    with installed(folder, shared, three, workers=WORKERS) as found:
        found.start()
        found.until_live()
        yield found


def said(running: Installation, *words: str, code: int = 0) -> object:
    done = running.run_command(*words, "-o", "json")
    assert done.returncode == code, (done.stdout, done.stderr)
    return json.loads(done.stdout)


def lines(folder: Path, count: int) -> str:
    """A file of inputs; the last one cannot be worked on."""
    numbered = [{"file": str(folder / "noted"), "number": n} for n in range(count)]
    broken = {"file": str(folder / "no" / "such" / "folder"), "number": -1}
    file = folder / "many.ndjson"
    file.write_text("\n".join(map(json.dumps, [*numbered, broken])) + "\n")
    return str(file)


def done_at(running: Installation, instance: str, jobs: str) -> list[str]:
    """The keys of these jobs' attempts that have ended well at an instance."""
    with running.client() as client:
        tried = client.attempts_at(instance, limit=1000)
    return [one.key for one in tried if one.key.startswith(jobs) and one.outcome == "completed"]


def test_many_jobs_by_the_command(running: Installation, tmp_path: Path) -> None:
    label = f"test={tmp_path.name}"
    words = ("job", "submit", COUNT, "--file", lines(tmp_path, 300), "--label", label)
    done = said(running, *words, "--priority", "7", "--max-retries", "0", "--wait", code=6)
    assert done["states"] == {"completed": 300, "failed": 1}
    batch = done["id"]
    [listed] = said(running, "job", "batch", "list", "--label", label)
    assert (listed["id"], listed["count"], listed["open"]) == (batch, 301, 0)
    [failed] = said(running, "job", "list", "--batch", batch, "--in", "failed")
    assert (failed["batch"], failed["labels"]) == (batch, {"test": tmp_path.name})
    (tmp_path / "no" / "such" / "folder").parent.mkdir(parents=True)
    said(running, "job", "retry", "--batch", batch, "--failed")
    assert said(running, "job", "batch", "watch", batch)["states"] == {"completed": 301}
    results = running.run_command("job", "batch", "results", batch).stdout.splitlines()
    assert [json.loads(line)["result"] for line in results] == [*range(300), -1]
    assert sorted(map(int, (tmp_path / "noted").read_text().splitlines())) == list(range(300))
    jobs = batch.replace("batch_", "job_")
    ended = [done_at(running, one.id, jobs) for one in running.instances("notary")]
    assert len(ended) == NOTARIES
    assert sorted(job for at_one in ended for job in at_one) == sorted(
        f"{jobs}-{number:06d}.job.0" for number in range(1, 302)
    )
    assert sum(map(bool, ended)) > 1


def test_a_batch_is_cancelled_while_some_of_it_runs(running: Installation, tmp_path: Path) -> None:
    many = {"file": str(tmp_path / "noted"), "times": 1000, "pause_s": 0.1}
    with running.client() as client:
        batch = client.submit_batch("sheet.convert_many@1", [many] * 20)
        until(lambda: "running" in client.batch(batch.id).states, 120, "a running job")
        assert client.cancel_batch(batch.id).states == {"cancelled": 20}
    [job] = said(running, "job", "list", "--batch", batch.id, "--limit", "1")
    assert job["state"] == "cancelled"
    with running.client() as client:
        free = client.submit_batch("sheet.convert_many@1", [{**many, "times": 1}] * 4)
    assert said(running, "job", "batch", "watch", free.id)["states"] == {"completed": 4}


def test_what_a_step_starts_is_started_once_though_it_is_tried_twice(
    running: Installation, tmp_path: Path
) -> None:
    with running.client() as client:
        client.store_pipeline(SIZES)
        stored = client.put_artifact(io.BytesIO(b"a sheet"))
        sheet = {"sha256": stored.sha256, "size": stored.size}
        filed = client.submit("sheet.file@1", {"sheet": sheet, "file": str(tmp_path / "noted")})
        view = running.until_ended(filed.id)
        assert view.state.value == "completed", view.problem
        result = json.loads(b"".join(client.output(filed.id, "result")))
        assert set((tmp_path / "noted").read_text().splitlines()) == {
            f"{result['job']} {result['run']}"
        }
        assert view.nodes[0].attempts == 2
        assert {one.id for one in client.runs({"label": "filed=yes"})} == set(result.values())
        job, run = running.until_ended(result["job"]), running.until_ended(result["run"])
        assert (job.state.value, run.state.value) == ("completed", "completed"), run.problem
        assert job.submitted_by.startswith(f"{filed.id}.job.0.submit-")
        assert (job.submitter, run.submitter) == (filed.submitter, filed.submitter)
        assert b"".join(client.output(run.id, "length")) == b"7"
