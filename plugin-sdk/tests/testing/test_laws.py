"""`collect` and `check_merge` find what breaks the laws of sources and reducers."""

from collections.abc import Iterator

import pytest
from hivemesh_sdk import Artifact, Context, Record, Rejected, State
from hivemesh_sdk.testing.laws import check_merge, collect


class Number(Record):
    value: int


class FileOptions(Record):
    file: Artifact


def read(
    options: FileOptions, start: int | None, context: Context
) -> Iterator[tuple[Number | Rejected, int]]:
    with context.artifacts.open(options.file) as reader:
        words = reader.read().split()
    for no, word in enumerate(words[start or 0 :], start or 0):
        yield (Number(int(word)) if word.isdigit() else Rejected("no-number", position=no)), no + 1


def read_forgetful(start: int | None) -> Iterator[tuple[Number, int]]:
    for value in range(start or 0, 5):
        yield Number(value), value  # the record itself is read again


class Sum(State):
    total: int = 0

    def add(self, records: list[Number]) -> None:
        self.total += sum(one.value for one in records)

    def merge(self, other: "Sum") -> None:
        self.total += other.total

    def result(self) -> int:
        return self.total


class First(State):
    value: int | None = None

    def add(self, records: list[Number]) -> None:
        if self.value is None and records:
            self.value = records[0].value

    def merge(self, other: "First") -> None:
        self.value = other.value if self.value is None else self.value

    def result(self) -> int | None:
        return self.value


@pytest.fixture
def numbers(tmp_path):
    path = tmp_path / "numbers.txt"
    path.write_text("3 1 x 4 1 y 5\n")
    return path


def test_records_and_rejected_ones_are_collected_in_order(numbers):
    collected = collect(read, {"file": numbers})
    assert collected.records[:2] == [b'{"value":3}', b'{"value":1}']
    assert [one.position for one in collected.rejected] == [2, 5]


def test_a_source_that_keeps_its_checkpoints_resumes_anywhere(numbers):
    collect(read, {"file": numbers}).resumes_anywhere()


def test_a_source_that_repeats_a_record_is_found():
    with pytest.raises(AssertionError, match="checkpoint 0, which holds after 1 items"):
        collect(read_forgetful).resumes_anywhere()


def test_a_lawful_reducer_gives_its_result():
    assert check_merge(Sum, [{"value": value} for value in range(10)]) == 45


def test_a_reducer_that_depends_on_the_order_is_found():
    with pytest.raises(AssertionError, match=r"First: .* in another order"):
        check_merge(First, [{"value": value} for value in range(10)])
