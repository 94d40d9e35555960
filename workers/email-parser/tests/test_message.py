"""Records: the fields of a message, and what is said of a malformed one."""

import hashlib
from pathlib import Path

import msgspec
import pytest
from hivemesh_sdk import Artifact
from hypothesis import given
from hypothesis import strategies as st
from worker_email_parser.message import TEXT_LIMIT, ParseChoices, Place, parse_message

DATA = Path(__file__).parent / "data"
PLAIN = b"""\
From: Jane Doe <jane@example.org>
To: a@example.org, "B, C" <b@example.org>
Date: Thu, 22 Aug 2002 18:26:25 +0700
Message-ID: <1@example.org>
References: <0@example.org>
Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=
List-Id: <list.example.org>
X-Other: y

Hello
"""
ATTACHED = b"""\
Content-Type: multipart/mixed; boundary=B

--B
Content-Type: multipart/alternative; boundary=A

--A
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable

caf=E9
--A
Content-Type: text/html

<p>caf&eacute;</p>
--A--
--B
Content-Type: application/pdf; name="../../etc/invoice.pdf"
Content-Disposition: attachment
Content-Transfer-Encoding: base64

aGVsbG8=
--B
Content-Type: image/png
Content-Disposition: inline; filename=logo.png

png
--B
Content-Type: message/rfc822

Subject: inner

inner text
--B--
"""


def test_the_fields_of_a_clean_message():
    record = msgspec.to_builtins(parse_message(PLAIN, place=Place(offset=7, length=400)))
    assert record == {
        "id": hashlib.sha256(PLAIN).hexdigest()[:32],
        "source": "",
        "offset": 7,
        "length": 400,
        "message_id": "1@example.org",
        "in_reply_to": [],
        "references": ["0@example.org"],
        "date": "2002-08-22T11:26:25Z",
        "date_original": "Thu, 22 Aug 2002 18:26:25 +0700",
        "from": [{"name": "Jane Doe", "address": "jane@example.org"}],
        "sender": [],
        "reply_to": [],
        "to": [
            {"name": "", "address": "a@example.org"},
            {"name": "B, C", "address": "b@example.org"},
        ],
        "cc": [],
        "bcc": [],
        "subject": "Grüße",
        "headers": {"list-id": ["<list.example.org>"]},
        "text": "Hello\n",
        "html": "",
        "attachments": [],
        "size": len(PLAIN),
        "defects": [],
    }


@pytest.mark.parametrize(
    ("headers", "names"),
    [
        (None, {"from", "to", "date", "message-id", "references", "subject", "list-id", "x-other"}),
        ((), set()),
        (("x-other", "absent"), {"x-other"}),
    ],
)
def test_only_the_wanted_headers_are_kept(headers, names):
    assert set(parse_message(PLAIN, ParseChoices(headers=headers)).headers) == names


def test_bodies_and_attachments_are_told_apart():
    message = parse_message(ATTACHED)
    assert (message.text.strip(), message.html.strip()) == ("café", "<p>caf&eacute;</p>")
    assert [(each.name, each.type, each.inline) for each in message.attachments] == [
        ("invoice.pdf", "application/pdf", False),
        ("logo.png", "image/png", True),
        (None, "message/rfc822", False),
    ]
    assert message.attachments[0].size == 5
    assert message.attachments[0].sha256 == hashlib.sha256(b"hello").hexdigest()


def test_bodies_and_attachments_can_be_left_out():
    message = parse_message(ATTACHED, ParseChoices(bodies=False, attachments="none"))
    assert (message.text, message.html, message.attachments) == ("", "", [])


def test_an_attachment_is_stored_on_request_and_only_then_named():
    def keep(content, media_type, name):
        return Artifact(sha256=content.hex(), size=len(content), media_type=media_type, name=name)

    message = parse_message(ATTACHED, ParseChoices(attachments="artifacts"), keep=keep)
    artifact = message.attachments[0].artifact
    assert (artifact.sha256, artifact.name) == (b"hello".hex(), "invoice.pdf")
    assert b'"artifact"' not in msgspec.json.encode(parse_message(ATTACHED))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ruby-mail/japanese_shift_jis.eml", "あいうえお"),
        ("ruby-mail/ks_c_5601-1987.eml", "스티해"),
        ("ruby-mail/cant_parse_from.eml", "From one solid piece of aluminum"),
        ("cpython/msg_10.txt", "This is a Base64 encoded message."),
    ],
)
def test_text_of_real_messages(name, text):
    message = parse_message((DATA / name).read_bytes())
    assert text in message.text
    assert message.defects == []


