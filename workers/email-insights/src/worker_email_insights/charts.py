"""The geometry of the report's charts: what stands where, in the units of an SVG view box."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from math import isqrt

from worker_email_insights.volumes import CATEGORIES, OTHER, Period, Timeline, Unit

HEIGHT = 100.0
COLUMN = 10.0  # width of a column with its gap
GAP = 0.18  # of a column
LEVELS = 5  # shades of a heat map, the empty one left out
STEPS = (1, 2, 5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One rectangle of a stacked column."""

    x: float
    y: float
    width: float
    height: float
    series: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """A column chart: blocks, grid lines from the top down, labels below."""

    width: float
    blocks: list[Block]
    scale: list[tuple[float, int]]  # y, value
    labels: list[str]  # the first, some between, the last
    series: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One hour of one weekday; level 0 is empty."""

    x: int
    y: int
    level: int
    title: str


def columns(timeline: Timeline) -> Columns:
    """Draw the periods of a timeline, stacked by category."""
    top = max((period.messages for period in timeline.periods), default=0)
    limit, step = _scale(top)
    blocks = [
        block
        for at, period in enumerate(timeline.periods)
        for block in _stack(at, period, timeline.unit, limit)
    ]
    used = {block.series for block in blocks}
    return Columns(
        width=COLUMN * max(1, len(timeline.periods)),
        blocks=blocks,
        scale=[(HEIGHT * (1 - value / limit), value) for value in range(0, limit + 1, step)],
        labels=_labels(timeline),
        series=[name for name in (*CATEGORIES, OTHER) if name in used],
    )


def heat(grid: Sequence[Sequence[int]], names: Sequence[str]) -> list[Cell]:
    """Draw a week of hours, darker where there are more messages."""
    top = max(max(row) for row in grid)
    return [
        Cell(
            x=hour,
            y=day,
            level=_level(count, top),
            title=f"{names[day]} {hour:02}:00, {count:,} messages",
        )
        for day, row in enumerate(grid)
        for hour, count in enumerate(row)
    ]


def period_name(start: date, unit: Unit) -> str:
    """What a person calls the period."""
    if unit == "year":
        return f"{start:%Y}"
    return f"{start:%b %Y}" if unit == "month" else f"{start.day} {start:%b %Y}"


def percent(part: float | Decimal, whole: float | Decimal) -> float:
    """The length of a bar."""
    return round(100 * float(part) / float(whole), 2) if whole else 0.0


def _level(count: int, top: int) -> int:
    """The shade of a count: by its square root, so that one busy hour does not dim the rest."""
    return 0 if count == 0 else min(LEVELS, 1 + isqrt(LEVELS * LEVELS * count // (top + 1)))


def _stack(at: int, period: Period, unit: Unit, limit: int) -> list[Block]:
    blocks = []
    y = HEIGHT
    name = period_name(period.start, unit)
    for series in (*CATEGORIES, OTHER):
        count = period.categories.get(series, 0)
        if not count:
            continue
        height = HEIGHT * count / limit
        y -= height
        block = Block(
            x=round(COLUMN * (at + GAP / 2), 3),
            y=round(y, 3),
            width=round(COLUMN * (1 - GAP), 3),
            height=round(height, 3),
            series=series,
            title=f"{name}: {count:,} {series} of {period.messages:,}",
        )
        blocks.append(block)
    return blocks


def _scale(top: int) -> tuple[int, int]:
    """The end of the axis and the step between its lines: 1, 2 or 5 times a power of ten."""
    step = power = 1
    while True:
        for factor in STEPS:
            step = factor * power
            if step * 4 >= top:
                return step * max(1, -(-top // step)), step
        power *= 10


def _labels(timeline: Timeline) -> list[str]:
    names = [period_name(period.start, timeline.unit) for period in timeline.periods]
    if len(names) <= 3:
        return names
    return [names[0], names[len(names) // 2], names[-1]]
