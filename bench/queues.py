"""Jobs in thousands, beside Celery on Redis, procrastinate on PostgreSQL and Temporal's development server.

All of one round run in turn on the same machine, none while another does.
"""

import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import corpus
import noop
from hivemesh_sdk.client import Client
from hivemesh_sdk.contracts.api import BatchView
from rows import Row, figure

COMMAND = "make bench (bench/run.py peers)"
HERE = Path(__file__).resolve().parent / "peers"
PYTHON = corpus.WORK / "peers" / "bin" / "python"
CORES = 2
BUSY_S = 0.005
Found = dict[str, object]


def measure(*, quick: bool) -> Iterator[Row]:
    """The rows of this part."""
    _environment()
    jobs, busy, calls = (2000, 400, 50) if quick else (10_000, 2000, 200)
    temporal = 200 if quick else 500  # a workflow each: a hundredth of the others' rate
    with noop.server() as server:
        found = {
            "hivemesh on SQLite": (jobs, _ours("", jobs, busy, calls)),
            "Celery on Redis": (jobs, _peer("celery_side.py", CORES, jobs, busy, calls)),
            "Temporal, workflows of one activity": (
                temporal, _peer("temporal_side.py", temporal, temporal, min(calls, 50))
            ),
        }  # fmt: skip
        one_process = float(_peer("celery_side.py", 1, jobs, 0, 0)["noop_s"])
        if server is not None:
            address = server.address(server.new_database())
            ours = _ours(address, jobs, busy, calls)
            found["hivemesh on PostgreSQL"] = (jobs, ours)
            address = server.address(server.new_database())
            theirs = _peer("procrastinate_side.py", jobs, busy, calls, address)
            found["procrastinate on PostgreSQL"] = (jobs, theirs)
    for name, (count, one) in found.items():
        yield from _rows(name, count, temporal if count == temporal else busy, one)
    celery = float(found["Celery on Redis"][1]["noop_s"])
    yield figure(
        "Celery on Redis, one process: jobs that do nothing",
        jobs / one_process, "jobs/s", command=COMMAND,
    )  # fmt: skip
    for kind, goal in (("SQLite", 30), ("PostgreSQL", 15)):
        if f"hivemesh on {kind}" in found:
            ours = found[f"hivemesh on {kind}"][1]
            title = f"jobs that do nothing, {kind} against Celery"
            for name, ratio in (
                ("one process each", one_process / float(ours["singly_s"])),
                ("two processes each", celery / float(ours["noop_s"])),
            ):
                yield figure(f"{title}, {name}", ratio, "x", f">= {goal}", command=COMMAND)


def _rows(name: str, jobs: int, busy: int, found: Found) -> Iterator[Row]:
    is_ours = name.startswith("hivemesh")
    waits = sorted(1000 * wait for wait in found["waits"])
    p99 = waits[int(0.99 * (len(waits) - 1))]
    goals = ("<= 8", "<= 20", "<= 0.3", ">= 70") if is_ours else ("", "", "", "")
    title = f"{name}: submit to first instruction"
    yield figure(f"{title}, p50", statistics.median(waits), "ms", goals[0], command=COMMAND)
    yield figure(f"{title}, p99", p99, "ms", goals[1], command=COMMAND)
    submit = float(found["noop_submit_s"])
    yield figure(f"{name}: {jobs} jobs submitted", submit, "s", goals[2], command=COMMAND)
    rate = jobs / float(found["noop_s"])
    yield figure(f"{name}: jobs that do nothing", rate, "jobs/s", command=COMMAND)
    share = 100 * busy * BUSY_S / (CORES * float(found["busy_s"]))
    title = f"{name}: jobs of 5 ms, share of two cores"
    yield figure(title, share, "%", goals[3], command=COMMAND)


def _ours(database: str, jobs: int, busy: int, calls: int) -> Found:
    with noop.running(database) as client:
        for number in range(20):  # connections, executors
            client.call("noop.when@1", number)
        waits = []
        for number in range(calls):
            sent = time.time()
            job = client.call("noop.when@1", number)
            waits.append(json.loads(b"".join(client.output(job.id, "result"))) - sent)
        found: Found = {"waits": waits}
        for name, capability, count in (
            ("noop", "noop.do@1", jobs),
            ("singly", "noop.do_singly@1", jobs),
            ("busy", "noop.busy@1", busy),
        ):
            client.call(capability, 0)  # as Celery's side begins with one
            started = time.perf_counter()
            batch = client.submit_batch(capability, range(count))
            found[f"{name}_submit_s"] = time.perf_counter() - started
            _until_done(client, batch)
            found[f"{name}_s"] = time.perf_counter() - started
        return found


def _until_done(client: Client, batch: BatchView) -> None:
    while client.batch(batch.id).open:
        time.sleep(0.02)
    states = client.batch(batch.id).states
    if set(states) != {"completed"}:
        raise RuntimeError(states)


def _peer(script: str, *numbers: object) -> Found:
    """Run a peer's side in a folder of its own; what it prints last is what it measured."""
    corpus.WORK.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="peer-") as folder:  # a socket's path is short
        command = [str(PYTHON), str(HERE / script), folder, *map(str, numbers)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=HERE)
    return json.loads(done.stdout.splitlines()[-1])


def _environment() -> None:
    """Make bench/scratch/peers, with the servers that the packages bring."""
    if (PYTHON.parent.parent / ".made").exists():
        return
    uv = str(corpus.ROOT / ".venv" / "bin" / "uv")
    subprocess.run([uv, "venv", "-q", "--clear", str(PYTHON.parent.parent)], check=True)
    command = [uv, "pip", "install", "-q", "--python", str(PYTHON)]
    subprocess.run([*command, "-r", str(HERE / "requirements.txt")], check=True)
    (PYTHON.parent.parent / ".made").touch()
