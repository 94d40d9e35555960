"""Pipelines are checked before anything runs: each mistake with a pointer and words."""

import copy

import pytest
from fake_workers import FakeCatalogue, capability
from hivemesh_platform.execution.plans.given import filled
from hivemesh_platform.execution.plans.plan import bind_parameters, make_plan
from hivemesh_platform.execution.plans.references import (
    MAX_OPTIONS_BYTES,
    BrokenReferenceError,
    OptionsTooLargeError,
    Room,
    fill,
    parse_path,
    resolve,
)
from hivemesh_sdk.contracts.pipeline import Pipeline
from hivemesh_sdk.errors import InvalidError

OPTIONS = {"properties": {"types": {}, "limit": {}}, "required": ["types"]}
CATALOGUE = FakeCatalogue(
    capability("mail.parse@1", "source"),
    capability("mail.classify@1", "map", options=OPTIONS),
    capability("mail.report@1", "reducer"),
    capability("mail.send@1", "call"),
)
GOOD = {
    "apiVersion": "hivemesh/v1",
    "kind": "Pipeline",
    "metadata": {"name": "mail", "version": 2},
    "parameters": {
        "archive": {"type": "artifact", "description": "an mbox file"},
        "limit": {"type": "integer", "default": 5},
    },
    "steps": {
        "send": {"use": "mail.send@1", "with": {"text": "${{ report.text }}"}},
        "report": {"use": "mail.report@1", "reduce": "classify"},
        "classify": {
            "use": "mail.classify@1",
            "map": "parse",
            "with": {"types": ["spam"], "limit": "${{ parameters.limit }}"},
        },
        "parse": {"use": "mail.parse@1", "with": {"archive": "${{ parameters.archive }}"}},
    },
    "outputs": {"messages": "classify", "text": "report.text"},
}
ARTIFACT = {"sha256": "0" * 64, "size": 3}


def changed(**steps):
    document = copy.deepcopy(GOOD)
    for name, step in steps.items():
        document["steps"][name] = step
    return document


def plan(document):
    return make_plan(Pipeline.model_validate(document), CATALOGUE)


def problems(document):
    with pytest.raises(InvalidError) as refused:
        plan(document)
    assert refused.value.slug == "pipeline-invalid"
    return {one.pointer: one.message for one in refused.value.errors}


def test_steps_are_ordered_by_what_they_need():
    assert [node.name for node in plan(GOOD).nodes] == ["parse", "classify", "report", "send"]


def test_the_same_document_gives_the_same_order():
    assert plan(GOOD) == plan(copy.deepcopy(GOOD))


def test_kinds_upstreams_and_waits():
    nodes = {node.name: (node.kind, node.upstream, node.waits_for) for node in plan(GOOD).nodes}
    assert nodes == {
        "parse": ("source", "", frozenset()),
        "classify": ("map", "parse", frozenset()),
        "report": ("reduce", "classify", frozenset()),
        "send": ("call", "", frozenset({"report"})),
    }


def mails(*fields, required=()):
    properties = {name: {} for name in fields}
    return {"properties": properties, "required": [*required], "additionalProperties": True}


@pytest.mark.parametrize(
    ("comes", "taken", "given", "named"),
    [
        (mails("id", "text"), mails("text", "labels"), mails("text", "labels"), ("labels",)),
        (mails("id"), mails("text", required=["text"]), mails("text", "labels"), ("labels",)),
        (None, mails("text"), mails("text", "labels"), ("labels",)),
        (mails("id", "labels"), None, mails("id", "labels"), ("classify",)),
        (None, None, None, ("classify",)),
    ],
)
def test_without_an_optional_map_the_fields_are_missing_that_it_adds(comes, taken, given, named):
    catalogue = FakeCatalogue(
        capability("mail.parse@1", "source", output=comes),
        capability("mail.classify@1", "map", input=taken, output=given, options=OPTIONS),
        capability("mail.report@1", "reducer"),
        capability("mail.send@1", "call"),
    )
    document = changed(classify={**GOOD["steps"]["classify"], "optional": True})
    nodes = make_plan(Pipeline.model_validate(document), catalogue).nodes
    assert {node.name: node.gives for node in nodes}["classify"] == named


