"""Archives of every format, read from the beginning and resumed."""

import gzip

import pytest
from worker_email_parser.archives import parse_found, read_archive
from worker_email_parser.errors import (
    EmptyArchiveError,
    GzipTruncatedError,
    NotAFileError,
    NotAMaildirError,
    NotAMessageError,
    NotAnMboxError,
)
from worker_email_parser.message import ParseChoices

SEPARATOR = b"From jane@example.org Thu Sep 13 12:30:05 2001\n"
MESSAGES = [b"Subject: %d\n\nbody %d\n" % (number, number) for number in range(5)]
MBOX = b"\n".join(SEPARATOR + message for message in MESSAGES)
MAILDIR = {
    "cur/1.host:2,S": MESSAGES[0],
    "new/2.host": MESSAGES[1],
    ".Sent/cur/3.host:2,S": MESSAGES[2],
    "tmp/4.host": MESSAGES[3],
    "dovecot-uidlist": b"3 V1\n",
    "cur/.hidden": b"x",
}


def raws(artifacts, archive, **options):
    return [found.span.raw for found in read_archive(artifacts, archive, **options)]


def test_an_mbox_is_recognised(artifacts):
    assert raws(artifacts, artifacts.put(MBOX)) == MESSAGES


def test_a_compressed_mbox_is_recognised_and_has_positions_of_the_plain_one(artifacts):
    packed = list(read_archive(artifacts, artifacts.put(gzip.compress(MBOX))))
    assert packed == list(read_archive(artifacts, artifacts.put(MBOX)))


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_single_message_is_recognised(artifacts, pack):
    (found,) = read_archive(artifacts, artifacts.put(pack(MESSAGES[0]), name="a.eml"))
    assert (found.span.raw, found.span.offset, found.source) == (MESSAGES[0], 0, "a.eml")


@pytest.mark.parametrize("name", ["mail.eml", "scan.pdf", "mail.mbox.gz", "x.mbox", None])
def test_the_content_decides_and_not_the_name(artifacts, name):
    assert raws(artifacts, artifacts.put(MBOX, name=name)) == MESSAGES
    assert raws(artifacts, artifacts.put(gzip.compress(MBOX), name=name)) == MESSAGES
    assert raws(artifacts, artifacts.put(MESSAGES[0], name=name)) == MESSAGES[:1]


def test_a_single_message_may_carry_a_separator(artifacts):
    assert raws(artifacts, artifacts.put(SEPARATOR + MESSAGES[0]), format="eml") == [MESSAGES[0]]


def test_a_maildir_is_read_in_order_of_its_paths_without_what_is_no_mail(artifacts):
    found = list(read_archive(artifacts, artifacts.put_tree(MAILDIR)))
    assert [(each.source, each.span.raw) for each in found] == [
        (".Sent/cur/3.host:2,S", MESSAGES[2]),
        ("cur/1.host:2,S", MESSAGES[0]),
        ("new/2.host", MESSAGES[1]),
    ]


@pytest.mark.parametrize("kind", ["mbox", "gzip", "maildir", "eml"])
def test_reading_resumes_after_any_message(artifacts, kind):
    archive = {
        "mbox": lambda: artifacts.put(MBOX),
        "gzip": lambda: artifacts.put(gzip.compress(MBOX)),
        "maildir": lambda: artifacts.put_tree(MAILDIR),
        "eml": lambda: artifacts.put(MESSAGES[0]),
    }[kind]()
    whole = list(read_archive(artifacts, archive))
    for number, found in enumerate(whole, start=1):
        rest = list(read_archive(artifacts, archive, start=found.checkpoint))
        assert rest == whole[number:]


def test_progress_ends_at_the_size_of_the_archive(artifacts):
    archive = artifacts.put(gzip.compress(MBOX))
    seen = []
    list(read_archive(artifacts, archive, progress=lambda done, total: seen.append((done, total))))
    assert seen[-1] == (archive.size, archive.size)


@pytest.mark.parametrize(
    ("data", "format_", "error", "message"),
    [
        (b"", "auto", EmptyArchiveError, "check that the export finished"),
        (b"\n\n", "auto", EmptyArchiveError, "check that the export finished"),
        (gzip.compress(b""), "auto", EmptyArchiveError, "check that the export finished"),
        (b"\x89PNG\r\n", "auto", NotAMessageError, "give an mbox, an .eml file"),
        (b"BZh91AY&SY", "auto", NotAMessageError, "is bzip2"),
        (b"\x89PNG\r\n", "eml", NotAMessageError, "give an mbox, an .eml file"),
        (MESSAGES[0], "mbox", NotAnMboxError, "name its format"),
        (gzip.compress(MBOX)[:-9], "auto", GzipTruncatedError, "download it again"),
    ],
)
def test_what_is_no_archive_is_refused_with_a_remedy(artifacts, data, format_, error, message):
    with pytest.raises(error, match=message):
        raws(artifacts, artifacts.put(data), format=format_)


@pytest.mark.parametrize("files", [{}, {"a.txt": b"x"}, {"cur/.hidden": b"x"}])
def test_a_folder_without_mail_is_no_maildir(artifacts, files):
    with pytest.raises(NotAMaildirError, match="give the folder that holds them"):
        raws(artifacts, artifacts.put_tree(files))


def test_a_truncated_gzip_gives_what_comes_before_the_cut(artifacts):
    noise = b"".join(b"%d" % (number**5) for number in range(40_000))
    data = gzip.compress(MBOX + b"\n" + SEPARATOR + b"X: y\n\n" + noise)
    reading = read_archive(artifacts, artifacts.put(data[:-20_000]))
    assert [next(reading).span.raw for _ in MESSAGES] == MESSAGES
    with pytest.raises(GzipTruncatedError):
        next(reading)


@pytest.mark.parametrize(
    ("archive", "format_", "error"),
    [
        (lambda store: store.put(MBOX), "maildir", NotAMaildirError),
        (lambda store: store.put_tree(MAILDIR), "mbox", NotAFileError),
    ],
)
def test_a_format_that_contradicts_the_archive_is_refused(artifacts, archive, format_, error):
    with pytest.raises(error):
        raws(artifacts, archive(artifacts), format=format_)


def test_an_mbox_may_begin_with_many_blank_lines(artifacts):
    assert raws(artifacts, artifacts.put(b"\n" * 5000 + MBOX)) == MESSAGES


@pytest.mark.parametrize("kind", ["mbox", "gzip", "maildir", "eml"])
def test_a_message_over_the_limit_is_rejected_with_its_place(artifacts, kind):
    big = b"Subject: big\n\n" + b"a line\n" * 2000
    archive = {
        "mbox": lambda: artifacts.put(SEPARATOR + big + b"\n" + MBOX),
        "gzip": lambda: artifacts.put(gzip.compress(SEPARATOR + big + b"\n" + MBOX)),
        "maildir": lambda: artifacts.put_tree({"cur/1": big, "cur/2": MESSAGES[0]}),
        "eml": lambda: artifacts.put(big),
    }[kind]()
    first, *others = read_archive(artifacts, archive, max_message=5000)
    rejected = parse_found(first, ParseChoices())
    assert rejected.reason == "message-too-large"
    assert rejected.position["offset"] == 0
    assert rejected.position["length"] >= len(big)
    assert all(each.span.raw is not None for each in others)
