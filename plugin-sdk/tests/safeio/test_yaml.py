"""What the YAML reader accepts and refuses."""

import pytest
from hivemesh_sdk.safeio import MalformedError, parse_yaml
from hivemesh_sdk.safeio.yaml import MAX_BYTES, parse_yaml_document


def refusal(text: str | bytes, *, max_aliases: int = 0) -> MalformedError:
    with pytest.raises(MalformedError) as caught:
        parse_yaml(text, name="x.yaml", max_aliases=max_aliases)
    return caught.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: no", "no"),
        ("a: on", "on"),
        ("a: yes", "yes"),
        ("a: true", True),
        ("a: False", False),
        ("a: 010", 10),
        ("a: 0o10", 8),
        ("a: 0x1F", 31),
        ("a: 12:30", "12:30"),
        ("a: 2002-08-22", "2002-08-22"),
        ("a: 1_000", "1_000"),
        ("a: 1e3", 1000.0),
        ("a: -.5", -0.5),
        ("a: 1.2.3", "1.2.3"),
        ("a: ~", None),
        ("a:", None),
        ("a: 'true'", "true"),
        ("a: [1, two, {b: 3}]", [1, "two", {"b": 3}]),
        ("a: |\n  x\n  y\n", "x\ny\n"),
    ],
)
def test_scalars_follow_the_core_schema(text, value):
    assert parse_yaml(text) == {"a": value}


def test_an_empty_document_is_null():
    assert parse_yaml("# nothing\n") is None


def test_a_key_written_on_the_left_may_be_a_word_of_yaml_1_1():
    assert parse_yaml("on: push\nno: 1") == {"on": "push", "no": 1}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a: 1\na: 2", "duplicate-key"),
        ("a: &x 1\nb: *x", "alias"),
        ("1: a", "key"),
        ("true: a", "key"),
        ("[a]: b", "key"),
        ("<<: {a: 1}", "key"),
        ("a: !!python/object/apply:os.system [x]", "tag"),
        ("a: !!binary aGk=", "scalar"),
        ("a: !!set {x}", "tag"),
        ("a: .inf", "scalar"),
        ("a: .NaN", "scalar"),
        ("a: 1e999", "scalar"),
        ("a: !!int x", "scalar"),
        ("a: " + "9" * 200, "scalar"),
        ("a: [1", "yaml-syntax"),
        ("a: 1\n---\nb: 2", "yaml-syntax"),
        ("a: \x00", "yaml-syntax"),
        (b"a: \xff", "utf-8"),
        ("[" * 65 + "]" * 65, "too-deep"),
        (" " * (MAX_BYTES + 1), "too-large"),
    ],
)
def test_what_json_cannot_say_is_refused(text, code):
    assert refusal(text).code == code


def test_a_duplicate_key_is_named_by_line_and_pointer():
    error = refusal("a:\n  b: 1\n  c: 2\n  b: 3\n")
    assert "x.yaml line 4, column 3: the key 'b' is written twice" in error.detail
    assert error.errors[0].pointer == "/a/b"


def test_aliases_are_read_where_they_are_allowed():
    assert parse_yaml("a: &x [1]\nb: *x", max_aliases=1) == {"a": [1], "b": [1]}


def test_more_aliases_than_allowed_are_refused():
    assert refusal("a: &x 1\nb: [*x, *x, *x]", max_aliases=2).code == "alias"


def test_an_alias_inside_its_own_anchor_is_refused():
    assert refusal("a: &x [*x]", max_aliases=9).code == "alias"


def test_an_alias_bomb_is_refused_by_what_it_would_become():
    levels = ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert refusal("\n".join(levels), max_aliases=100).code == "too-many-values"


def test_lines_are_known_by_pointer():
    document = parse_yaml_document("a:\n  - b: 1\n  - c/d: 2\n")
    assert document.lines["/a/1/c~1d"] == 3
