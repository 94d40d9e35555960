"""Inputs that cannot be right are told before anything is accepted."""

import pytest
from hivemesh_platform.execution.plans.inputs import MAX_TOLD, unfit

MAIL = {
    "type": "object",
    "properties": {
        "subject": {"type": "string"},
        "size": {"type": "integer"},
        "kind": {"enum": ["spam", "bill"]},
        "to": {"type": "array", "items": {"$ref": "#/$defs/Address"}},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    },
    "required": ["subject"],
    "additionalProperties": False,
    "$defs": {"Address": {"type": "object", "required": ["address"]}},
}


@pytest.mark.parametrize(
    "value",
    [
        {"subject": "a"},
        {"subject": "a", "size": 3, "kind": "bill", "to": [{"address": "x"}], "note": None},
        {"subject": "{{ vault.a }}"},
    ],
)
def test_what_fits_is_not_objected_to(value):
    assert unfit(value, MAIL) == []


@pytest.mark.parametrize(
    ("value", "pointer", "words"),
    [
        ([], "", "is no object"),
        ({}, "", "'subject' is missing"),
        ({"subject": 3}, "/subject", "is no string"),
        ({"subject": "a", "size": True}, "/size", "is no integer"),
        ({"subject": "a", "kind": "ham"}, "/kind", "none of spam, bill"),
        ({"subject": "a", "to": [{"name": "x"}]}, "/to/0", "'address' is missing"),
        ({"subject": "a", "note": 3}, "/note", "is no string"),
        ({"subject": "a", "other/field": 3}, "/other~1field", "known: kind"),
    ],
)
def test_what_does_not_fit_is_told_with_its_place(value, pointer, words):
    [found] = unfit(value, MAIL)
    assert (found.pointer, words in found.message) == (pointer, True)


@pytest.mark.parametrize("schema", [None, {}, {"type": "strange"}, {"$ref": "#/$defs/None"}, {"$ref": "http://x"}, {"anyOf": []}])  # fmt: skip
def test_a_schema_that_says_nothing_takes_everything(schema):
    assert unfit({"a": 1}, schema) == []


def test_a_schema_that_refers_to_itself_ends():
    assert unfit([[[]]], {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}) == []


def test_only_the_first_ones_are_told():
    assert len(unfit([1] * 100, {"items": {"type": "string"}})) == MAX_TOLD
