import subprocess
import sys
from pathlib import Path

import pytest
from hivemesh_platform.lock import StateInUseError, holder, locked

HOLDS = """
import pathlib, sys
from hivemesh_platform.lock import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def holding(folder: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_nobody_holds_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert holder(tmp_path / "nowhere") is None


def test_the_holder_is_told_by_its_pid(tmp_path: Path) -> None:
    with holding(tmp_path) as process:
        assert holder(tmp_path) == process.pid
        process.communicate("\n")
    assert holder(tmp_path) is None


def test_a_second_platform_is_refused(tmp_path: Path) -> None:
    with holding(tmp_path) as process:
        with pytest.raises(StateInUseError, match=str(process.pid)), locked(tmp_path):
            pass
        process.communicate("\n")


def test_a_killed_holder_holds_no_more(tmp_path: Path) -> None:
    with holding(tmp_path) as process:
        process.kill()
        process.wait()
        with locked(tmp_path):
            pass
