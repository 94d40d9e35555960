"""Real processes that die, hang and block: what is lost of it, and what is not."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from chaos_figures import record
from hivemesh_sdk.contracts.api import JobRequest, RunState
from whole_platform import ROOT, Installation, Shared, installed, until

pytestmark = pytest.mark.e2e

WORKER = ROOT / "tests/support/workers/hostile"
GRACE_S = 5.0
RECORDS = 1000


@pytest.fixture
def running(tmp_path: Path, shared: Shared) -> Iterator[Installation]:
    with installed(tmp_path / "i", shared, workers=[WORKER]) as found:
        found.start()
        found.until_live()
        yield found


def squares(records: int, **poison: object) -> dict[str, object]:
    return {
        "apiVersion": "hivemesh/v1",
        "kind": "Pipeline",
        "metadata": {"name": "squares", "version": 1},
        "steps": {
            "count": {"use": "hostile.count@1", "with": {"size": records}},
            "square": {"use": "hostile.square@1", "map": "count", "with": poison},
        },
        "outputs": {"squares": "square"},
    }


def start(installation: Installation, document: dict[str, object]) -> str:
    with installation.client() as client:
        return client.start_run(document).id


def job(installation: Installation, capability: str, value: object = None) -> str:
    with installation.client() as client:
        return client.call(capability, value, wait_s=0).id


def slots_in_use(installation: Installation) -> int:
    return installation.instances("hostile")[0].active.get("hostile.hold@1", 0)


def numbers(installation: Installation, run: str) -> list[int]:
    with installation.client() as client:
        lines = b"".join(client.output(run, "squares")).splitlines()
    return [json.loads(line)["n"] for line in lines]


@pytest.mark.parametrize(("dies", "records"), [("executor", RECORDS), ("worker", 4)])
def test_only_the_record_that_kills_is_given_up_and_works_once_it_is_mended(
    running: Installation, tmp_path: Path, dies: str, records: int
) -> None:
    mended = tmp_path / "mended"
    run = start(
        running, squares(records, number=3, whole_worker=dies == "worker", mended=str(mended))
    )
    ended = running.until_ended(run, within_s=150)
    assert ended.state is RunState.PARTIAL, ended
    assert numbers(running, run) == [n**2 for n in range(records) if n != 3]
    shown = running.run_command("dead-letter", "list", "-o", "json")
    [letter] = json.loads(shown.stdout)
    assert (letter["cause"], letter["records"], letter["capability"]) == (
        "crashes",
        1,
        "hostile.square@1",
    )
    given_up = running.run_command("dead-letter", "show", letter["id"], "--input")
    assert json.loads(given_up.stdout) == {"n": 3}
    mended.touch()
    retried = running.run_command("dead-letter", "retry", letter["id"], "-o", "json")
    [replay] = json.loads(retried.stdout)
    again = running.until_ended(replay["job"])
    assert again.state is RunState.COMPLETED, again
    assert again.outputs["result"] == [{"n": 9}]
    assert running.run_command("dead-letter", "retry", letter["id"]).returncode == 5


def test_a_cancelled_computation_in_c_is_ended_after_the_grace_and_nobody_else(
    running: Installation, tmp_path: Path
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    held = job(running, "hostile.hold@1", {"path": str(one)})
    beside = job(running, "hostile.hold@1", {"path": str(other)})
    until(lambda: one.exists() and other.exists(), 60, "both compute")
    [before] = running.instances("hostile")
    with running.client() as client:
        client.cancel(held)
    assert running.run(held).state is RunState.CANCELLED
    until(lambda: slots_in_use(running) == 1, GRACE_S + 30, "its process was ended")
    assert running.run(beside).state is RunState.RUNNING
    assert [one.id for one in running.instances("hostile")] == [before.id]
    with running.client() as client:
        client.cancel(beside)


def test_an_instance_whose_inline_step_does_not_stop_is_replaced(
    running: Installation, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    blocked = job(running, "hostile.block@1", {"path": str(flag)})
    until(flag.exists, 60, "it blocks")
    [before] = running.instances("hostile")
    with running.client() as client:
        client.cancel(blocked)

    def replaced() -> bool:
        live = running.instances("hostile")
        return bool(live) and before.pid not in {one.pid for one in live}

    until(replaced, GRACE_S + 60, "another process serves")
    value = {"a": 1}
    with running.client() as client:
        assert client.call("hostile.echo@1", value).outputs["result"] == value
        assert client.dead_letters() == []


@pytest.mark.parametrize(
    ("seconds", "least"),
    [(1.5, 0.3), pytest.param(8.0, 0.7, marks=pytest.mark.chaos)],  # 0.95 on a quiet machine
)
def test_the_others_keep_their_throughput_beside_a_poisoned_batch(
    running: Installation, seconds: float, least: float
) -> None:
    """Jobs per second alone and beside a batch that kills its executors, in one run."""

    def measured(seconds: float) -> float:
        began, count = time.monotonic(), 0
        with running.client() as client:
            while time.monotonic() - began < seconds:
                assert client.call("hostile.echo@1", {"n": count}).state is RunState.COMPLETED
                count += 1
        return count / (time.monotonic() - began)

    measured(seconds / 4)
    before = measured(seconds)
    run = start(running, squares(RECORDS, number=7))
    beside = measured(2 * seconds)
    ended = running.until_ended(run).state
    after = measured(seconds)
    ratio = beside / ((before + after) / 2)
    print(f"before {before:.0f}/s, beside {beside:.0f}/s, after {after:.0f}/s: {ratio:.2f}")  # noqa: T201 - the figure
    name = "poison: throughput of the others beside it"
    record(name, ratio, "of alone", 0.95, holds=ratio >= 0.95)
    assert ended is RunState.PARTIAL
    assert ratio > least


def test_a_deadline_of_a_call_holds_from_end_to_end(running: Installation, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    [before] = running.instances("hostile")
    request = JobRequest(
        capability="hostile.hold@1",
        input={"path": str(flag)},
        deadline_s=1.0,
        max_retries=1,
    )
    with running.client() as client:
        body = request.model_dump(mode="json", exclude_unset=True)
        view = json.loads(client._read("POST", "/v1/jobs", body))
    ended = running.until_ended(view["id"], within_s=60)
    assert ended.state is RunState.FAILED
    assert str(ended.problem["code"]) == "HM-1208"
    with running.client() as client:
        assert [one.outcome for one in client.attempts(view["id"])] == ["failed", "failed"]
    overran = list(map(int, flag.read_text().split())) if flag.exists() else []
    until(lambda: not any(map(psutil.pid_exists, overran)), GRACE_S + 30, "its processes ended")
    until(lambda: slots_in_use(running) == 0, GRACE_S + 30, "its slots are free")
    assert [one.id for one in running.instances("hostile")] == [before.id]
