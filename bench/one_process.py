"""The pipeline's three functions in one process, and the standard library making the same record.

    one_process.py pipeline|parse|compat32|default ARCHIVE

Prints messages, wall and CPU seconds as JSON.
"""

import email.policy
import email.utils
import hashlib
import json
import mailbox
import sys
import time
from contextlib import suppress
from email import message_from_bytes
from itertools import islice
from pathlib import Path

import msgspec

HEADERS = ("list-id", "list-post", "list-unsubscribe", "precedence", "auto-submitted")
BATCH = 500
# What the standard library raises on some real mail; such a message costs it less.
RAISED = (ValueError, LookupError, AttributeError, TypeError)


def pipeline(path: Path) -> int:
    """Parse, classify and sum up with the workers' own functions, batch by batch."""
    from worker_email_classifier.classify import Classifier
    from worker_email_classifier.model import shipped
    from worker_email_classifier.types import TYPES
    from worker_email_insights.message import Message
    from worker_email_insights.report import render
    from worker_email_insights.state import Archive
    from worker_email_insights.summary import summarize

    classifier, insights = Classifier(shipped()), Archive()
    decode = msgspec.json.Decoder(Message).decode
    count = 0
    records = _records(path)
    while batch := list(islice(records, BATCH)):
        labelled = classifier.records([msgspec.Raw(line) for line in batch], TYPES)
        insights.add([decode(line) for line in labelled])
        count += len(batch)
    render(summarize(insights, top=10, subjects=True), title="bench")
    return count


def parse(path: Path) -> int:
    """Parse alone."""
    return sum(1 for _ in _records(path))


def _records(path: Path):
    from worker_email_parser.archives import parse_stream

    encode = msgspec.json.Encoder().encode
    with path.open("rb") as stream:
        for record, _ in parse_stream(stream):
            yield encode(record)


def compat32(path: Path) -> int:
    """`mailbox` and `email`, the same record."""
    return _standard(path, email.policy.compat32)


def default(path: Path) -> int:
    """The same with the modern policy."""
    return _standard(path, email.policy.default)


def _standard(path: Path, policy) -> int:
    box = mailbox.mbox(path, factory=None)
    count = 0
    for key in box.iterkeys():
        raw = box.get_bytes(key)
        with suppress(*RAISED):
            json.dumps(_record(raw, message_from_bytes(raw, policy=policy)))
        count += 1
    return count


def _record(raw: bytes, message) -> dict:
    texts: dict[str, list[str]] = {"text/plain": [], "text/html": []}
    attachments = []
    for part in message.walk():
        if part.is_multipart():
            continue
        payload = part.get_payload(decode=True) or b""
        kind, name = part.get_content_type(), part.get_filename()
        if name is None and kind in texts:
            charset = part.get_content_charset() or "utf-8"
            try:
                texts[kind].append(payload.decode(charset, "replace"))
            except LookupError:
                texts[kind].append(payload.decode("latin-1"))
        else:
            digest = hashlib.sha256(payload).hexdigest()
            attachments.append({"name": name, "type": kind, "size": len(payload), "sha256": digest})
    addresses = {
        name: [
            {"name": who, "address": where}
            for who, where in email.utils.getaddresses([str(v) for v in message.get_all(name, [])])
        ]
        for name in ("from", "sender", "reply-to", "to", "cc", "bcc")
    }
    date = message["date"]
    return {
        "id": hashlib.sha256(raw).hexdigest()[:32],
        "message_id": str(message["message-id"]),
        "in_reply_to": str(message["in-reply-to"]).split(),
        "references": str(message["references"]).split(),
        "date": str(email.utils.parsedate_to_datetime(str(date))) if date else None,
        "date_original": str(date),
        **addresses,
        "subject": str(message["subject"]),
        "headers": {name: [str(v) for v in message.get_all(name, [])] for name in HEADERS},
        "text": "\n".join(texts["text/plain"]),
        "html": "\n".join(texts["text/html"]),
        "attachments": attachments,
        "size": len(raw),
    }


def main() -> None:
    function = {one.__name__: one for one in (pipeline, parse, compat32, default)}[sys.argv[1]]
    wall, cpu = time.perf_counter(), time.process_time()
    count = function(Path(sys.argv[2]))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps({"messages": count, "wall_s": wall, "cpu_s": cpu}))


if __name__ == "__main__":
    main()
