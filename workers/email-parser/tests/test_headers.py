"""Header blocks and encoded words."""

import pytest
from worker_email_parser.headers import Headers, collapse, decode_words, parameters


def headers(block):
    return Headers(block, [])


def test_folded_fields_are_unfolded():
    assert headers(b"Subject: a\r\n\tb\r\n c\r\n").text("subject", []) == "a b c"


def test_names_are_compared_in_lower_case_and_repeats_are_kept():
    found = headers(b"Received: 1\nRECEIVED : 2\n").all_text(None, [])
    assert found == {"received": ["1", "2"]}


def test_lines_that_are_no_field_are_passed_over_and_noted():
    defects = []
    found = Headers(b"Subject: a\nno field here\nTo: b\n", defects)
    assert (found.raw("to"), defects) == ("b", ["header-malformed"])


def test_a_separator_line_among_the_fields_is_no_defect():
    defects = []
    Headers(b">From x@y Thu Sep 13 12:30:05 2001\nTo: b\n", defects)
    assert defects == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("=?utf-8?q?J=C3=B6rg_K?=", "Jörg K"),
        ("=?UTF-8?B?w6k=?=", "é"),
        ("a =?utf-8?q?b?= c", "a b c"),
        ("=?utf-8?q?a?= =?utf-8?q?b?=", "ab"),
        ("=?utf-8?b?ww==?= =?utf-8?b?qQ==?=", "é"),
        ("=?iso-8859-1?q?=E9?= =?utf-8?q?=C3=A9?=", "éé"),
        ("=?utf-8*de?q?a?=", "a"),
        ("=?windows-1251?q?=CF=F0?=", "Пр"),
        ("=?no-such?q?abc?=", "abc"),
        ("=?utf-8?x?abc?=", "=?utf-8?x?abc?="),
        ("a =? b", "a =? b"),
    ],
)
def test_encoded_words(value, text):
    assert decode_words(value, []) == text


def test_raw_bytes_in_a_field_are_read_as_utf_8_or_what_is_probable():
    found = headers("Subject: é\n".encode() + b"From: caf\xe9 <a@b>\n")
    assert found.text("subject", []) == "é"
    assert found.text("from", []) == "café <a@b>"


def test_identifiers_lose_their_brackets():
    assert headers(b"References: <a@b> <c@d>\n\t<e@f>\n").identifiers("references") == [
        "a@b",
        "c@d",
        "e@f",
    ]


def test_an_identifier_without_brackets_is_taken_if_it_stands_alone():
    found = headers(b"Message-ID: a@b\nIn-Reply-To: your mail of Monday x@y\n")
    assert (found.identifiers("message-id"), found.identifiers("in-reply-to")) == (["a@b"], [])


def test_parameters_are_unquoted():
    assert parameters('Text/Plain; charset="utf-8"; name = "a;b\\"c.txt"') == (
        "text/plain",
        {"charset": "utf-8", "name": 'a;b"c.txt'},
    )


def test_white_space_collapses():
    assert collapse(" a\t \n b ") == "a b"
