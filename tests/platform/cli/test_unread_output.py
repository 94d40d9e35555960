"""A command whose output is read no further ends as other tools do, and silently."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FULL = Path("/dev/full")


def started(*words, output):
    program = "from hivemesh_platform.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        stdout=output,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("words", [["help", "output"], ["config", "show"], ["--help"]])
def test_a_reader_that_has_gone_is_no_error(words):
    read, write = os.pipe()
    os.close(read)
    ended = started(*words, output=write)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (141, b"")


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("form", ["table", "json"])
def test_a_full_disk_under_the_output_is_an_error_with_its_remedy(form):
    with FULL.open("wb") as full:
        ended = started("config", "show", "-o", form, output=full)
    assert ended.returncode == 1
    assert b"error[HM-1612]" in ended.stderr
    assert b"Traceback" not in ended.stderr
