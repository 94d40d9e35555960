"""A measured figure with its goal, and how figures are printed and kept."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure. `goal` is like "<= 1.5" or ""; `holds` is None where there is no goal."""

    name: str
    value: float
    unit: str
    goal: str = ""
    holds: bool | None = None
    command: str = ""


def figure(name: str, value: float, unit: str, goal: str = "", *, command: str = "") -> Row:
    """Make a row and judge it by its goal."""
    holds = None
    if goal:
        sign, limit = goal.split()
        holds = value <= float(limit) if sign == "<=" else value >= float(limit)
    return Row(name=name, value=round(value, 4), unit=unit, goal=goal, holds=holds, command=command)


def show(rows: Iterable[Row]) -> None:
    """Print rows as a table."""
    for row in rows:
        verdict = {True: "holds", False: "MISSED", None: ""}[row.holds]
        print(
            f"{row.name:<64} {row.value:>12,.3f} {row.unit:<12} {row.goal:<10} {verdict}",
            flush=True,
        )


def keep(rows: Iterable[Row], path: Path) -> None:
    """Write rows as a JSON list."""
    path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