def test_an_output_that_names_batches_becomes_a_dataset():
    assert {node.name: node.dataset for node in plan(GOOD).nodes}["classify"] == "mail.messages"


@pytest.mark.parametrize(
    ("steps", "pointer", "words"),
    [
        ({"parse": {"use": "mail.pars@1"}}, "/steps/parse/use", "did you mean 'mail.parse@1'"),
        ({"parse": {"use": "mail.classify@1"}}, "/steps/parse/use", "map: STEP"),
        ({"report": {"use": "mail.report@1"}}, "/steps/report/use", "reduce: STEP"),
        (
            {"report": {"use": "mail.report@1", "map": "classify"}},
            "/steps/report/map",
            "is a reducer, it cannot map",
        ),
        (
            {"report": {"use": "mail.parse@1", "reduce": "classify"}},
            "/steps/report/reduce",
            "is a source, it cannot reduce",
        ),
        (
            {"more": {"use": "mail.classify@1", "map": "report", "with": {"types": []}}},
            "/steps/more/map",
            "gives one result, not batches",
        ),
        (
            {"more": {"use": "mail.classify@1", "map": "prase", "with": {"types": []}}},
            "/steps/more/map",
            "did you mean 'parse'",
        ),
        (
            {"classify": {"use": "mail.classify@1", "map": "parse"}},
            "/steps/classify/with",
            "'types' of mail.classify@1 is missing",
        ),
        (
            {
                "classify": {
                    "use": "mail.classify@1",
                    "map": "parse",
                    "with": {"types": [], "limits": 1},
                }
            },
            "/steps/classify/with/limits",
            "did you mean 'limit'",
        ),
        (
            {"send": {"use": "mail.send@1", "with": {"a": [{"b/c": "${{ parameters.achive }}"}]}}},
            "/steps/send/with/a/0/b~1c",
            "did you mean 'archive'",
        ),
        (
            {"send": {"use": "mail.send@1", "with": {"a": "${{ repot.text }}"}}},
            "/steps/send/with/a",
            "did you mean 'report'",
        ),
        (
            {"send": {"use": "mail.send@1", "with": {"a": "${{ classify.text }}"}}},
            "/steps/send/with/a",
            "gives batches, not a value",
        ),
        (
            {"send": {"use": "mail.send@1", "with": {"a": "${{ 1 + 1 }}"}}},
            "/steps/send/with/a",
            "is no reference",
        ),
        ({"parameters": {"use": "mail.send@1"}}, "/steps/parameters", "cannot be named"),
    ],
)
def test_mistakes_in_steps(steps, pointer, words):
    found = problems(changed(**steps))
    assert words in found[pointer]


def test_a_cycle_is_named():
    steps = {
        "report": {
            "use": "mail.report@1",
            "reduce": "classify",
            "with": {"of": "${{ send.id }}"},
        }
    }
    assert problems(changed(**steps))["/steps"] == (
        "the steps send → report → send wait for each other"
    )


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("nothing", "there is no step 'nothing'"),
        ("classify.n", "have no fields"),
        ("a b", "write STEP"),
    ],
)
def test_mistakes_in_outputs(output, words):
    document = {**GOOD, "outputs": {"x": output}}
    assert words in problems(document)["/outputs/x"]


def bind(**given):
    return bind_parameters(Pipeline.model_validate(GOOD), given)


def test_parameters_take_their_defaults():
    assert bind(archive=ARTIFACT) == {"archive": ARTIFACT, "limit": 5}


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ({}, "/parameters/archive"),
        ({"archive": "mail.mbox"}, "/parameters/archive"),
        ({"archive": {"sha256": "0", "size": 3}}, "/parameters/archive"),
        ({"archive": ARTIFACT, "limit": "5"}, "/parameters/limit"),
        ({"archive": ARTIFACT, "limit": True}, "/parameters/limit"),
        ({"archive": ARTIFACT, "limt": 5}, "/parameters/limt"),
    ],
)
def test_wrong_parameters(given, pointer):
    with pytest.raises(InvalidError) as refused:
        bind(**given)
    assert refused.value.slug == "parameter-invalid"
    assert refused.value.errors[0].pointer == pointer


