"""What was accepted is on the disk before anybody hears of it: the order of the system's calls."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

WITHIN_S = 140  # a start takes seconds of CPU, which others may want too
CHILD = Path(__file__).parents[2] / "support" / "synced_child.py"
SYNC = re.compile(r"(\d+) +(?:<\.\.\. )?(?:fdatasync|fsync)\b")
TRACE = ("strace", "-f", "-y", "-s", "8192", "-e", "trace=pwrite64,fdatasync,fsync,write")


@pytest.fixture
def trace(tmp_path):
    """The lines of a trace: a call that took long has one for its start and one for its end."""
    if shutil.which("strace") is None:
        pytest.skip("no strace here; `apt-get install strace` installs it")
    if subprocess.run([*TRACE, "-o", os.devnull, sys.executable, "-V"], check=False).returncode:
        pytest.skip("strace may trace nothing here")
    written, folder = tmp_path / "trace", tmp_path / "state"
    folder.mkdir()
    subprocess.run(
        [*TRACE, "-o", str(written), sys.executable, str(CHILD), str(folder)],
        check=True,
        capture_output=True,
        timeout=WITHIN_S,
        env={name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
    )
    return written.read_text().splitlines()


def syncs(lines):
    """Start and end of each successful sync of the write-ahead log, as places in the trace."""
    begun = {}
    for place, line in enumerate(lines):
        if not (found := SYNC.match(line)):
            continue
        thread = found[1]
        if "platform.db-wal>" in line:
            begun[thread] = place
        if line.endswith("= 0") and thread in begun:
            yield begun.pop(thread), place


def places(lines, *texts):
    return [place for place, line in enumerate(lines) if all(text in line for text in texts)]


def test_a_job_is_synced_before_it_is_answered(trace):
    synced = list(syncs(trace))
    answered = [(place, trace[place]) for place in places(trace, "write(1<", '"accepted ')]
    assert len(answered) == 5
    for answer, line in answered:
        job = re.search(r"job_\w+?(?=\\n)", line).group()
        written = places(trace, "pwrite64(", "platform.db-wal>", job)[0]
        assert any(written < start and end < answer for start, end in synced), job
