"""XML of strangers: a tree comes out, or a coded refusal."""

from contextlib import suppress

import pytest
from hivemesh_sdk.errors import InvalidError
from hivemesh_sdk.safeio.problems import MalformedError
from hivemesh_sdk.safeio.xml import XmlUnsafeError, parse_xml
from hypothesis import given
from hypothesis import strategies as st

BOMB = b"""<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><r>&b;</r>"""


def test_tree_has_names_attributes_and_text():
    root = parse_xml(b'<r xmlns:x="urn:x"><x:item n="1">t&amp;\xc3\xa4</x:item><!-- c --></r>')
    (item,) = list(root)
    assert (root.tag, item.tag, item.get("n"), item.text) == ("r", "{urn:x}item", "1", "t&\u00e4")


def test_attribute_of_a_namespace_is_named_in_full():
    root = parse_xml(b'<r xmlns:x="urn:x" x:a="1" b="2"/>')
    assert dict(root.attrib) == {"{urn:x}a": "1", "b": "2"}


@pytest.mark.parametrize(
    "data",
    [
        BOMB,
        b'<!DOCTYPE r SYSTEM "file:///etc/passwd"><r/>',
        b'<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]><r>&x;</r>',
        b'<!DOCTYPE r [<!ENTITY % p SYSTEM "https://example.org/e.dtd"> %p;]><r/>',
        b"<!DOCTYPE html><html/>",
    ],
)
def test_document_type_is_refused_before_anything_expands(data):
    with pytest.raises(XmlUnsafeError):
        parse_xml(data)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"<r>" * 65 + b"</r>" * 65, "too-deep"),
        (b"<r>" + b"<a/>" * 200 + b"</r>", "too-large"),
        (b"<r " + b" ".join(b'a%d=""' % number for number in range(300)) + b"/>", "too-large"),
        (b"<r>" + b" " * 5000 + b"</r>", "too-large"),
        (b"", "xml"),
        (b"<r>", "xml"),
        (b"<r></s>", "xml"),
        (b"<r>&undefined;</r>", "xml"),
        (b'<r a="1" a="2"/>', "xml"),
        (b'<?xml version="1.0" encoding="martian"?><r/>', "xml"),
        (b"<r>\xff</r>", "xml"),
    ],
)
def test_unusable_document_is_refused_with_its_code(data, code):
    with pytest.raises(MalformedError) as caught:
        parse_xml(data, max_bytes=4000, max_elements=100)
    assert caught.value.code == code


def test_depth_far_beyond_the_limit_is_refused_the_same():
    with pytest.raises(MalformedError):
        parse_xml(b"<r>" * 100_000)


@given(st.binary(max_size=200) | st.text("<>/&;a=\"' !DOCTYPE[]", max_size=80).map(str.encode))
def test_anything_is_a_tree_or_a_coded_refusal(data):
    with suppress(InvalidError):
        parse_xml(data)
