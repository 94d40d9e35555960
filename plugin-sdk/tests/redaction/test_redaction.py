"""Values of secrets are masked in every form in which a text may hold them."""

import base64
import io
import json
from urllib.parse import quote, quote_plus

import pytest
from hivemesh_sdk.redaction import MASK, MaskedStream, Redactor, forms
from hypothesis import given
from hypothesis import strategies as st

VALUE = 'pässword "with" /every+thing=\n\\'
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=6)


@pytest.fixture
def redactor():
    found = Redactor()
    found.add(VALUE)
    return found


WAYS = {
    "raw": lambda value: value,
    "json": lambda value: json.dumps({"a": value}),
    "json, utf-8": lambda value: json.dumps({"a": value}, ensure_ascii=False),
    "repr": repr,
    "url": lambda value: "https://host/?q=" + quote(value, safe=""),
    "path": quote,
    "form": quote_plus,
    "hexadecimal": lambda value: value.encode().hex(),
    "HEXADECIMAL": lambda value: value.encode().hex().upper(),
    "base64": lambda value: base64.b64encode(value.encode()).decode(),
    "urlsafe base64": lambda value: base64.urlsafe_b64encode(value.encode()).decode(),
    "basic": lambda value: base64.b64encode(b"user:" + value.encode()).decode(),
    "basic, 1": lambda value: base64.b64encode(b"u:" + value.encode() + b":more").decode(),
    "basic, 2": lambda value: base64.b64encode(b"us:" + value.encode() + b"..").decode(),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_form_is_masked(redactor, way):
    text = f"before {WAYS[way](VALUE)} after"
    masked = redactor.masked(text)
    assert MASK in masked
    assert masked.startswith("before ")
    assert masked.endswith(" after")
    assert not [form for form in forms(VALUE) if form in masked]
    assert redactor.finds(text.encode())
    assert not redactor.finds(redactor.masked_bytes(text.encode()))


@given(TEXT, st.binary(max_size=5), st.binary(max_size=5))
def test_base64_is_masked_wherever_the_value_begins(value, before, after):
    found = Redactor()
    found.add(value)
    text = base64.b64encode(before + value.encode() + after).decode()
    inner = base64.b64encode(value.encode()).decode()
    masked = found.masked(text)
    assert MASK in masked
    assert inner not in masked


def test_what_is_not_a_secret_stays(redactor):
    assert redactor.masked("nothing to hide") == "nothing to hide"
    assert Redactor().masked(VALUE) == VALUE


def test_short_values_are_not_masked():
    found = Redactor()
    found.add("abc")
    assert found.masked("abcdef") == "abcdef"
    found.add("true")
    assert found.masked('{"a": true}') == '{"a": ***}'
    assert not found.finds(b'{"a": true}')  # an answer is not refused for such a word


def test_a_value_is_masked_until_all_who_added_it_are_done():
    found = Redactor()
    found.add("correct-horse")
    found.add("correct-horse")
    found.remove("correct-horse")
    assert found.masked("correct-horse") == MASK
    found.remove("correct-horse")
    assert found.masked("correct-horse") == "correct-horse"


def test_a_retired_value_is_masked_for_a_while_and_sought_no_more():
    found = Redactor()
    found.add("correct-horse")
    found.retire("correct-horse")
    assert found.masked("correct-horse") == MASK
    assert not found.finds(b"correct-horse")
    for number in range(20):
        found.add(f"another-value-{number}")
        found.retire(f"another-value-{number}")
    assert found.masked("correct-horse") == "correct-horse"


def test_the_longer_of_two_values_is_masked_whole():
    found = Redactor()
    found.add("horse-battery")
    found.add("correct-horse-battery-staple")
    assert found.masked("a correct-horse-battery-staple b") == "a *** b"


def test_a_masked_stream_is_the_stream_but_for_the_secrets(redactor):
    inner = io.StringIO()
    stream = MaskedStream(inner, redactor)
    print("key", VALUE, file=stream, flush=True)
    assert VALUE not in inner.getvalue()
    assert not stream.closed
