"""Writes what the long drills have measured to bench/chaos.json."""

import json

from whole_platform import ROOT

FILE = ROOT / "bench" / "chaos.json"


def record(name: str, value: float, unit: str, goal: float, *, holds: bool) -> None:
    """Add or replace one figure."""
    figures = json.loads(FILE.read_text()) if FILE.exists() else []
    kept = [figure for figure in figures if figure["name"] != name]
    figure = {
        "name": name,
        "value": value,
        "unit": unit,
        "goal": goal,
        "holds": holds,
        "command": "make chaos",
    }
    FILE.write_text(json.dumps([*kept, figure], indent=1) + "\n")
