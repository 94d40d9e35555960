"""Builds sample.mbox: `python -m hivemesh_platform.samples.email.build FOLDER`.

FOLDER holds the test sets that NOTICE lists (`mime4j`, `ruby-mail`, `cpython-test-email`,
`nodemailer-mailparser`) as their projects have them. The same files give the same mailbox.
"""

import hashlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes
from email.utils import parsedate_to_datetime
from pathlib import Path

from hivemesh_platform.samples.email.written import MARK, written

SETS = (
    ("mime4j", "testmsgs/*.msg"),
    ("mime4j", "mimetools-testmsgs/*.msg"),
    ("mime4j", "mbox/test-1/mbox.rlug-*"),
    ("ruby-mail", "**/*.eml"),
    ("cpython-test-email", "msg_*.txt"),
    ("nodemailer-mailparser", "*.eml"),
)
LARGEST = 50_000  # bytes; larger ones are tests of size alone
EPOCH = "Thu Jan  1 00:00:00 1970"
_SEPARATOR = re.compile(rb"\AFrom [^\r\n]*\r?\n")
_FIELD = re.compile(rb"[!-9;-~]+[ \t]*:")  # RFC 5322 section 2.2
_QUOTED = re.compile(rb"^(>*From )", re.MULTILINE)


@dataclass(frozen=True)
class Source:
    """One message and where it is from."""

    origin: str
    raw: bytes


def main(folder: Path, target: Path) -> None:
    """Write the mailbox and, beside it, the list of what is in it."""
    sources = [*collected(folder), *made_up()]
    target.write_bytes(b"".join(entry(source.raw) for source in sources))
    rows = (
        f"{hashlib.sha256(one.raw).hexdigest()}\t{len(one.raw)}\t{one.origin}\n" for one in sources
    )
    target.with_name("CONTENTS.tsv").write_text("".join(["sha256\tbytes\torigin\n", *rows]))
    print(f"{len(sources)} messages, {target.stat().st_size:,} bytes: {target}")  # noqa: T201 - a command


def collected(folder: Path) -> Iterator[Source]:
    """The messages of the sets, in a fixed order."""
    for name, pattern in SETS:
        found = sorted((folder / name).glob(pattern))
        if not found:
            message = f"{folder / name} holds no {pattern}; give the folder with the sets as upstream has them"
            raise SystemExit(message)
        for file in found:
            raw = _SEPARATOR.sub(b"", file.read_bytes())
            # Without a field an mbox cannot tell where the message begins.
            if len(raw) <= LARGEST and _FIELD.match(raw):
                yield Source(f"{name}/{file.relative_to(folder / name)}", raw)


def made_up() -> Iterator[Source]:
    """The messages written for the sample."""
    for message in written():
        yield Source(f"{MARK}: {message['Message-ID']}", bytes(message))


def entry(raw: bytes) -> bytes:
    """One message as an mbox entry, quoted as mboxrd: every "From " line gets a ">"."""
    quoted = _QUOTED.sub(rb">\1", raw)
    ending = b"" if quoted.endswith(b"\n") else b"\n"
    return f"From sample@example.com {_when(raw)}\n".encode() + quoted + ending + b"\n"


def _when(raw: bytes) -> str:
    try:
        return parsedate_to_datetime(str(message_from_bytes(raw)["date"])).strftime(
            "%a %b %e %H:%M:%S %Y"
        )
    except (TypeError, ValueError):
        return EPOCH


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m hivemesh_platform.samples.email.build FOLDER")
    main(Path(sys.argv[1]), Path(__file__).with_name("sample.mbox"))
