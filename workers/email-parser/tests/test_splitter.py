"""Where a message of an mbox begins and ends."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worker_email_parser.errors import EmptyArchiveError, NotAnMboxError
from worker_email_parser.splitter import Splitter

SEPARATOR = b"From jane@example.org Thu Sep 13 12:30:05 2001\n"
ONE = b"Subject: one\n\nfirst body\n"
TWO = b"Subject: two\n\nsecond body\n"
MULTIPART = b"Content-Type: multipart/mixed; boundary=XX\n\n--XX\n\n"


class Dribble:
    """A stream that never gives more than `most` bytes."""

    def __init__(self, data: bytes, most: int) -> None:
        self._stream = io.BytesIO(data)
        self._most = most

    def read(self, size: int, /) -> bytes:
        return self._stream.read(min(size, self._most))


def split(data, **options):
    return list(Splitter(io.BytesIO(data), **options))


def raws(data, **options):
    return [span.raw for span in split(data, **options)]


def test_positions_and_bytes_are_exact():
    first, second = split(SEPARATOR + ONE + b"\n" + SEPARATOR + TWO)
    assert (first.offset, first.length, first.raw) == (0, len(SEPARATOR + ONE) + 1, ONE)
    assert (second.offset, second.raw) == (first.end, TWO)


@pytest.mark.parametrize(
    "separator",
    [
        b"From jane@example.org Thu Sep 13 12:30:05 2001\n",
        b"From jane@example.org  Thu Sep  3 12:30:05 2001\n",
        b"From jane@example.org Thu Sep 13 12:30:05 2001 -0400\n",
        b"From jane@example.org Thu Sep 13 12:30:05 EDT 2001\n",
        b"From jane@example.org Thu Sep 13 12:30 EDT 2001\n",
        b"From jane@example.org Thu Sep 13 12:30:05 +0200 2001\n",
        b"From jane Thu Sep 13 12:30 2001\n",
        b"From host!jane Thu Sep 13 12:30:05 2001 remote from host\n",
        b"From - Thu Sep 13 12:30:05 2001\n",
        b"From ???@??? Thu Sep 13 12:30:05 2001\n",
        b"From jane at example.org  Thu Sep 13 12:30:05 2001\n",
        b"From j@ne @end|ng |rom ex@mp|e@org  Thu Sep 13 12:30:05 2001\n",
        b"From MAILER-DAEMON Fri Jan  5 10:00:00 1996 MET DST\n",
        b"From jane@example.org 13 Sep 2001 12:30:05\n",
        b"From jane@example.org 2001-09-13 12:30:05\n",
        b"From jane@example.org Thu Sep 13 12:30:05 2001\r\n",
    ],
)
def test_every_separator_style_begins_a_message(separator):
    assert raws(separator + ONE + b"\n" + separator + TWO) == [ONE, TWO]


@pytest.mark.parametrize(
    "line",
    [
        b"From this principle, all of life may be deduced.\n",
        b"From Monday on we meet at 12:30\n",
        b">From jane@example.org Thu Sep 13 12:30:05 2001\n",
        b"From: jane@example.org Thu Sep 13 12:30:05 2001\n",
    ],
)
def test_other_lines_that_begin_with_from_are_text(line):
    assert len(split(SEPARATOR + ONE + b"\n" + line + b"Note: more\n")) == 1


def test_a_separator_needs_a_blank_line_before_it():
    assert len(split(SEPARATOR + ONE + SEPARATOR + TWO)) == 1


def test_a_separator_needs_a_header_after_it():
    assert len(split(SEPARATOR + ONE + b"\n" + SEPARATOR + b"said Jane, at noon\n")) == 1


def test_pipermail_writes_no_blank_line_but_repeats_the_address():
    line = b"From jane at example.org  Thu Sep 13 12:30:05 2001\nFrom: jane at example.org (Jane)\n"
    assert len(split(line + b"\nbody\n" + line + b"\nbody\n")) == 2


def test_an_included_message_stays_inside():
    text = b"\n----- Begin Included Message -----\n\n" + SEPARATOR + TWO
    assert len(split(SEPARATOR + ONE + text)) == 1


def test_a_message_in_an_open_multipart_stays_inside():
    inner = b"Content-Type: message/rfc822\n\n" + SEPARATOR + TWO + b"\n" + SEPARATOR + ONE
    message = MULTIPART + b"text\n--XX\n" + inner + b"\n--XX--\n\n"
    assert [span.offset for span in split(SEPARATOR + message + SEPARATOR + TWO)] == [
        0,
        len(SEPARATOR + message),
    ]


def test_many_separators_in_an_open_multipart_are_read_in_one_pass():
    part = (b"\n" + SEPARATOR + b"A: b\n") * 4000 + b"--XX\n"
    data = SEPARATOR + MULTIPART + part * 16  # looking ahead from each of them would take minutes
    [span] = split(data + b"--XX--\n")
    assert span.length == len(data) + 7


def test_a_multipart_that_was_cut_off_does_not_swallow_what_follows():
    assert len(split(SEPARATOR + MULTIPART + b"text\n\n" + SEPARATOR + TWO)) == 2


def test_a_boundary_used_again_by_the_next_message_is_no_part_of_the_first():
    assert len(split(2 * (SEPARATOR + MULTIPART + b"text\n\n"))) == 2


def test_content_length_that_is_right_keeps_separators_inside():
    body = b"text\n\n" + SEPARATOR + TWO
    message = b"Content-Length: %d\nSubject: one\n\n" % len(body) + body
    assert raws(SEPARATOR + message + b"\n" + SEPARATOR + ONE) == [message, ONE]


@pytest.mark.parametrize("length", [b"3", b"100000000000", b"60000000", b"70"])
def test_content_length_that_is_wrong_is_ignored(length):
    message = b"Content-Length: " + length + b"\n\nbody\n"
    assert raws(SEPARATOR + message + b"\n" + SEPARATOR + ONE) == [message, ONE]


def test_mmdf_lines_delimit():
    line = b"\x01\x01\x01\x01\n"
    data = line + ONE + line + line + SEPARATOR + TWO + b"\n" + SEPARATOR + b"x\n" + line
    first, second = split(data)
    assert first.raw == ONE
    assert second.raw == TWO + b"\n" + SEPARATOR + b"x\n"
    assert first.end == second.offset
    assert second.end == len(data)


def test_separators_without_a_date_work_where_the_file_begins_so():
    assert raws(b"From jane\n" + ONE + b"\nFrom joe\n" + TWO) == [ONE, TWO]


def test_line_ends_of_dos_are_kept():
    data = (SEPARATOR + ONE + b"\n" + SEPARATOR + TWO).replace(b"\n", b"\r\n")
    assert raws(data) == [ONE.replace(b"\n", b"\r\n"), TWO.replace(b"\n", b"\r\n")]


@pytest.mark.parametrize("leading", [b"\n", b"\r\n\r\n", b"\xef\xbb\xbf", b"\n" * 5000])
def test_what_is_blank_before_the_first_separator_is_skipped(leading):
    assert [span.offset for span in split(leading + SEPARATOR + ONE)] == [len(leading)]


def test_a_message_over_the_limit_is_named_and_passed_over():
    big = SEPARATOR + b"Subject: big\n\n" + b"a line of text\n" * 9000 + b"\n"
    data = SEPARATOR + ONE + b"\n" + big + SEPARATOR + TWO
    spans = list(Splitter(Dribble(data, 999), max_message=50_000))
    assert [(span.offset, span.length, span.raw is None) for span in spans] == [
        (0, len(SEPARATOR + ONE) + 1, False),
        (len(SEPARATOR + ONE) + 1, len(big), True),
        (len(data) - len(SEPARATOR + TWO), len(SEPARATOR + TWO), False),
    ]


def test_nothing_but_line_breaks_is_empty():
    with pytest.raises(EmptyArchiveError, match="holds no message"):
        split(b"\n\n")


def test_a_file_that_begins_otherwise_is_no_mbox():
    with pytest.raises(NotAnMboxError, match="begins with b'Dear Jane'"):
        split(b"Dear Jane")


LINES = [
    SEPARATOR,
    b"From jane at x.org  Thu Sep 13 12:30:05 2001\nFrom: jane at x.org (J)\n",
    b"Subject: x\n",
    b"Content-Length: 30\n",
    b"Content-Type: multipart/mixed; boundary=B\n",
    b"--B\n",
    b"--B--\n",
    b"\n",
    b"\n",
    b"text\n",
    b"\r\n",
    b"----- Original Message -----\n",
    b"From here on\n",
]


@given(
    st.lists(st.sampled_from(LINES), max_size=40), st.integers(1, 200), st.sampled_from([90, 10**6])
)
def test_the_cut_depends_neither_on_block_sizes_nor_on_where_reading_resumed(lines, most, limit):
    data = SEPARATOR + b"".join(lines)
    splitter = Splitter(io.BytesIO(data), max_message=limit)
    spans = list(splitter)
    assert list(Splitter(Dribble(data, most), max_message=limit)) == spans
    assert sum(span.length for span in spans) == len(data)
    for number, span in enumerate(spans, start=1):
        rest = Dribble(data[span.end :], most)
        resumed = Splitter(rest, offset=span.end, style=splitter.style, max_message=limit)
        assert list(resumed) == spans[number:]
