"""SIGKILL at every step boundary and at random moments: the run completes as if nothing happened."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from crash_child import RECORDS
from hivemesh_platform import crash
from hivemesh_sdk.errors import ConfigurationError

pytestmark = pytest.mark.integration

WITHIN_S = 140  # a start takes seconds of CPU, which others may want too
CHILD = Path(__file__).parents[2] / "support" / "crash_child.py"
EXPECTED = [2 * n for n in range(RECORDS) if n not in {4, 41}]
LEDGER_POINTS = [
    "accept.before",
    "accept.after",
    "claim.after",
    "dispatch.before",
    "dispatch.after",
    "dispatch.after:5",
    "record.before",
    "record.before:3",
    "record.after",
    "ack.before",
    "ack.after:3",
    "finish.before",
    "finish.after",
    "finish.after:7",
]
ENGINE_POINTS = [
    "engine.submit",
    "engine.drain.before:2",
    "engine.drain.after",
    "engine.drain.after:3",
]


def child(folder, *, point="", engine="direct"):
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    if point:
        environment[crash.VARIABLE] = point
    return subprocess.Popen(
        [sys.executable, str(CHILD), str(folder), engine],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def assert_completes(folder, engine="direct"):
    process = child(folder, engine=engine)
    output, _ = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 0
    answer = json.loads(output.splitlines()[-1])
    assert answer["numbers"] == EXPECTED
    assert answer == {
        "runs": 1,
        "state": "partial",
        "rejected": 2,
        "numbers": EXPECTED,
        "total": sum(EXPECTED),
    }


@pytest.mark.parametrize("point", LEDGER_POINTS)
def test_a_kill_at_a_boundary_of_the_ledger(tmp_path, point):
    process = child(tmp_path, point=point)
    process.communicate(timeout=WITHIN_S)
    assert process.returncode == -signal.SIGKILL
    assert_completes(tmp_path)


@pytest.mark.parametrize("point", ENGINE_POINTS)
def test_a_kill_at_a_boundary_of_the_engine(tmp_path, point):
    process = child(tmp_path, point=point, engine="dbos")
    process.communicate(timeout=WITHIN_S)
    assert process.returncode == -signal.SIGKILL
    assert_completes(tmp_path, engine="dbos")


def test_kills_at_random_moments(tmp_path):
    choose = random.Random(7)  # noqa: S311 - repeatable moments
    for _ in range(6):
        process = child(tmp_path)
        process.stdout.readline()  # it has started or taken over the run
        try:
            process.wait(choose.uniform(0.0, 0.25))
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate(timeout=WITHIN_S)
    assert_completes(tmp_path)


def test_crash_points_are_refused_in_production():
    with pytest.raises(ConfigurationError) as refused:
        crash.arm("accept.before", production=True)
    assert refused.value.problem().code == "HM-1601"


def test_a_crash_point_that_is_not_armed_does_nothing():
    crash.arm(None, production=True)
    crash.reach("accept.before")


def test_a_crash_point_with_a_wrong_number_is_refused():
    with pytest.raises(ConfigurationError, match="with a number"):
        crash.arm("accept.before:often", production=False)
