"""Part trees, also where fast-mail-parser refuses."""

from pathlib import Path

import pytest
from worker_email_parser.parts import part_tree

DATA = Path(__file__).parent / "data"
MIXED = b"Content-Type: multipart/mixed; boundary=B\n\n--B\n%s\n--B--\n"


def shape(part):
    return [part.type, *map(shape, part.children)] if part.children else part.type


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "mime4j/missing-inner-boundary.msg",
            ["multipart/mixed", "text/plain", "multipart/alternative"],
        ),
        (
            "mime4j/base64encoded-rfc822message-nested.msg",
            ["message/rfc822", ["message/rfc822", "text/plain"]],
        ),
        (
            "cpython/msg_05.txt",
            ["multipart/report", "text/plain", "text/plain", ["message/rfc822", "text/plain"]],
        ),
        (
            "nodemailer/mixed.eml",
            ["multipart/mixed", ["multipart/alternative", "text/plain", "text/html"], "text/plain"],
        ),
    ],
)
def test_trees_of_real_messages(name, expected):
    assert shape(part_tree((DATA / name).read_bytes())) == expected


def test_a_part_of_damaged_base64_is_decoded_as_far_as_possible():
    defects = []
    part = b"Content-Type: image/png\nContent-Transfer-Encoding: base64\n\naGVsbG8hx\n"
    tree = part_tree(MIXED % part, defects)
    assert tree.children[0].content == b"hello!"
    assert "transfer-encoding-invalid" in defects


@pytest.mark.parametrize("encoding", [b"base64 ", b"base64 (comment)", b'"base64"', b"BASE64"])
def test_an_encoding_written_oddly_is_still_undone(encoding):
    part = b"Content-Type: image/png\nContent-Transfer-Encoding: " + encoding + b"\n\naGVsbG8=\n"
    assert part_tree(MIXED % part).children[0].content == b"hello"


def test_file_names_with_character_sets_and_continuations_are_joined():
    tree = part_tree(
        b"Content-Type: application/pdf;\n name*0*=utf-8''f%C3%A4; name*1=ktura.pdf\n\nx"
    )
    assert tree.name == "fäktura.pdf"


@pytest.mark.parametrize("depth", [257, 3000])
def test_a_nest_too_deep_is_kept_as_one_leaf(depth):
    defects = []
    nest = b"".join(
        b'Content-Type: multipart/mixed; boundary="b%d-"\n\n--b%d-\n' % (n, n) for n in range(depth)
    )
    tree = part_tree(nest + b"\nx", defects)
    assert (tree.type, defects) == ("application/octet-stream", ["mime-too-deep"])


def test_a_million_parts_become_two_thousand():
    defects = []
    tree = part_tree(MIXED % (b"\nx\n--B\n" * 20_000), defects)
    assert (len(tree.children), defects) == (2000, ["parts-truncated"])


@pytest.mark.parametrize("byte", [b"\xe9", b"\x1b", b"\x0c", b"\0"])
def test_bytes_that_quoted_printable_should_not_hold_are_kept(byte):
    part = b"Content-Transfer-Encoding: quoted-printable\n\na" + byte + b"b=3D\n"
    assert part_tree(MIXED % part).children[0].content.rstrip() == b"a" + byte + b"b="


def test_eight_bit_text_beside_damaged_base64_keeps_its_bytes():
    text = b"Content-Type: text/plain; charset=iso-8859-1\n\ncaf\xe9\n--B\n"
    damaged = b"Content-Type: image/png\nContent-Transfer-Encoding: base64\n\naGVsbG8hx\n"
    assert part_tree(MIXED % (text + damaged)).children[0].content.rstrip() == b"caf\xe9"


def test_a_boundary_that_is_encoded_is_understood():
    raw = b"Content-Type: multipart/mixed; boundary*=us-ascii''B\n\n--B\n\none\n--B--\n"
    assert shape(part_tree(raw)) == ["multipart/mixed", "text/plain"]
