"""Makes the parser's record with `mailbox` and `email` alone: what the parser is measured against.

Written as the documentation of these modules shows it; what is plain ASCII is not decoded.
"""

import email.policy
import email.utils
import hashlib
import json
import mailbox
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from email import message_from_bytes
from email.header import Header, decode_header, make_header
from email.message import Message
from email.policy import Policy
from pathlib import Path

ADDRESSES = ("from", "sender", "reply-to", "to", "cc", "bcc")
IDENTIFIER = re.compile(r"<([^<>\s]+)>")
# What the standard library raises on some real mail; such a message costs it less.
RAISED = (ValueError, LookupError, AttributeError, TypeError)


def compat32(path: Path) -> int:
    """`mailbox` and `email`, the same record."""
    return _standard(path, email.policy.compat32, _compat32_fields)


def default(path: Path) -> int:
    """The same with the modern policy and its header objects."""
    return _standard(path, email.policy.default, _default_fields)


def _standard(path: Path, policy: Policy, fields: Callable[[Message], dict]) -> int:
    box = mailbox.mbox(path, factory=None)
    count = 0
    for key in box.iterkeys():
        raw = box.get_bytes(key)
        with suppress(*RAISED):
            json.dumps(standard_record(raw, message_from_bytes(raw, policy=policy), fields))
        count += 1
    return count


def standard_record(raw: bytes, message: Message, fields: Callable[[Message], dict]) -> dict:
    """Make the parser's record with the standard library; it has no offsets to offer."""
    texts: dict[str, list[str]] = {"text/plain": [], "text/html": []}
    attachments = []
    for part in _leaves(message):
        kind, name = part.get_content_type(), part.get_filename()
        disposition = part.get_content_disposition()
        if kind.startswith("message/"):
            payload = b"\n".join(one.as_bytes() for one in part.get_payload())
        else:
            payload = part.get_payload(decode=True)
        if kind in texts and name is None and disposition != "attachment":
            texts[kind].append(_text(payload, part.get_content_charset("utf-8")))
            continue
        attachments.append(
            {
                "name": name,
                "type": kind,
                "size": len(payload),
                "sha256": hashlib.sha256(payload).hexdigest(),
                "inline": disposition == "inline",
            }
        )
    read = fields(message)
    return {
        "id": hashlib.sha256(raw).hexdigest()[:32],
        "message_id": next(iter(_identifiers(read, "message-id")), None),
        "in_reply_to": _identifiers(read, "in-reply-to"),
        "references": _identifiers(read, "references"),
        **read,
        "text": "\n".join(texts["text/plain"]),
        "html": "\n".join(texts["text/html"]),
        "attachments": attachments,
        "size": len(raw),
        "defects": [type(defect).__name__ for defect in message.defects],
    }


def _leaves(part: Message) -> Iterator[Message]:
    if part.get_content_maintype() != "multipart":
        yield part
    elif part.is_multipart():
        for child in part.get_payload():
            yield from _leaves(child)


def _text(payload: bytes, charset: str) -> str:
    try:
        text = payload.decode(charset, "replace")
    except LookupError:
        text = payload.decode("latin-1")
    return text.replace("\r\n", "\n")


def _identifiers(read: dict, name: str) -> list[str]:
    return IDENTIFIER.findall(read["headers"].get(name, [""])[0])


def _compat32_fields(message: Message) -> dict:
    """Decode fields with the functions of `email.header` and `email.utils`."""
    headers: dict[str, list[str]] = {}
    for name, value in message.items():
        headers.setdefault(name.lower(), []).append(_decoded(value))
    written = message["date"]
    date = None
    with suppress(ValueError):
        date = _utc(email.utils.parsedate_to_datetime(str(written))) if written else None
    addresses = {
        name: [
            {"name": _decoded(who), "address": where}
            for who, where in email.utils.getaddresses([str(v) for v in message.get_all(name, [])])
        ]
        for name in ADDRESSES
    }
    return {
        "date": date,
        "date_original": written and str(written),
        **addresses,
        "subject": _collapsed(_decoded(message.get("subject", ""))),
        "headers": headers,
    }


def _decoded(value: str | Header) -> str:
    text = "".join(str(value).splitlines())
    return str(make_header(decode_header(text))) if "=?" in text else text


def _default_fields(message: Message) -> dict:
    """Read fields from the header objects, which come decoded."""
    written = message["date"]
    moment = written.datetime if written else None
    addresses = {
        name: [
            {"name": one.display_name, "address": one.addr_spec}
            for value in message.get_all(name, [])
            for one in value.addresses
        ]
        for name in ADDRESSES
    }
    headers: dict[str, list[str]] = {}
    for name, value in message.items():
        headers.setdefault(name.lower(), []).append(str(value))
    return {
        "date": moment and _utc(moment),
        "date_original": written and str(written),
        **addresses,
        "subject": _collapsed(message.get("subject", "")),
        "headers": headers,
    }


def _collapsed(value: str) -> str:
    return " ".join(value.split())


def _utc(moment: datetime) -> str:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return f"{aware.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
