"""The shipped mailbox: what it may hold, and that it is what its sources make."""

import hashlib
import mailbox
import os
import re
from email.utils import getaddresses
from importlib.resources import files
from pathlib import Path

import pytest
from hivemesh_platform.samples.email.build import MARK, entry, made_up, main

FOLDER = Path(str(files("hivemesh_platform") / "samples" / "email"))
SAMPLE = FOLDER / "sample.mbox"
SETS = Path(os.environ.get("HIVEMESH_TEST_DATA", "")) / "email"
ALLOWED = ("mime4j/", "ruby-mail/", "cpython-test-email/", "nodemailer-mailparser/", MARK)


def contents():
    rows = (FOLDER / "CONTENTS.tsv").read_text().splitlines()[1:]
    return [row.split("\t") for row in rows]


def test_mailbox_holds_the_messages_that_are_listed():
    with_mark = [one for one in contents() if one[2].startswith(MARK)]
    box = mailbox.mbox(SAMPLE)
    marked = [one for one in box if one["X-Sample"] == MARK]
    assert len(box) == len(contents()) >= 260
    assert len(marked) == len(with_mark) == len(list(made_up()))
    box.close()


def test_every_message_is_of_a_source_in_the_notice():
    assert all(origin.startswith(ALLOWED) for _, _, origin in contents())
    assert SAMPLE.stat().st_size < 2_000_000


def test_written_messages_name_nobody_real():
    for source in made_up():
        for address in re.findall(r"[\w.+-]+@[\w.-]+\w", source.raw.decode()):
            domain = getaddresses([address])[0][1].rpartition("@")[2]
            assert re.search(r"(?:^|\.)example\.(?:com|org|net)$", domain), address


def test_lines_that_look_like_separators_are_quoted():
    assert entry(b"A: b\n\nFrom here\n>From there").endswith(b"\n>From here\n>>From there\n\n")
    assert len(re.findall(rb"^From ", SAMPLE.read_bytes(), re.MULTILINE)) == len(contents())


def test_same_sources_make_the_same_mailbox(tmp_path):
    if not (SETS / "mime4j").is_dir():
        pytest.skip("HIVEMESH_TEST_DATA is not set, or has no email sets")
    main(SETS, tmp_path / "sample.mbox")
    built = (tmp_path / "sample.mbox").read_bytes()
    assert hashlib.sha256(built).hexdigest() == hashlib.sha256(SAMPLE.read_bytes()).hexdigest()
