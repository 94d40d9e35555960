"""The promises about real mail; needs the sets that HIVEMESH_TEST_DATA names."""

import gzip
import mailbox
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest
from worker_email_parser.archives import parse_stream
from worker_email_parser.errors import ArchiveError
from worker_email_parser.message import ParseChoices, parse_message
from worker_email_parser.parts import part_tree
from worker_email_parser.splitter import Splitter

# Mail::Mbox::MessageParser takes only separators after a blank line; these are pipermail archives,
# which write none (README, "Where a message begins")
WITHOUT_BLANK_LINES = {"malformed": 54}


def spans(path):
    with path.open("rb") as file:
        return list(Splitter(file))


def library_offsets(path):
    box = mailbox.mbox(path, create=False)
    try:
        return [box.get_file(key)._pos for key in box.keys()]  # noqa: SIM118  a mailbox is no dict
    finally:
        box.close()


@pytest.fixture(scope="module")
def spamassassin(mail_data, tmp_path_factory):
    """The mbox that Python makes of the 3,000 messages."""
    path = tmp_path_factory.mktemp("spamassassin") / "all.mbox"
    box = mailbox.mbox(path)
    for file in sorted((mail_data / "spamassassin").rglob("*.txt")):
        box.add(file.read_bytes())
    box.flush()
    box.close()
    return path


def test_spamassassin_has_exactly_3000_messages(spamassassin):
    found = spans(spamassassin)
    assert len(found) == 3000
    assert sum(span.length for span in found) == spamassassin.stat().st_size


def test_spamassassin_messages_are_the_bytes_that_the_library_cuts(spamassassin):
    box = mailbox.mbox(spamassassin, create=False)
    expected = [box.get_bytes(key) for key in sorted(box.keys())]
    box.close()
    assert [span.raw for span in spans(spamassassin)] == expected


@pytest.mark.parametrize(("name", "count"), [("r-announce", 699), ("r-devel", 844)])
def test_list_archives_have_all_their_messages(mail_data, name, count):
    files = sorted((mail_data / "r-lists" / name).iterdir())
    assert sum(len(spans(file)) for file in files) == count


def splitting_cases():
    names = (
        "binary_body hessbug invalid-boundaries mailarc-1 mailarc-1-dos mailarc-2 mailarc-3"
        " mailseparators malformed newlines_at_beginning"
    )
    return names.split()


@pytest.mark.parametrize("name", splitting_cases())
def test_splitting_agrees_with_the_published_results(mail_data, name):
    folder = mail_data / "mbox-splitting"
    found = spans(folder / "mailboxes" / f"{name}.txt")
    if name in WITHOUT_BLANK_LINES:
        assert len(found) == WITHOUT_BLANK_LINES[name]
        return
    for field in ("offset", "length"):
        expected = (folder / "results" / f"{field}_{name}.stdout").read_text().split()
        assert [getattr(span, field) for span in found] == [int(each) for each in expected]


@pytest.mark.parametrize("suffix", [".txt", ".sep"])
def test_splitting_is_at_least_as_good_as_the_library(mail_data, suffix):
    folder = mail_data / "mbox-splitting"
    for path in sorted((folder / "mailboxes").glob(f"*{suffix}")):
        results = folder / "results" / f"offset_{path.stem}.stdout"
        if not results.exists():
            continue
        expected = [int(each) for each in results.read_text().split()]
        if library_offsets(path) == expected:
            assert [span.offset for span in spans(path)] == expected


def test_a_compressed_mailbox_of_the_set_is_cut_like_the_plain_one(mail_data):
    folder = mail_data / "mbox-splitting" / "mailboxes"
    with gzip.open(folder / "mailarc-2.txt.gz") as file:
        assert list(Splitter(file)) == spans(folder / "mailarc-2.txt")


def expected_tree(element, folder):
    """The tree that mime4j's own test expects, as [kind, children or bytes]."""
    for child in element:
        if child.tag == "multipart":
            parts = [each for each in child if each.tag == "body-part"]
            return ["multipart", [expected_tree(each, folder) for each in parts]]
        if child.tag == "message":
            return ["message", [expected_tree(child, folder)]]
        if child.tag in {"text-body", "binary-body"}:
            return ["leaf", (folder / child.attrib["name"]).read_bytes()]
    return ["none", b""]


def found_tree(part):
    if part.type == "message/rfc822" and part.children:
        return ["message", [found_tree(each) for each in part.children]]
    if part.content is None:
        return ["multipart", [found_tree(each) for each in part.children]]
    return ["leaf", part.content]


def shape(tree):
    kind, value = tree
    return [kind, [shape(each) for each in value]] if isinstance(value, list) else kind


def test_part_trees_agree_with_mime4j(mail_data):
    same_tree = same_bodies = 0
    files = sorted((mail_data / "mime4j").glob("*/*.msg"))
    for path in files:
        xml = path.with_name(f"{path.stem}_decoded.xml").read_bytes()
        xml = re.sub(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x80-\xff]", b"?", xml)
        expected = expected_tree(ET.fromstring(xml), path.parent)  # noqa: S314  as above
        found = found_tree(part_tree(path.read_bytes()))
        same_tree += shape(found) == shape(expected)
        same_bodies += found == expected
    assert len(files) == 80
    assert same_tree >= 78
    assert same_bodies >= 72


def test_no_file_of_any_set_raises(mail_data):
    choices = ParseChoices(headers=None)
    count = 0
    for path in sorted(mail_data.rglob("*")):
        if not path.is_file():
            continue
        msgspec.json.encode(parse_message(path.read_bytes(), choices))
        count += 1
        try:
            with path.open("rb") as file:
                count += sum(len(msgspec.json.encode(each)) > 0 for each, _ in parse_stream(file))
        except ArchiveError:
            continue  # most of the files are no mbox
    assert count > 8000


def test_dates_and_senders_of_list_archives_are_read(mail_data):
    path = mail_data / "r-lists" / "r-announce" / "2010.txt"
    with Path(path).open("rb") as file:
        records = [record for record, _ in parse_stream(file)]
    assert all(record.date.startswith(("2009", "2010", "2011")) for record in records)
    assert all("@" in record.from_[0].address for record in records)
