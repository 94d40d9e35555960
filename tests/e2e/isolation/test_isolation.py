"""Workers keep out of each other's way, and nothing is left behind."""

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from chaos_figures import record
from hivemesh_platform.supervisor.records import Records
from mail import submit, write_mbox
from whole_platform import COMMAND, ROOT, Installation, group_of, reachable, until

pytestmark = pytest.mark.e2e

READY_S, DOWN_S = 3.0, 2.0
STATUS_MS, ASKED = 50.0, 60  # the slowest of twenty answers, and how often it is asked
PARSER, CLASSIFIER = ROOT / "workers" / "email-parser", ROOT / "workers" / "email-classifier"
CRASHING = """
apiVersion: hivemesh/v1
kind: Worker
metadata: {name: crashing, version: 0.1.0, publisher: tests, description: Ends at once.,
           license: Apache-2.0}
platform: ">=0.1,<1"
runtime: {entrypoint: "worker_crashing.main:worker"}
capabilities:
  - {id: crash.now@1, kind: call, run_in: inline, input: {}, output: {}}
"""
CRASHING_PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "hivemesh-worker-crashing"
version = "0.1.0"
dependencies = ["hivemesh-sdk"]
[tool.hatch.build.targets.wheel]
packages = ["src/worker_crashing"]
"""


def processes_of(installation: Installation) -> set[int]:
    """All processes of the installation's workers."""
    records = Records(installation.state / "run").all()
    return {pid for record in records for pid in group_of(record.pid)}


def alive(pids: set[int]) -> set[int]:
    return {pid for pid in pids if Path(f"/proc/{pid}/cwd").exists()}


def environment_of(pid: int) -> Path:
    python = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0]
    return Path(python).parents[1]


def charset_normalizer(environment: Path) -> str:
    found = next(environment.glob("lib/python*/site-packages/charset_normalizer-*.dist-info"))
    return found.name.removesuffix(".dist-info").partition("-")[2]


def test_workers_with_incompatible_pins_run_side_by_side(install) -> None:
    installation = install(workers=[PARSER, CLASSIFIER])
    installation.start()
    installation.until_live()
    versions = {
        worker: charset_normalizer(environment_of(installation.instances(worker)[0].pid))
        for worker in ("email-parser", "email-classifier")
    }
    assert versions["email-parser"] != versions["email-classifier"]


@pytest.mark.recorded
def test_a_crash_loop_leaves_the_others_alone(install, tmp_path: Path) -> None:
    crashing = tmp_path / "crashing"
    package = crashing / "src" / "worker_crashing"
    package.mkdir(parents=True)
    (crashing / "plugin.yaml").write_text(CRASHING)
    (crashing / "pyproject.toml").write_text(CRASHING_PROJECT)
    (package / "__init__.py").touch()
    (package / "main.py").write_text("raise SystemExit(3)\n")
    installation = install(workers=[ROOT / "workers", crashing])
    installation.start()

    def looping() -> bool:
        with installation.client() as client:
            return client.worker("crashing").state == "crash-loop"

    until(looping, 180, "the crash loop was noticed")
    run = submit(installation, write_mbox(tmp_path / "mail.mbox", 500))
    assert installation.until_ended(run).state == "completed"
    with installation.client() as client:

        def others_are_well() -> bool:
            others = [one for one in client.workers() if one.name != "crashing"]
            well = [i.health and i.health.overall for one in others for i in one.instances]
            return all(well) and {one.state for one in others} == {"live"}

        until(others_are_well, 60, "the others are live and healthy")
        workers = {one.name: one for one in client.workers()}
        took = [seconds(client.status) for _ in range(ASKED)]
    assert workers.pop("crashing").state == "crash-loop"
    assert {(len(one.instances), one.instances[0].restarts) for one in workers.values()} == {(1, 0)}
    p95 = 1000 * sorted(took)[int(ASKED * 0.95)]
    record("crash loop: p95 of a status beside it", p95, "ms", STATUS_MS, holds=p95 <= STATUS_MS)


def test_workers_are_scaled_up_and_down(install) -> None:
    installation = install(workers=[CLASSIFIER])
    installation.start()
    installation.until_live()
    result = installation.run_command("worker", "scale", "email-classifier", "3")
    assert result.returncode == 0, result.stderr
    until(lambda: len(installation.instances("email-classifier")) == 3, 120, "three live")
    with installation.client() as client:
        client.scale("email-classifier", 1)
    until(lambda: len(installation.instances("email-classifier")) == 1, 120, "one live")


def test_workers_end_by_themselves_when_they_are_left_alone(install, tmp_path: Path) -> None:
    installation = install("workers.alone_s=3", "execution.batch_records=50")
    installation.start()
    installation.until_live()
    run = submit(installation, write_mbox(tmp_path / "mail.mbox", 3000))
    until(lambda: installation.node(run, "classify").records_out, 120, "the run is going on")
    processes = processes_of(installation)
    assert len(processes) >= 6  # a front and an executor for each worker
    installation.kill()
    until(lambda: not alive(processes), 120, "all processes of the workers have ended")


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_down_is_quick_and_leaves_nothing_outside_the_state_folder(install) -> None:
    installation = install(workers=[PARSER])
    assert installation.run_command("up", "-d", *installation.flags).returncode == 0
    installation.until_live()
    processes = processes_of(installation)
    elsewhere = installation.state.parent / "home"
    assert not files_below(elsewhere)
    with installation.client() as follower:
        follower.status()  # a connection that stays open must not delay the end
        result = installation.run_command("down")
    assert result.returncode == 0
    assert not alive(processes)
    assert not reachable(installation)
    assert not files_below(elsewhere)


def test_ctrl_c_ends_everything(install) -> None:
    installation = install(workers=[PARSER])
    with subprocess.Popen(
        [COMMAND, "up", "--state", str(installation.state), *installation.flags],
        cwd=ROOT,
        env=installation._environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as up:
        until(lambda: reachable(installation), 120, "the platform answers")
        installation.until_live()
        processes = processes_of(installation)
        up.send_signal(signal.SIGINT)
        assert up.wait(120) == 0
    assert not alive(processes)


@pytest.mark.chaos
def test_start_and_end_are_measured(install) -> None:
    installation = install()
    installation.start()
    installation.stop()  # from now on the folder is prepared
    ready = seconds(installation.start)
    record("hivemesh up: ready", ready, "s", READY_S, holds=ready <= READY_S)
    installation.until_live()
    down = seconds(lambda: installation.run_command("down"))
    record("hivemesh down when idle", down, "s", DOWN_S, holds=down <= DOWN_S)


def seconds(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return round(time.monotonic() - started, 4)
