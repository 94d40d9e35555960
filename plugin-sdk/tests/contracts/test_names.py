"""The grammars of keys, names and versions."""

import pytest
from hivemesh_sdk.contracts.names import CAPABILITY_ID, WORKER_NAME, parse_step_key, step_key
from hivemesh_sdk.errors import InvalidError
from hivemesh_sdk.safeio.documents import parse_manifest, parse_pipeline

MANIFEST = """\
apiVersion: hivemesh/v1
kind: Worker
metadata: {name: hello, version: 1.0.0}
platform: ">=0.1,<1"
runtime: {entrypoint: "worker_hello.main:worker"}
capabilities: [{id: hello.greet@1, kind: call}, {id: hello.wave@1, kind: call}]
"""
PIPELINE = """\
apiVersion: hivemesh/v1
kind: Pipeline
metadata: {name: p}
steps:
  a: {use: x.y@1}
  b: {use: x.z@1, map: a}
"""


def test_a_step_key_comes_apart_again():
    assert parse_step_key(step_key("run_1-x", "node", 12)) == ("run_1-x", "node", 12)


@pytest.mark.parametrize("text", ["", "a.b", "a.B.1", "a.b.x", "a.b.1.2", "a b.c.1", "a.b.-1"])
def test_other_texts_are_no_step_keys(text):
    with pytest.raises(ValueError, match=r"run\.node\.seq"):
        parse_step_key(text)


@pytest.mark.parametrize("name", ["email.parse@1", "a.b.c@12", "a_b.c9@1"])
def test_capability_ids(name):
    assert CAPABILITY_ID.fullmatch(name)


@pytest.mark.parametrize(
    "name", ["parse@1", "email.parse", "email.parse@0", "Email.parse@1", ".@1"]
)
def test_no_capability_ids(name):
    assert not CAPABILITY_ID.fullmatch(name)


@pytest.mark.parametrize("name", ["-a", "a-", "A", "a" * 41, "a_b", ""])
def test_no_worker_names(name):
    assert not WORKER_NAME.fullmatch(name)


@pytest.mark.parametrize(
    ("parse", "text", "old", "new", "pointer"),
    [
        (parse_manifest, MANIFEST, "hello.wave", "hello.greet", "/capabilities"),
        (parse_manifest, MANIFEST, ">=0.1,<1", "newest", "/platform"),
        (parse_manifest, MANIFEST, "name: hello", "name: Hello", "/metadata/name"),
        (parse_manifest, MANIFEST, "main:worker", "main", "/runtime/entrypoint"),
        (parse_pipeline, PIPELINE, "map: a", "map: a, reduce: a", "/steps/b"),
        (parse_pipeline, PIPELINE, "x.y@1", "x.y", "/steps/a/use"),
    ],
)
def test_a_wrong_value_is_pointed_at(parse, text, old, new, pointer):
    with pytest.raises(InvalidError) as caught:
        parse(text.replace(old, new))
    assert [one.pointer for one in caught.value.errors] == [pointer]


def test_a_manifest_knows_its_capabilities_and_its_platforms():
    manifest = parse_manifest(MANIFEST)
    assert manifest.capability("hello.wave@1") is manifest.capabilities[1]
    assert manifest.capability("hello.none@1") is None
    assert [manifest.accepts_platform(one) for one in ("0.0.9", "0.1.0", "1.0")] == [
        False,
        True,
        False,
    ]