def test_a_delivery_report_keeps_its_parts_as_attachments():
    message = parse_message((DATA / "nodemailer/delivery-status.eml").read_bytes())
    assert [each.type for each in message.attachments] == [
        "message/delivery-status",
        "message/rfc822",
    ]


@pytest.mark.parametrize(
    ("raw", "defect"),
    [
        (b"", "no-headers"),
        (b"\n\njust text\n", "no-headers"),
        (b"Subject: no body", "header-unterminated"),
        (b"Subject: a\n\nnul \0 byte\n", "nul-bytes"),
        (b"Subject: caf\xe9\n\n", "header-8bit"),
        (b"Content-Type: text/plain; charset=x-bogus\n\ncaf\xe9", "charset-unknown"),
        (b"Content-Type: text/plain; charset=utf-8\n\ncaf\xe9", "charset-wrong"),
        (b"Content-Transfer-Encoding: base64\n\n=====x", "base64-invalid"),
        (b"Date: the day after\n\n", "date-invalid"),
        (b"From: Jane\xff Doe\n\n", "address-invalid"),
        (b"From: a@b\nFrom: c@d\n\n", "header-repeated"),
        (b"To: " + b"a@b,\n " * 20_000 + b"c@d\n\n", "addresses-truncated"),
        (b"\n" + b"x" * (TEXT_LIMIT + 1), "text-truncated"),
        (b"X: y\n" * 20_000 + b"\n", "header-malformed"),
    ],
)
def test_a_malformed_message_is_parsed_with_its_defect_named(raw, defect):
    message = parse_message(raw, ParseChoices(headers=None))
    assert defect in message.defects
    assert len(message.defects) == len(set(message.defects))
    msgspec.json.encode(message)


PIECES = st.sampled_from(
    [
        b"\n", b"\r\n", b"Content-Type: multipart/mixed; boundary=B\n", b"--B\n", b"--B--\n",
        b"Content-Type: message/rfc822\n", b"Content-Transfer-Encoding: base64\n", b"Subject: ",
        b"=?utf-8?b?w6k=?=", b"=?x?q?\xff?=", b'From: <(",;:\n', b"Date: 1 Jan 1 1:1 +9\n",
        b'Content-Type: text/html; charset="utf-7\n', b"\0", b"\xff\xfe", b"text", b" \t",
        b"Content-Disposition: attachment; filename*0*=x''%FF\n", b"boundary=", b"+2AA-",
    ]
)  # fmt: skip


@given(st.lists(st.one_of(PIECES, st.binary(max_size=20)), max_size=30))
def test_no_bytes_raise_and_every_record_is_json(pieces):
    raw = b"".join(pieces)
    message = parse_message(raw, ParseChoices(headers=None))
    assert msgspec.json.decode(msgspec.json.encode(message))["size"] == len(raw)


def test_a_multipart_without_parts_is_read_as_text():
    message = parse_message(b"Content-Type: multipart/mixed; boundary=B\n\nnot --B but text\n")
    assert (message.text, message.defects) == ("not --B but text\n", ["multipart-without-parts"])


def test_text_without_any_header_is_all_body():
    message = parse_message(b"first paragraph\n\nsecond\n")
    assert (message.text, message.defects) == ("first paragraph\n\nsecond\n", ["no-headers"])


def test_a_known_end_of_the_header_changes_nothing():
    known = PLAIN.index(b"\n\n") + 1
    assert parse_message(PLAIN, place=Place(header=known)) == parse_message(PLAIN)


def test_a_message_without_body_is_no_defect_in_an_mbox():
    assert parse_message(b"Subject: a\n").defects == []
