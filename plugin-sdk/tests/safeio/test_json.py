"""What the JSON reader accepts and refuses."""

import json

import pytest
from hivemesh_sdk.safeio import MalformedError, parse_json
from hivemesh_sdk.safeio.json import parse_json_fast
from hypothesis import given
from hypothesis import strategies as st


def refusal(data: str | bytes) -> MalformedError:
    with pytest.raises(MalformedError) as caught:
        parse_json(data, name="the body")
    return caught.value


def test_a_document_is_read():
    assert parse_json(b'{"a": [1, 2.5, null, true, "\\u00e9"]}') == {"a": [1, 2.5, None, True, "é"]}


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ('{"a": NaN}', "number"),
        ("[Infinity]", "number"),
        ("[1e999]", "number"),
        ("[" + "9" * 5000 + "]", "number"),
        ('{"a": 1,}', "json-syntax"),
        ("", "json-syntax"),
        ('{"a": 1} x', "json-syntax"),
        ("\ufeff{}", "json-syntax"),
        (b'"\xff"', "utf-8"),
        ('"\\ud800"', "utf-8"),
        ('{"\\udc00": 1}', "utf-8"),
        ("[" * 65 + "]" * 65, "too-deep"),
        ("[" * 100_000, "too-deep"),
        (" " * (1024 * 1024 + 1), "too-large"),
    ],
)
def test_what_readers_would_understand_differently_is_refused(data, code):
    assert refusal(data).code == code


def test_a_duplicate_key_is_named_by_pointer():
    error = refusal('{"a": [{"x": 1}, {"b": 1, "b": 2}]}')
    assert (error.code, error.errors[0].pointer) == ("duplicate-key", "/a/1/b")


def test_a_syntax_error_is_named_by_offset():
    assert "offset 6 (line 2, column 5)" in refusal('{\n"a" 1}').detail


def test_brackets_inside_text_do_not_count_as_depth():
    assert parse_json('["' + "[" * 500 + '\\""]') == ["[" * 500 + '"']


def test_a_whole_surrogate_pair_is_one_character():
    assert parse_json('"\\ud83d\\ude00"') == "\U0001f600"


@pytest.mark.parametrize(
    "data",
    [
        "{" + ",".join(f'"{number}":0' for number in range(70_000)) + ',"69999":0}',
        "[" * 60 + "]" * 60 + "[]," * 5 + '"' + '\\"' * 500_000,
        "[" * 60 + "]" * 60 + "[]," * 5 + '"' * 1_000_001,
        "[" * 60 + "]" * 60 + "[]," * 5 + '"\\',
    ],
    ids=["a key twice at the end", "a string that never ends", "many strings", "a last backslash"],
)
def test_hostile_document_is_refused_in_one_pass(data):
    with pytest.raises(MalformedError):  # a second look at each character would take hours
        parse_json(data)


TEXTS = st.text('[]{}"\\ab\n', max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
)


def depth(value):
    if not isinstance(value, list | dict):
        return 0
    below = value.values() if isinstance(value, dict) else value
    return 1 + max(map(depth, below), default=0)


@given(VALUES, st.integers(0, 6))
def test_the_fast_reader_counts_the_same_depth(value, limit):
    data = json.dumps(value).encode()
    if depth(value) > limit:
        with pytest.raises(MalformedError, match="deeper"):
            parse_json_fast(data, max_depth=limit)
    else:
        assert parse_json_fast(data, max_depth=limit) == value


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"1 2",
        b'1,"a":2',
        b'"\xff"',
        b"1e999",
        b'"\\ud800"',
        b"[" * 65 + b"]" * 65,
        b"[" * 100_000,
        b'["' + b"[" * 100_000,
        b"]" * 100,
        b'"' * 101 + b"[" * 101,
    ],
)
def test_what_the_fast_reader_refuses(data):
    with pytest.raises(MalformedError):
        parse_json_fast(data)
