"""A manifest's digest is the same for everybody who writes its JSON canonically."""

import hashlib

from hivemesh_sdk.contracts.manifest import Manifest, canonical_json
from hivemesh_sdk.safeio.documents import parse_manifest

TEXT = """\
apiVersion: hivemesh/v1
kind: Worker
metadata: {name: hello, version: 1.0.0, description: Grüße}
runtime: {entrypoint: "worker_hello.main:worker"}
capabilities: [{id: hello.greet@1, kind: call, timeout_s: 300}]
"""


def test_numbers_keys_and_letters_are_written_one_way():
    assert canonical_json({"b": [300.0, 0.5, 1], "a": "ü"}) == '{"a":"ü","b":[300,0.5,1]}'.encode()


def test_the_digest_is_that_of_the_canonical_form():
    manifest = parse_manifest(TEXT)
    assert manifest.digest() == hashlib.sha256(canonical_json(manifest.document())).hexdigest()


def test_notation_does_not_change_the_digest():
    other = TEXT.replace("timeout_s: 300", "timeout_s: 300.0").replace("kind: call, ", "") + ""
    other = other.replace("{id: hello.greet@1, ", "{kind: call, id: hello.greet@1, ")
    assert parse_manifest(other).digest() == parse_manifest(TEXT).digest()


def test_a_field_that_is_added_later_changes_no_digest():
    class Later(Manifest):
        added: tuple[str, ...] = ("with", "a", "default")

    now = parse_manifest(TEXT)
    assert Later.model_validate(now.document()).digest() == now.digest()


def test_the_digest_is_that_of_the_file_as_a_stranger_writes_it():
    document = {
        "apiVersion": "hivemesh/v1",
        "kind": "Worker",
        "metadata": {"name": "hello", "version": "1.0.0", "description": "Grüße"},
        "runtime": {"entrypoint": "worker_hello.main:worker"},
        "capabilities": [{"id": "hello.greet@1", "kind": "call", "timeout_s": 300}],
    }
    assert parse_manifest(TEXT).digest() == hashlib.sha256(canonical_json(document)).hexdigest()


def test_what_is_given_counts_though_it_is_the_default():
    given = TEXT.replace("kind: call", "kind: call, max_retries: 3")
    assert parse_manifest(given).digest() != parse_manifest(TEXT).digest()
