"""`make bench`: measures, prints one table and writes bench/results.json; `--help` says what there is."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path

import audit
import authorization
import corpus
import durable
import endurance
import installation
import jobs
import lists
import placing
import poison
import policy
import queues
import slow_tasks
from rows import Row, figure, keep, show

HERE = Path(__file__).resolve().parent
PYTHON = corpus.WORK / ".venv" / "bin" / "python"
MEGA = 1_000_000
PIPELINE = "email-insights"
WRITER = "hivemesh_database_writer_cpu_seconds_total"
LEAST_WATCHED = 30  # MB: a run of one second is over after three looks at its memory
MEMORY_GOALS = {
    "platform": 160,
    "email-parser": 140,
    "email-classifier": 200,
    "email-insights": 120,
}


def main() -> int:
    """Run the parts that were asked for; 0 also where a goal was missed: the table says so."""
    asked = _asked(sys.argv[1:])
    parts = PARTS | {"soak": partial(endurance.measure, minutes=asked.minutes)}
    _environment()
    rows: list[Row] = []
    for name in asked.parts or PARTS:
        print(f"\n== {name}", flush=True)
        part = list(parts[name](quick=asked.quick))
        show(part)
        rows += part
    keep(rows, HERE / "results.json")
    missed = [row.name for row in rows if row.holds is False]
    print(
        f"\n{len(rows)} figures, {len(missed)} goals missed{': ' + '; '.join(missed) if missed else ''}"
    )
    return 0


def _asked(words: list[str]) -> argparse.Namespace:
    """Read the command line; what is not a part ends the command before anything is measured."""
    parser = argparse.ArgumentParser(
        prog="bench/run.py",
        description="Measure, print one table and write bench/results.json.",
        epilog="bench/README.md says what each part measures, and against what.",
    )
    names = ", ".join(PARTS)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {names}; default: all")
    parser.add_argument("--quick", action="store_true", help="one round, without the 1 GB archive")
    parser.add_argument("--minutes", type=float, default=0.0, help="length of the soak")
    asked = parser.parse_args(words)
    if unknown := [name for name in asked.parts if name not in PARTS]:
        parser.error(f"there is no part {unknown[0]!r}; there are {names}")
    return asked


def mesh(*, quick: bool) -> Iterator[Row]:
    """(a) in an environment that has the peers."""
    result = corpus.WORK / "mesh.json"
    command = [str(PYTHON), str(HERE / "mesh" / "compare.py"), "1" if quick else "3", str(result)]
    subprocess.run(command, check=True, cwd=HERE / "mesh", stdout=subprocess.DEVNULL)
    for row in json.loads(result.read_text()):
        yield Row(**row)


def pipeline(*, quick: bool) -> Iterator[Row]:
    """(b) the whole pipeline on 50 MB against one process and the standard library."""
    command = "make bench (bench/run.py pipeline)"
    rounds = 1 if quick else 3
    archive = corpus.archive(50 * MEGA)
    walls, mesh_cpu, alone, durable = [], [], [], []
    with installation.running():
        installation.run_pipeline(PIPELINE, installation.store(corpus.archive(1 * MEGA)))  # warm
        stored = installation.store(archive)
        families = installation.processes()
        everything = [one for family in families.values() for one in family]
        for _ in range(rounds):
            alone.append(_one_process("pipeline", archive))
            before, written = installation.cpu_s(everything), installation.metric(WRITER)
            _, wall = installation.run_pipeline(PIPELINE, stored)
            mesh_cpu.append(installation.cpu_s(everything) - before)
            durable.append((installation.metric(WRITER) - written) / mesh_cpu[-1])
            walls.append(wall)
    messages = alone[0]["messages"]
    wall = statistics.median(a / b["wall_s"] for a, b in zip(walls, alone, strict=True))
    extra = statistics.median(
        1000 * (a - b["cpu_s"]) / messages for a, b in zip(mesh_cpu, alone, strict=True)
    )
    yield figure("pipeline, 50 MB, messages", messages, "", command=command)
    yield figure("pipeline, wall", statistics.median(walls), "s", command=command)
    yield figure("same functions in one process, wall", alone[0]["wall_s"], "s", command=command)
    yield figure("pipeline, wall against one process", wall, "x", "<= 1.1", command=command)
    yield figure("mesh overhead per message", extra, "CPU ms", "<= 0.15", command=command)
    share = 100 * statistics.median(durable)
    yield figure("durable overhead, share of all CPU", share, "%", "<= 3", command=command)
    yield from _parsing(archive, command, rounds=rounds)


def _parsing(archive: Path, command: str, *, rounds: int) -> Iterator[Row]:
    """The parser alone as a pipeline of one step, beside the standard library, in turn.

    All make the whole record, every header field included.
    """
    small = corpus.archive(4 * MEGA)  # `mailbox` first reads the whole file: a fair size for it
    rates, spent = [], []
    theirs: dict[str, list[dict[str, float]]] = {"compat32": [], "default": []}
    with installation.running():
        _read_only(installation.store(corpus.archive(1 * MEGA)))
        stored = installation.store(archive)
        everything = [one for family in installation.processes().values() for one in family]
        for _ in range(rounds):
            before = installation.cpu_s(everything)
            seconds, count = _read_only(stored)
            rates.append(count / seconds)
            spent.append((installation.cpu_s(everything) - before) / count)
            for name, runs in theirs.items():
                runs.append(_one_process(name, small))
    yield figure("parse over mTLS", statistics.median(rates), "messages/s", command=command)
    mean = 1000 * statistics.median(spent)
    yield figure("parse over mTLS, all processes", mean, "CPU ms", command=command)
    for name, title, goal in (
        ("compat32", "compat32", ">= 3"),
        ("default", "policy.default", ">= 20"),
    ):
        runs = theirs[name]
        mean = 1000 * statistics.median(one["cpu_s"] / one["messages"] for one in runs)
        yield figure(f"{title} making the same record", mean, "CPU ms", command=command)
        ratio = statistics.median(
            rate * one["wall_s"] / one["messages"] for rate, one in zip(rates, runs, strict=True)
        )
        yield figure(f"parse over mTLS against {title}", ratio, "x", goal, command=command)


def _read_only(reference: str) -> tuple[float, int]:
    """Run the parser on a stored archive; the seconds of its step and its records."""
    document = corpus.WORK / "parse.yaml"
    document.write_text(
        "apiVersion: hivemesh/v1\nkind: Pipeline\nmetadata: {name: bench-parse, version: 1}\n"
        "parameters: {archive: {type: artifact}}\n"
        "steps: {parse: {use: email.parse@1, "
        'with: {archive: "${{ parameters.archive }}", headers: all}}}\n'
        "outputs: {messages: parse}\n"
    )
    run, _ = installation.run_pipeline(str(document), reference)
    node = run["nodes"][0]
    started, ended = (datetime.fromisoformat(node[key]) for key in ("started_at", "ended_at"))
    return (ended - started).total_seconds(), node["records_out"]


def memory(*, quick: bool) -> Iterator[Row]:
    """(c) peak memory against input size."""
    command = "make bench (bench/run.py memory)"
    sizes = [10, 100] if quick else [10, 100, 1000]
    peaks: dict[int, dict[str, float]] = {}
    for size in sizes:
        with installation.running():
            installation.run_pipeline(PIPELINE, installation.store(corpus.archive(1 * MEGA)))
            with installation.Peaks(installation.processes()) as watched:
                stored = installation.store(corpus.archive(size * MEGA))
                for _ in range(max(1, LEAST_WATCHED // size)):
                    _, wall = installation.run_pipeline(PIPELINE, stored)
        peaks[size] = watched.mib
        yield figure(f"pipeline, {size} MB, wall", wall, "s", command=command)
        for name, mib in watched.mib.items():
            goal = f"<= {MEMORY_GOALS[name]}"
            yield figure(f"{name}, peak PSS at {size} MB", mib, "MiB", goal, command=command)
    for name in MEMORY_GOALS:
        growth = peaks[sizes[-1]][name] - peaks[sizes[0]][name]
        title = f"{name}, growth from {sizes[0]} to {sizes[-1]} MB"
        yield figure(title, growth, "MiB", "<= 20", command=command)


def footprint(*, quick: bool) -> Iterator[Row]:
    """(d) start-up and idle footprint."""
    command = "make bench (bench/run.py footprint)"
    with installation.running():
        pass  # environments are built
    rounds = 1 if quick else 3
    ready = []
    for _ in range(rounds):
        with installation.running() as seconds:
            ready.append(seconds)
            families = installation.processes()
            rss = families["platform"][0].memory_info().rss / 1024**2
            workers = {name: installation.pss_mib(families[name]) for name in installation.WORKERS}
    yield figure("hivemesh up, until ready", statistics.median(ready), "s", "<= 3", command=command)
    yield figure("platform, idle RSS", rss, "MiB", "<= 120", command=command)
    for name, mib in workers.items():
        yield figure(f"{name}, front and executor, idle PSS", mib, "MiB", "<= 100", command=command)
    demo = _seconds([installation.HIVEMESH, "demo", "email"], rounds)
    yield figure("demo on the sample, later start", demo, "s", "<= 15", command=command)
    for words, goal in ((["--help"], "<= 0.25"), (["worker", "--help"], "<= 0.35")):
        spent = _seconds([installation.HIVEMESH, *words], 5)
        yield figure(f"hivemesh {' '.join(words)}", spent, "s", goal, command=command)


def rotation(*, quick: bool) -> Iterator[Row]:
    """(e) leaves, issuers and roots change under load."""
    result = corpus.WORK / "rotation.json"
    python = str(corpus.ROOT / ".venv" / "bin" / "python")
    requests = "10000" if quick else "100000"
    command = [python, str(HERE / "rotation.py"), requests, str(result)]
    subprocess.run(command, check=True, cwd=HERE, stdout=subprocess.DEVNULL)
    for row in json.loads(result.read_text()):
        yield Row(**row)


def _seconds(command: list[str], rounds: int) -> float:
    """The median wall time of a command."""
    environment = {**os.environ, "HIVEMESH_STATE__FOLDER": str(installation.STATE)}
    spent = []
    for _ in range(rounds):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=environment, cwd=corpus.ROOT)
        spent.append(time.perf_counter() - started)
    return statistics.median(spent)


def _one_process(function: str, archive: Path) -> dict[str, float]:
    command = [str(PYTHON), str(HERE / "one_process.py"), function, str(archive)]
    return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def _environment() -> None:
    """Make bench/scratch/.venv: the peers, and all three workers' libraries in one Python.

    Two workers pin one library differently; for the one process a version is forced.
    """
    if PYTHON.exists() and (corpus.WORK / ".made").exists():
        return
    corpus.WORK.mkdir(exist_ok=True)
    override = corpus.WORK / "override.txt"
    override.write_text("charset-normalizer==3.3.2\n")
    uv = str(corpus.ROOT / ".venv" / "bin" / "uv")
    subprocess.run([uv, "venv", "-q", "--clear", str(PYTHON.parent.parent)], check=True)
    editable = ["plugin-sdk", *(f"workers/{name}" for name in installation.WORKERS)]
    command = [uv, "pip", "install", "-q", "--python", str(PYTHON), "--override", str(override)]
    command += ["-r", str(HERE / "requirements.txt"), "psutil", "pytest"]
    command += [word for name in editable for word in ("-e", str(corpus.ROOT / name))]
    subprocess.run(command, check=True)
    (corpus.WORK / ".made").touch()


PARTS = {
    "mesh": mesh,
    "pipeline": pipeline,
    "memory": memory,
    "footprint": footprint,
    "rotation": rotation,
    "audit": audit.measure,
    "authorization": authorization.measure,
    "policy": policy.measure,
    "peers": queues.measure,
    "throughput": durable.measure,
    "soak": endurance.measure,
    "routing": placing.routing,
    "api": placing.api,
    "lists": lists.measure,
    "slow": slow_tasks.measure,
    "poison": poison.measure,
    "jobs": jobs.measure,
}

if __name__ == "__main__":
    sys.exit(main())
