"""Every type that can be decoded has a schema."""

from typing import Annotated

import msgspec
from hivemesh_sdk.contracts.printable import schema, schema_components

TEXT = msgspec.Raw(b'""')


class Inner(msgspec.Struct, rename={"sender": "from"}):
    """What it is."""

    sender: str
    text: msgspec.Raw = TEXT


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    inners: list[Inner]
    one: Inner | None = None
    many: Annotated[dict[str, Inner], msgspec.Meta(max_length=3)] = {}
    anything: object = None


class Tree(msgspec.Struct):
    below: "list[Tree]" = []


def test_a_raw_default_makes_the_field_optional():
    found = schema(Inner)["$defs"]["Inner"]
    assert found["required"] == ["from"]
    assert "default" not in found["properties"]["text"]
    assert found["description"] == "What it is."


def test_raw_defaults_are_found_at_every_depth():
    _, definitions = schema_components([Outer], "#/{name}")
    outer = definitions["Outer"]
    assert outer["additionalProperties"] is False
    assert outer["properties"]["inners"] == {"type": "array", "items": {"$ref": "#/Inner"}}
    assert outer["properties"]["many"]["maxProperties"] == 3
    assert outer["properties"]["anything"]["description"] == "any JSON value"


def test_a_type_that_needs_no_twin_is_left_alone():
    assert schema(Tree) == msgspec.json.schema(Tree)
