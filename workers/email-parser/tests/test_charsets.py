"""Bytes to text, whatever was declared."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worker_email_parser.charsets import decode


@pytest.mark.parametrize(
    ("data", "label", "text", "defects"),
    [
        (b"abc", None, "abc", []),
        ("é".encode(), "utf-8", "é", []),
        (b"\x93q\x94", "iso-8859-1", "“q”", []),
        ("é".encode(), None, "é", ["charset-undeclared"]),
        ("é".encode(), "us-ascii", "é", ["charset-undeclared"]),
        (b"caf\xe9", None, "café", ["charset-undeclared"]),
        (b"caf\xe9", "no-such-charset", "café", ["charset-unknown"]),
        (b"caf\xe9", "rot13", "café", ["charset-unknown"]),
        ("é".encode(), "big5-hkscs-but-wrong", "é", ["charset-unknown"]),
        (b"caf\xe9!", "utf-8", "caf�!", ["charset-wrong"]),
        ("日本".encode("iso2022_jp"), "iso-2022-jp", "日本", []),
        ("스티해".encode("cp949"), "ks_c_5601-1987", "스티해", []),
        (b"+2AA-", "utf-7", "?", []),
    ],
)
def test_text_and_what_was_wrong(data, label, text, defects):
    found = []
    assert (decode(data, label, found), found) == (text, defects)


def test_an_undeclared_alphabet_is_guessed():
    text = "Привет, это письмо без объявленной кодировки. Ответьте, пожалуйста, до пятницы."
    assert decode(text.encode("cp1251"), None, []) == text


@given(
    st.binary(max_size=300),
    st.sampled_from([None, "utf-8", "utf-16", "utf-7", "gb2312", "hz", "x", "idna"]),
)
def test_any_bytes_become_text_that_json_can_hold(data, label):
    decode(data, label, []).encode("utf-8")
