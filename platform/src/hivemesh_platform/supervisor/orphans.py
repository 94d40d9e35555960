"""Ends worker processes whose platform is gone, for `hivemesh down` after a killed platform."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from hivemesh_platform.supervisor.processes import kill_session
from hivemesh_platform.supervisor.records import Records

STEP_S = 0.05


def stop_orphans(state_folder: Path, *, grace_s: float = 5.0) -> int:
    """End every recorded process; returns how many were still there. Holds no event loop."""
    records = Records(state_folder / "run")
    alive = [record for record in records.all() if record.process.exists()]
    for record in alive:
        with suppress(ProcessLookupError):
            os.kill(record.pid, signal.SIGTERM)
    until = time.monotonic() + grace_s
    while time.monotonic() < until and any(record.process.exists() for record in alive):
        time.sleep(STEP_S)
    for record in records.all():
        kill_session(record.process)
        records.remove(record.instance)
    return len(alive)
