"""A real installation in bench/scratch: started as a user does, its processes watched from outside."""

import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from corpus import ROOT, WORK
from hivemesh_sdk.client import Client

HIVEMESH = str(ROOT / ".venv" / "bin" / "hivemesh")
STATE = WORK / "state"
WORKERS = ("email-parser", "email-classifier", "email-insights")
FREE_PORTS = ["--set", "api.port=0", "--set", "api.enrolment_port=0"]


def command(*words: str, state: Path = STATE) -> str:
    """Run `hivemesh` on the installation and return what it prints."""
    environment = {**os.environ, "HIVEMESH_STATE__FOLDER": str(state)}
    done = subprocess.run(
        [HIVEMESH, *words], capture_output=True, text=True, check=False, env=environment, cwd=ROOT
    )
    if done.returncode:
        raise RuntimeError(f"hivemesh {' '.join(words)}: {done.stderr}")
    return done.stdout


@contextmanager
def running(*settings: str, state: Path = STATE) -> Iterator[float]:
    """A started installation with all workers live; yields the seconds until it was ready."""
    started = time.perf_counter()
    words = [word for setting in settings for word in ("--set", setting)]
    command("up", "-d", *FREE_PORTS, *words, state=state)
    ready = time.perf_counter() - started
    try:
        _until_live(state)
        yield ready
    finally:
        command("down", state=state)


def store(archive: Path) -> str:
    """Store the archive; its reference as JSON."""
    stored = json.loads(command("artifact", "put", str(archive), "-o", "json"))
    return json.dumps({key: stored[key] for key in ("sha256", "size", "media_type", "name")})


def run_pipeline(pipeline: str, reference: str) -> tuple[dict, float]:
    """Run a pipeline on a stored archive; the run and the seconds it took, command included."""
    started = time.perf_counter()
    words = ("pipeline", "run", pipeline, "-p", f"archive={reference}", "-o", "json")
    run = json.loads(command(*words))
    if run["state"] != "completed":
        raise RuntimeError(run)
    return run, time.perf_counter() - started


def processes() -> dict[str, list[psutil.Process]]:
    """The processes of the installation: platform, and each worker's front and executors."""
    found: dict[str, list[psutil.Process]] = {"platform": []}
    status = json.loads(command("status", "-o", "json"))
    found["platform"].append(psutil.Process(status["pid"]))
    for worker in status["workers"]:
        fronts = [psutil.Process(one["pid"]) for one in worker["instances"] if one["pid"]]
        found[worker["name"]] = [
            one for front in fronts for one in (front, *front.children(recursive=True))
        ]
    return found


def metric(name: str) -> float:
    """One metric of the platform that has no labels."""
    with Client.from_state(STATE) as client:
        found = re.search(rf"^{name} (\S+)$", client.metrics(), re.MULTILINE)
    if found is None:
        raise RuntimeError(name)
    return float(found[1])


def cpu_s(family: list[psutil.Process]) -> float:
    """CPU seconds that processes have used."""
    return sum(sum(one.cpu_times()[:2]) for one in family if one.is_running())


def pss_mib(family: list[psutil.Process]) -> float:
    """Proportional set size of processes together."""
    total = 0
    for one in family:
        try:
            for line in Path(f"/proc/{one.pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        except OSError:
            continue  # it has ended
    return total / 1024


class Peaks:
    """Samples the memory of process families while something runs."""

    def __init__(self, families: dict[str, list[psutil.Process]]) -> None:
        self.mib = dict.fromkeys(families, 0.0)
        self._families = families
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> "Peaks":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(0.3):
            for name, family in self._families.items():
                self.mib[name] = max(self.mib[name], pss_mib(family))


def _until_live(state: Path) -> None:
    for _ in range(600):
        workers = json.loads(command("worker", "list", "-o", "json", state=state))
        if all(one["live"] >= one["wanted"] for one in workers):
            return
        time.sleep(0.2)
    raise RuntimeError("the workers did not become live")
