"""Options are checked with pointers; unknown ones are refused with a suggestion."""

from typing import Annotated

import msgspec
import pytest
from hivemesh_sdk import Artifact, ConfigurationError, Raw, Record
from hivemesh_sdk.worker.codec import Codec, artifact_fields, json_schema, options_of
from pydantic import BaseModel, ConfigDict


class Inner(Record):
    depth: int = 1


class Options(Record):
    archive: Artifact
    types: list[str] = msgspec.field(default_factory=list)
    inner: Inner | None = None
    others: list[Artifact] = msgspec.field(default_factory=list)


class Form(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: int


class Tree(Record):
    children: "list[Tree]" = msgspec.field(default_factory=list)


ARCHIVE = {"sha256": "0" * 64, "size": 1}


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ({"archive": ARCHIVE, "typse": []}, "/typse"),
        ({"archive": ARCHIVE, "types": ["a", 1]}, "/types/1"),
        ({"archive": ARCHIVE, "inner": {"depth": "x"}}, "/inner/depth"),
        ({"archive": {"sha256": 1, "size": 1}}, "/archive/sha256"),
        ({}, ""),
        ({"archive": ARCHIVE, "a/b~": 1}, "/a~1b~0"),
    ],
)
def test_a_wrong_option_is_pointed_at(given, pointer):
    with pytest.raises(ConfigurationError) as caught:
        options_of(Codec(Options), given)
    assert caught.value.slug == "options-invalid"
    assert [one.pointer for one in caught.value.errors] == [pointer]


def test_an_unknown_option_comes_with_a_suggestion():
    with pytest.raises(ConfigurationError, match="did you mean 'types'"):
        options_of(Codec(Options), {"archive": ARCHIVE, "typse": []})


def test_pydantic_options_are_pointed_at_too():
    with pytest.raises(ConfigurationError) as caught:
        options_of(Codec(Form), {"size": "x"})
    assert [one.pointer for one in caught.value.errors] == ["/size"]


def test_no_options_means_none_are_taken():
    assert options_of(None, {}) is None
    with pytest.raises(ConfigurationError):
        options_of(None, {"a": 1})


def test_options_may_be_open():
    assert options_of(Codec(dict[str, int]), {"a": 1}) == {"a": 1}


def test_artifact_options_are_known():
    assert artifact_fields(Options) == {"archive", "others"}
    assert artifact_fields(dict[str, int]) == frozenset()


def test_a_recursive_type_has_a_schema():
    schema = json_schema(Tree)
    assert "Tree" in schema["$defs"]
    assert schema["properties"]["children"]["items"] == {"$ref": "#/$defs/Tree"}


def test_a_codec_reads_what_it_writes():
    record = Options(archive=Artifact(**ARCHIVE), types=["a"])
    assert Codec(Options).decode(msgspec.json.encode(record)) == record


def test_a_record_that_is_not_decoded_has_the_schema_that_it_names():
    more = msgspec.Meta(extra_json_schema={"additionalProperties": True})
    named = Annotated[Raw, Options, more]
    assert json_schema(named) == {**json_schema(Options), "additionalProperties": True}
    assert isinstance(Codec(named).decode(b'{"archive": 1}'), Raw)
    assert json_schema(Annotated[int, "a note"]) == json_schema(int)
