"""plugin.yaml and pipelines: each mistake is named by pointer, line and suggestion."""

import pytest
from hivemesh_sdk.errors import InvalidError
from hivemesh_sdk.safeio.documents import (
    FileUnreadableError,
    load_manifest,
    parse_manifest,
    parse_pipeline,
)

MANIFEST = """\
apiVersion: hivemesh/v1
kind: Worker
metadata: {name: hello, version: 1.0.0}
runtime: {entrypoint: "worker_hello.main:worker"}
capabilities:
  - {id: hello.greet@1, kind: call, run_in: inline}
permissions: {egress: []}
"""
PIPELINE = """\
apiVersion: hivemesh/v1
kind: Pipeline
metadata: {name: p, version: 1}
steps:
  parse: {use: email.parse@1, with: {archive: x}}
  classify: {use: email.classify@1, map: parse}
"""


def problems(text: str, parse=parse_manifest) -> list[tuple[str, str]]:
    with pytest.raises(InvalidError) as caught:
        parse(text)
    return [(one.pointer, one.message) for one in caught.value.errors]


def test_a_manifest_is_loaded_from_its_file(tmp_path):
    (tmp_path / "plugin.yaml").write_text(MANIFEST)
    assert load_manifest(tmp_path / "plugin.yaml").metadata.name == "hello"


def test_a_step_has_five_minutes_where_the_manifest_says_nothing():
    [greet] = parse_manifest(MANIFEST).capabilities
    assert greet.timeout_s == 300
    longer = MANIFEST.replace("run_in: inline", "run_in: inline, timeout_s: 900")
    assert parse_manifest(longer).capabilities[0].timeout_s == 900


def test_a_missing_file_is_a_coded_error(tmp_path):
    with pytest.raises(FileUnreadableError) as caught:
        load_manifest(tmp_path / "plugin.yaml")
    assert caught.value.problem().code == "HM-1607"


@pytest.mark.parametrize(
    ("old", "new", "pointer", "message"),
    [
        ("kind: call", "kin: call", "/capabilities/0/kin", "did you mean 'kind'? (line 6)"),
        ("egress", "egres", "/permissions/egres", "did you mean 'egress'? (line 7)"),
        ("metadata", "metdata", "/metdata", "did you mean 'metadata'?"),
        ("kind: call", "kind: cal", "/capabilities/0/kind", "it is 'cal' (line 6)"),
        ("version: 1.0.0", "version: new", "/metadata/version", "'new' is no version"),
        ("name: hello, ", "", "/metadata/name", "the key is missing"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_remedy(old, new, pointer, message):
    found = dict(problems(MANIFEST.replace(old, new)))
    assert message in found[pointer]


def test_an_unknown_key_far_from_any_other_lists_the_known_ones():
    (pointer, message), *_ = problems(MANIFEST + "zzz: 1\n")
    assert pointer == "/zzz"
    assert "known are apiVersion, capabilities" in message


def test_all_mistakes_are_told_at_once():
    found = problems(MANIFEST.replace("kind: call", "kin: call").replace("egress", "egres"))
    assert len(found) == 3


def test_a_manifest_problem_has_its_own_code():
    with pytest.raises(InvalidError) as caught:
        parse_manifest("kind: Worker")
    assert caught.value.problem().code == "HM-1309"


def test_a_pipeline_is_read_with_its_aliases():
    assert parse_pipeline(PIPELINE).steps["parse"].with_ == {"archive": "x"}


def test_a_misspelt_key_of_a_step_is_suggested():
    found = dict(problems(PIPELINE.replace("map:", "mop:"), parse_pipeline))
    assert "did you mean 'map'? (line 6)" in found["/steps/classify/mop"]


def test_a_bad_step_name_points_at_the_name():
    found = dict(problems(PIPELINE.replace("  parse:", "  Parse:"), parse_pipeline))
    assert "/steps/Parse" in found
