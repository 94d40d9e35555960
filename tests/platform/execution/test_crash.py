"""SIGKILL at every step boundary and at random moments: the run completes as if nothing happened."""

import random
import signal
from contextlib import suppress
from multiprocessing import forkserver, get_context
from pathlib import Path

import crash_child
import pytest
from crash_child import RECORDS
from hivemesh_platform import crash
from hivemesh_sdk.errors import ConfigurationError

pytestmark = pytest.mark.integration

WITHIN_S = 140  # a start takes seconds of CPU, which others may want too
PROCESSES = get_context("forkserver")
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


@pytest.fixture(scope="module", autouse=True)
def _prepared():
    """Load what the processes run once; each is a fork of the one that has."""
    PROCESSES.set_forkserver_preload([crash_child.__name__])
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv("PYTHONPATH", str(Path(crash_child.__file__).parent))
        forkserver.ensure_running()


def child(folder, *, point="", engine="direct"):
    said, told = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=crash_child.run, args=(told, folder, engine, point))
    process.start()
    told.close()
    return process, said


def until_its_end(process, said):
    """All that it says from now on."""
    heard = []
    with said, suppress(EOFError):
        while said.poll(WITHIN_S):
            heard.append(said.recv())
    process.join(WITHIN_S)
    return heard


def assert_dies(folder, point, engine="direct"):
    process, said = child(folder, point=point, engine=engine)
    until_its_end(process, said)
    assert process.exitcode == -signal.SIGKILL


def assert_completes(folder, engine="direct"):
    process, said = child(folder, engine=engine)
    answer = until_its_end(process, said)[-1]
    assert process.exitcode == 0
    assert answer == {
        "runs": 1,
        "state": "partial",
        "rejected": 2,
        "numbers": EXPECTED,
        "total": sum(EXPECTED),
    }


@pytest.mark.parametrize("point", LEDGER_POINTS)
def test_a_kill_at_a_boundary_of_the_ledger(tmp_path, point):
    assert_dies(tmp_path, point)
    assert_completes(tmp_path)


@pytest.mark.parametrize("point", ENGINE_POINTS)
def test_a_kill_at_a_boundary_of_the_engine(tmp_path, point):
    assert_dies(tmp_path, point, engine="dbos")
    assert_completes(tmp_path, engine="dbos")


def test_kills_at_random_moments(tmp_path):
    choose = random.Random(7)  # noqa: S311 - repeatable moments
    for _ in range(6):
        process, said = child(tmp_path)
        assert said.recv() == "started"
        process.join(choose.uniform(0.0, 0.25))
        process.kill()
        until_its_end(process, said)
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
