"""A worker that breaks two laws: its source ignores the checkpoint, its reducer the partition."""

from collections.abc import Iterator

from hivemesh_sdk import Record, State, Worker

worker = Worker()


class Number(Record):
    """A number."""

    value: int


@worker.source("broken.read@1", run_in="process")
def read(start: int | None) -> Iterator[tuple[Number, int]]:
    """Begin at the beginning, whatever `start` says."""
    for value in range(7):
        yield Number(value), value + 1


@worker.reducer("broken.last@1")
class Last(State):
    """The mean of means, which depends on how the records are cut."""

    mean: float = 0.0

    def add(self, numbers: list[Number]) -> None:
        self.mean = sum(one.value for one in numbers) / len(numbers)

    def merge(self, other: "Last") -> None:
        self.mean = (self.mean + other.mean) / 2

    def result(self) -> float:
        return self.mean
