"""Decorators collect and change nothing; signatures are read from annotations."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest
from hivemesh_sdk import ConfigurationError, Context, Raw, Record, Rejected, State, Worker
from pydantic import BaseModel


class Item(Record):
    id: int


class Options(Record):
    size: int = 3


class Form(BaseModel):
    name: str


@dataclass
class Row:
    value: float


def signature(worker, capability="a.b@1"):
    return worker.capabilities[capability].signature()


def test_a_decorated_function_stays_the_same_function():
    def double(records: list[int]) -> list[int]:
        return [2 * one for one in records]

    assert Worker().map("a.b@1")(double) is double


def test_parameters_are_known_by_name_and_annotation():
    worker = Worker()

    @worker.map("a.b@1")
    def f(rows: list[Item], surroundings: Context, options: Options) -> list[Item]:
        return rows

    assert signature(worker).roles == {
        "rows": "input",
        "surroundings": "context",
        "options": "options",
    }


def test_types_of_a_map_are_those_of_single_records():
    worker = Worker()

    @worker.map("a.b@1")
    def f(records: list[Item]) -> list[Row | Rejected]:
        return []

    assert (signature(worker).input, signature(worker).output) == (Item, Row)


def test_types_of_a_source_come_from_its_pairs():
    worker = Worker()

    @worker.source("a.b@1")
    def f(start: tuple[int, int] | None) -> Iterator[tuple[Item | Rejected, tuple[int, int]]]:
        yield Item(1), (1, 1)

    assert signature(worker).output is Item
    assert signature(worker).checkpoint == tuple[int, int]


def test_async_runs_inline_and_the_rest_in_a_process():
    worker = Worker()

    @worker.call("a.waits@1")
    async def waits(input: int) -> int:  # noqa: A002
        return input

    @worker.source("a.reads@1")
    async def reads(start: int | None) -> AsyncIterator[tuple[Item, int]]:
        yield Item(1), 1

    @worker.call("a.computes@1")
    def computes(input: int) -> int:  # noqa: A002
        return input

    places = {name: one.run_in for name, one in worker.capabilities.items()}
    assert places == {"a.waits@1": "inline", "a.reads@1": "inline", "a.computes@1": "process"}


def test_of_plain_functions_only_a_call_can_run_inline():
    with pytest.raises(ConfigurationError, match="only a quick call"):
        Worker().map("a.b@1", run_in="inline")(lambda records: records)


def test_a_quick_function_takes_no_context():
    worker = Worker()

    @worker.call("a.b@1", run_in="inline")
    def f(input: int, context: Context) -> int:  # noqa: A002
        return input

    with pytest.raises(ConfigurationError, match="takes no context"):
        signature(worker)


@pytest.mark.parametrize("capability", ["parse", "a.b", "a.b@0", "A.b@1", "a.b@1 "])
def test_a_capability_id_has_a_verb_and_a_version(capability):
    with pytest.raises(ConfigurationError, match="capability id"):
        Worker().call(capability)


def test_a_capability_is_defined_once():
    worker = Worker()
    worker.call("a.b@1")(lambda: None)
    with pytest.raises(ConfigurationError, match="twice"):
        worker.call("a.b@1")


def one_too_many(input: int, other: int) -> int:  # noqa: A002
    return input + other


def no_records(options: Options) -> list[Item]:
    return []


def no_start(options: Options) -> Iterator[tuple[Item, int]]:
    yield Item(1), 1


def no_pairs(start: int | None) -> Iterator[tuple[Item, int, int]]:
    yield Item(1), 1, 1


def unknown_name(input: "Missing") -> int:  # noqa: A002, F821
    return 1


@pytest.mark.parametrize(
    ("kind", "target", "words"),
    [
        ("call", one_too_many, "one too many"),
        ("map", no_records, "records: list"),
        ("source", no_start, "`start`"),
        ("source", no_pairs, "pairs"),
        ("call", unknown_name, "Missing"),
    ],
)
def test_a_wrong_signature_says_what_is_expected(kind, target, words):
    worker = Worker()
    getattr(worker, kind)("a.b@1")(target)
    with pytest.raises(ConfigurationError, match=words):
        signature(worker)


def test_a_reducer_is_a_state_with_three_methods():
    worker = Worker()

    @worker.reducer("a.b@1")
    class Half(State):
        def add(self, records: list[Item]) -> None: ...

    with pytest.raises(ConfigurationError, match="merge"):
        signature(worker)


def test_schemas_of_all_accepted_kinds_of_types():
    worker = Worker()

    @worker.call("a.form@1")
    def form(input: Form) -> Row:  # noqa: A002
        return Row(1.0)

    @worker.map("a.raw@1")
    def raw(records: list[Raw], options: Options) -> list[Item]:
        return []

    schemas = worker.declared_schemas()
    assert schemas["a.form@1"]["input"]["required"] == ["name"]
    assert schemas["a.form@1"]["output"]["properties"] == {"value": {"type": "number"}}
    assert schemas["a.form@1"]["options"] is None
    assert schemas["a.raw@1"]["input"] == {}
    assert schemas["a.raw@1"]["options"]["additionalProperties"] is False
