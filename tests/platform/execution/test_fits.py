"""Records fit where nothing speaks against it; what speaks against it is named by its place."""

import pytest
from hivemesh_platform.execution.plans.fits import misfits
from hivemesh_sdk.safeio.documents import load_manifest
from whole_platform import ROOT

OPEN = {}
MAIL = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "size": {"type": "integer"},
        "from": {"type": "array", "items": {"$ref": "#/$defs/Mailbox"}},
        "date": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    },
    "required": ["id"],
    "$defs": {"Mailbox": {"type": "object", "properties": {"address": {"type": "string"}}}},
}


def taking(**properties):
    return {"type": "object", "properties": properties, "required": sorted(properties)}


@pytest.mark.parametrize(
    "taken",
    [
        OPEN,
        None,
        taking(),
        taking(id={"type": "string"}),
        taking(size={"type": "number"}),
        taking(date={"type": "string"}),
        taking(date={"type": ["null", "object"]}),
        taking(**{"from": {"type": "array"}}),
        {"type": "object", "properties": {"absent": {"type": "string"}}},
    ],
)
def test_records_fit_where_nothing_speaks_against_it(taken):
    assert misfits(MAIL, taken) == []
    assert misfits(OPEN, taken) == []


@pytest.mark.parametrize(
    ("taken", "place"),
    [
        (taking(subject={"type": "string"}), "subject is required"),
        (taking(id={"type": "integer"}), "id is string, integer is taken"),
        (taking(date={"type": "integer"}), "date is null or string"),
        ({"type": "array"}, "the record is object, array is taken"),
        (
            taking(
                **{
                    "from": {
                        "type": "array",
                        "items": taking(address={"type": "object"}),
                    }
                }
            ),
            "from[].address is string",
        ),
    ],
)
def test_records_that_cannot_be_taken_are_named_by_their_place(taken, place):
    (found,) = misfits(MAIL, taken)
    assert place in found


def test_schema_that_refers_to_itself_is_compared():
    tree = {
        "$ref": "#/$defs/T",
        "$defs": {"T": {"type": "object", "properties": {"t": {"$ref": "#/$defs/T"}}}},
    }
    assert misfits(tree, tree) == []


def test_what_is_passed_on_unlisted_may_be_required():
    passing = {**MAIL, "additionalProperties": True}
    assert misfits(passing, taking(subject={"type": "string"})) == []
    assert misfits(passing, taking(id={"type": "integer"}))


def test_shipped_pipeline_fits():
    parser, classifier, insights = (
        load_manifest(ROOT / "workers" / worker / "plugin.yaml").capability(capability)
        for worker, capability in (
            ("email-parser", "email.parse@1"),
            ("email-classifier", "email.classify@1"),
            ("email-insights", "email.insights@1"),
        )
    )
    assert parser.output
    assert classifier.input
    assert classifier.output
    assert insights.input
    assert misfits(parser.output, classifier.input) == []
    assert misfits(classifier.output, insights.input) == []