def with_parameter(declared):
    return {**GOOD, "parameters": {**GOOD["parameters"], "n": declared}}


@pytest.mark.parametrize(
    "declared",
    [
        {"type": "integer", "default": "5"},
        {"type": "integer", "default": True},
        {"type": "artifact", "default": "mail.mbox"},
        {"default": 5},
    ],
)
def test_a_default_of_another_type_is_refused(declared):
    assert list(problems(with_parameter(declared))) == ["/parameters/n/default"]


@pytest.mark.parametrize(
    "declared",
    [
        {"type": "number", "default": 5},
        {"type": "array", "default": []},
        {"type": "integer", "default": None},
    ],
)
def test_a_default_of_its_type_is_taken(declared):
    assert plan(with_parameter(declared))


SCOPE = {"parameters": {"n": 5, "on": True, "name": "x"}, "step": {"list": [1, {"a": None}]}}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("plain", "plain"),
        ("${{ parameters.n }}", 5),
        ("${{parameters.on}}", True),
        ("${{ step.list }}", [1, {"a": None}]),
        ("${{ step.list.1.a }}", None),
        ("n=${{ parameters.n }}, on=${{ parameters.on }}", "n=5, on=true"),
        ("${{ parameters.n }}${{ parameters.n }}", "55"),
        (["${{ parameters.n }}", {"k": "${{ parameters.name }}"}], [5, {"k": "x"}]),
        ({"k": 1}, {"k": 1}),
        ("{{ vault.a.b }}", "{{ vault.a.b }}"),
    ],
)
def test_references_are_replaced(value, expected):
    assert resolve(value, SCOPE, Room.of_run()) == expected


@pytest.mark.parametrize(
    "value", ["${{ step.none }}", "${{ step.list.7 }}", "${{ other }}", "a ${{ step.list }}"]
)
def test_broken_references_are_errors(value):
    with pytest.raises(BrokenReferenceError):
        resolve(value, SCOPE, Room.of_run())


LONG = {"parameters": {"p": "x" * 10_000, "list": ["x" * 10_000]}}


@pytest.mark.parametrize("put_in", [resolve, fill])
@pytest.mark.parametrize(
    "value",
    ["${{ parameters.p }}" * 1000, ["${{ parameters.list }}"] * 1000],
    ids=["in one text", "by themselves"],
)
def test_many_references_to_one_long_value_are_refused(put_in, value):
    with pytest.raises(OptionsTooLargeError) as refused:
        put_in({"text": value}, LONG, Room.of_run().step("send"))
    assert refused.value.errors[0].pointer == "/steps/send/with"
    assert refused.value.errors[0].code == "too-large"


def test_the_steps_of_a_run_share_their_room():
    value = ["${{ parameters.p }}"] * (MAX_OPTIONS_BYTES // 11_000)
    steps = {f"s{number}": value for number in range(100)}
    with pytest.raises(OptionsTooLargeError) as refused:
        filled(steps, LONG["parameters"])
    assert refused.value.errors[0].pointer == "/steps"


def test_what_is_not_known_yet_stays_as_it_is_written():
    found = fill("${{ parameters.n }} of ${{ later.n }}", SCOPE, Room.of_run())
    assert found == "5 of ${{ later.n }}"


@pytest.mark.parametrize("text", ["", "a b", "a..b", ".a", "a.", "A", "a" * 65, "__class__"])
def test_what_is_no_path(text):
    with pytest.raises(ValueError, match="no reference"):
        parse_path(text)


def test_records_that_the_next_step_cannot_take_are_refused():
    given = {"type": "object", "properties": {"id": {"type": "string"}}}
    taken = {"type": "object", "properties": {"text": {}}, "required": ["text"]}
    catalogue = FakeCatalogue(
        capability("mail.parse@1", "source", output=given),
        capability("mail.classify@1", "map", options=OPTIONS, input=taken),
        capability("mail.report@1", "reducer"),
        capability("mail.send@1", "call"),
    )
    with pytest.raises(InvalidError) as refused:
        make_plan(Pipeline.model_validate(GOOD), catalogue)
    (found,) = refused.value.errors
    assert found.pointer == "/steps/classify/map"
    assert "text is required and not given" in found.message
