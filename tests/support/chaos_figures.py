"""Writes what the long drills have measured to the file that `make chaos` names."""

import json
import os
from pathlib import Path

VARIABLE = "HIVEMESH_CHAOS_FIGURES"


def _test() -> str:
    """The test that is running, as pytest takes it."""
    return os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0]


def record(name: str, value: float, unit: str, goal: float, *, holds: bool) -> None:
    """Add or replace one figure; the short forms, many at a time, keep none."""
    if not os.environ.get(VARIABLE):
        return
    file = Path(os.environ[VARIABLE])
    figures = json.loads(file.read_text()) if file.exists() else []
    kept = [figure for figure in figures if figure["name"] != name]
    figure = {
        "name": name,
        "value": value,
        "unit": unit,
        "goal": goal,
        "holds": holds,
        "command": f".venv/bin/pytest '{_test()}'",
    }
    file.write_text(json.dumps([*kept, figure], indent=1) + "\n")
