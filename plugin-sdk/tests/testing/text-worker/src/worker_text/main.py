"""A worker with a capability of each kind."""

import re
from collections.abc import Iterator

from hivemesh_sdk import Artifact, Context, Record, Rejected, State, Worker

worker = Worker()


class Line(Record):
    """A line of a file."""

    no: int
    text: str


class Measured(Record):
    """How long a line is."""

    no: int
    length: int


class ReadOptions(Record):
    """Which file to read."""

    file: Artifact


class MeasureOptions(Record):
    """Longer lines are rejected."""

    longest: int = 80


@worker.source("text.read@1", run_in="process")
def read(
    options: ReadOptions, start: int | None, context: Context
) -> Iterator[tuple[Line | Rejected, int]]:
    """Yield the lines of a file; the checkpoint is the number of lines read."""
    with context.artifacts.open(options.file) as reader:
        lines = reader.read().decode().splitlines()
    for no, text in enumerate(lines):
        if no < (start or 0):
            continue
        if not text:
            yield Rejected("empty-line", position=no), no + 1
        else:
            yield Line(no=no, text=text), no + 1


@worker.map("text.measure@1", run_in="process")
def measure(lines: list[Line], options: MeasureOptions) -> list[Measured | Rejected]:
    """Measure each line."""
    return [
        Measured(no=line.no, length=len(line.text))
        if len(line.text) <= options.longest
        else Rejected("too-long", position=line.no)
        for line in lines
    ]


@worker.reducer("text.total@1")
class Total(State):
    """Sum of the lengths."""

    total: int = 0

    def add(self, lines: list[Measured]) -> None:
        self.total += sum(line.length for line in lines)

    def merge(self, other: "Total") -> None:
        self.total += other.total

    def result(self) -> dict[str, int]:
        return {"total": self.total}


@worker.call("text.upper@1")
async def upper(text: str) -> str:
    """Shout."""
    return text.upper()


@worker.call("text.spin@1", run_in="process")
def spin(length: int) -> bool:
    """Hold the GIL in one C call, for a time that doubles with each character."""
    return re.match(r"(a+)+$", "a" * length + "b") is not None
