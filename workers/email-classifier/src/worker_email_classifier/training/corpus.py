"""Reads the labelled archives into messages, with the standard library alone.

It makes the fields that `email.parse@1` makes; the tests compare verdicts on both.
"""

import email
import email.header
import email.utils
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message as Part
from pathlib import Path
from typing import Any

from worker_email_classifier.message import Message, message_of

KEPT_HEADERS = ("list-id", "list-post", "list-unsubscribe", "precedence", "auto-submitted")
_PIPERMAIL = re.compile(rb"(?m)^From \S.* \d\d:\d\d:\d\d \d{4}\s*\n(?=[A-Z])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One message with what is known about it. `spam` is None where nobody has looked."""

    message: Message
    spam: bool | None
    source: str
    arrived: int  # seconds since 1970 by the newest Received line, 0 if unknown


def spamassassin(root: Path) -> list[Example]:
    """Return the 2,500 good and 500 unwanted messages of the SpamAssassin public corpus."""
    folder = root / "email" / "spamassassin"
    return [
        _example(path.read_bytes(), spam=spam)
        for name, spam in (("easy-ham-1", False), ("spam-1", True))
        for path in sorted((folder / name).iterdir())
    ]


def r_lists(root: Path, name: str) -> list[Example]:
    """Return the messages of one R mailing list; moderated lists, taken as good."""
    folder = root / "email" / "r-lists" / name
    return [
        _example(data, name, spam=False)
        for path in sorted(folder.glob("*.txt"))
        for data in _split_pipermail(path.read_bytes())
    ]


def permissive(root: Path, name: str) -> list[Example]:
    """Return the test messages of another project; nobody labelled them."""
    folder = root / "email" / name
    patterns = ("*.eml", "*.msg", "msg_*.txt")
    paths = sorted({path for pattern in patterns for path in folder.rglob(pattern)})
    return [_example(path.read_bytes(), name) for path in paths]


def invoices(root: Path) -> list[Message]:
    """Return one mail per invoice of the invoice set: its text, or its file attached.

    The set holds documents, not mail: subject and sender are made up from the document's own data.
    """
    return [_invoice(path) for path in sorted((root / "text" / "invoices").glob("*.json"))]


def digest(root: Path, *folders: str) -> str:
    """Return one SHA-256 over the names and contents of the files below some folders."""
    total = hashlib.sha256()
    for folder in folders:
        for path in sorted((root / folder).rglob("*")):
            if path.is_file():
                total.update(path.relative_to(root).as_posix().encode())
                total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def unlike(examples: list[Example], seen: list[Example]) -> list[Example]:
    """Return the examples whose text occurs neither in `seen` nor earlier among themselves."""
    known = {_fingerprint(example) for example in seen}
    kept = []
    for example in examples:
        mark = _fingerprint(example)
        if mark not in known:
            known.add(mark)
            kept.append(example)
    return kept


def _fingerprint(example: Example) -> bytes:
    message = example.message
    text = re.sub(r"[\W\d_]+", "", (message.text or "") + (message.html or "")).lower()
    return hashlib.sha256((text or message.subject or "").encode("utf-8", "replace")).digest()


def _invoice(path: Path) -> Message:
    known = json.loads(path.read_bytes())[0]
    text = path.with_suffix(".txt")
    file = {"name": path.with_suffix(".pdf").name, "type": "application/pdf"}
    return message_of(
        {
            "subject": known.get("desc", ""),
            "from": [{"name": str(known.get("issuer", "")), "address": "post@example.com"}],
            "to": [{"name": "", "address": "reader@example.com"}],
            "text": text.read_text("utf-8") if text.is_file() else "",
            "attachments": [] if text.is_file() else [file],
        }
    )


def _split_pipermail(data: bytes) -> Iterator[bytes]:
    starts = [match.start() for match in _PIPERMAIL.finditer(data)]
    for start, end in zip(starts, [*starts[1:], len(data)], strict=True):
        yield data[data.index(b"\n", start) + 1 : end].replace(b" at ", b"@", 1)


def _example(data: bytes, source: str = "", *, spam: bool | None = None) -> Example:
    part = email.message_from_bytes(data)
    return Example(
        message=message_of(record(part)),
        spam=spam,
        source=source or _list_of(part),
        arrived=_arrival(part),
    )


def _list_of(part: Part) -> str:
    """Name the list or feed that a SpamAssassin message came through."""
    identity = re.search(r"<([^<>]+)>\s*$", str(part.get("list-id", "")))
    if identity:
        return identity.group(1).lower()
    addressed = (
        f"{part.get('to', '')} {part.get('from', '')} {part.get('delivered-to', '')}".lower()
    )
    for word in ("rssfeeds", "yahoogroups", "pudge@perl.org"):
        if word in addressed:
            return word
    if "bayes" in str(part.get("subject", "")).lower() or "python" in addressed:
        return "spambayes"
    return "direct"


def _arrival(part: Part) -> int:
    for value in [*part.get_all("received", [])[:1], part.get("date", "")]:
        try:
            when = email.utils.parsedate_to_datetime(str(value).rpartition(";")[2].strip())
            return int(when.timestamp())
        except (ValueError, TypeError, OverflowError):
            continue
    return 0


def record(part: Part) -> dict[str, Any]:
    """Return the fields of a message record that classification reads."""
    texts: dict[str, list[str]] = {"text/plain": [], "text/html": []}
    attachments = []
    for leaf in part.walk():
        if leaf.is_multipart():
            continue
        kind, name = leaf.get_content_type(), leaf.get_filename()
        if kind in texts and not name and leaf.get_content_disposition() != "attachment":
            texts[kind].append(_decoded(leaf))
        else:
            inline = leaf.get_content_disposition() == "inline"
            attachments.append({"name": name, "type": kind, "inline": inline})
    return {
        "subject": _header(part, "subject"),
        "from": _people(part, "from"),
        "reply_to": _people(part, "reply-to"),
        "to": _people(part, "to"),
        "cc": _people(part, "cc"),
        "in_reply_to": re.findall(r"<[^<>]+>", str(part.get("in-reply-to", ""))),
        "references": re.findall(r"<[^<>]+>", str(part.get("references", ""))),
        "headers": {
            name: [str(value) for value in part.get_all(name, [])]
            for name in KEPT_HEADERS
            if name in part
        },
        "text": "\n".join(texts["text/plain"]),
        "html": "\n".join(texts["text/html"]),
        "attachments": attachments,
    }


def _header(part: Part, name: str) -> str:
    value = part.get(name, "")
    try:
        text = str(email.header.make_header(email.header.decode_header(value)))
    except (ValueError, LookupError):
        text = str(value)
    return " ".join(text.splitlines()).encode("utf-8", "replace").decode()


def _people(part: Part, name: str) -> list[dict[str, str]]:
    values = [_header(part, name)] if name in part else []
    return [
        {"name": person, "address": address.lower()}
        for person, address in email.utils.getaddresses(values)
        if address
    ]


def _decoded(part: Part) -> str:
    payload = part.get_payload(decode=True)
    data = payload if isinstance(payload, bytes) else b""
    charset = part.get_content_charset() or "utf-8"
    try:
        return data.decode("utf-8" if charset == "us-ascii" else charset)
    except (UnicodeDecodeError, LookupError):
        return data.decode("cp1252", "replace")
