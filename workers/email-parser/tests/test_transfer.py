"""Transfer encodings, damaged ones included."""

import pytest
from worker_email_parser.transfer import encoding_token, undo


@pytest.mark.parametrize(
    ("body", "encoding", "content", "defects"),
    [
        (b"aGVs\nbG8=\n", "base64", b"hello", []),
        (b"aGVsbG8", "base64", b"hello", ["base64-invalid"]),
        (b"aGVsbG8hx", "base64", b"hello!", ["base64-invalid"]),
        (b"caf=E9=\n!", "quoted-printable", b"caf\xe9!", []),
        (b"100=ZZ", "quoted-printable", b"100=ZZ", []),
        (b"begin 644 a\n#86)C\n`\nend\n", "x-uuencode", b"abc", []),
        (b"begin 644 a\n#86)Cgarbage\nend\n", "uuencode", b"abc", []),
        (b"no such thing", "x-uuencode", b"no such thing", ["uuencode-invalid"]),
        (b"as it is", "8bit", b"as it is", []),
    ],
)
def test_content_and_what_was_wrong(body, encoding, content, defects):
    found = []
    assert (undo(body, encoding, found), found) == (content, defects)


@pytest.mark.parametrize("value", ["base64", "BASE64 ", '"base64"', "base64; x", "base64 (yes)"])
def test_the_token_is_what_was_meant(value):
    assert encoding_token(value) == "base64"
