"""Makes one record of one message: from raw bytes to `Message`, malformed mail included."""

import hashlib
import re
from collections.abc import Callable
from typing import Final, Literal

import msgspec
from hivemesh_sdk import Artifact

from worker_email_parser.addresses import Mailbox, parse_addresses
from worker_email_parser.charsets import decode
from worker_email_parser.dates import parse_date
from worker_email_parser.headers import VALUE_LIMIT, Headers, collapse, decoded
from worker_email_parser.parts import Part, read_parts, split_header

TEXT_LIMIT: Final = 256 * 1024  # characters of text and of html that a record carries
ATTACHMENT_LIMIT: Final = 500  # attachments listed of one message
USEFUL_HEADERS: Final = (
    "auto-submitted",
    "list-id",
    "list-post",
    "list-unsubscribe",
    "precedence",
    "return-path",
    "user-agent",
    "x-mailer",
)
_META_CHARSET = re.compile(
    rb"<meta[^>]{1,200}?charset\s{0,4}=\s{0,4}[\"']?([\w.:-]{1,40})", re.IGNORECASE
)
_BODY_TYPES: Final = frozenset({"text/plain", "text/html"})

Keep = Callable[[bytes, str, str | None], Artifact]


class ParseChoices(msgspec.Struct, frozen=True, kw_only=True):
    """What of a message is wanted."""

    headers: tuple[str, ...] | None = USEFUL_HEADERS  # lower case; None: all of them
    bodies: bool = True
    attachments: Literal["none", "metadata", "artifacts"] = "metadata"


class Attachment(msgspec.Struct):
    """A part that is no body; `artifact` is there if its bytes were asked for."""

    name: str | None
    type: str
    size: int
    sha256: str
    inline: bool
    artifact: Artifact | msgspec.UnsetType = msgspec.UNSET


class Message(msgspec.Struct):
    """The record of one message; the README explains each field."""

    id: str
    source: str
    offset: int
    length: int
    message_id: str | None
    in_reply_to: list[str]
    references: list[str]
    date: str | None
    date_original: str | None
    from_: list[Mailbox] = msgspec.field(name="from")
    sender: list[Mailbox] = []
    reply_to: list[Mailbox] = []
    to: list[Mailbox] = []
    cc: list[Mailbox] = []
    bcc: list[Mailbox] = []
    subject: str = ""
    headers: dict[str, list[str]] = {}
    text: str = ""
    html: str = ""
    attachments: list[Attachment] = []
    size: int = 0
    defects: list[str] = []


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where a message comes from, as far as it is known."""

    source: str = ""
    offset: int = 0
    length: int = -1  # -1: that of the message
    header: int = -1  # bytes of the header block, if somebody has looked for its end before


def parse_message(
    raw: bytes,
    choices: ParseChoices = ParseChoices(),  # noqa: B008  frozen
    place: Place = Place(),  # noqa: B008  frozen
    *,
    keep: Keep | None = None,
) -> Message:
    """Parse one message; whatever is wrong with it is in `defects`, nothing is raised.

    `keep` stores an attachment's bytes; it is needed for `attachments="artifacts"` only.
    """
    defects: list[str] = []
    block, body = split_header(raw, place.header)
    headers = Headers(block, defects)
    fields = headers.fields
    if not fields:
        defects[:] = ["no-headers"]
        body = raw if block.strip() else body
    elif body is None and raw.endswith(b"\n") and not defects:
        body = b""  # an mbox keeps one blank line for itself, the only one of an empty message
    date = headers.text("date", defects) if "date" in fields else ""
    message = Message(
        id=hashlib.sha256(raw).hexdigest()[:32],
        source=place.source,
        offset=place.offset,
        length=len(raw) if place.length < 0 else place.length,
        message_id=_first(headers.identifiers("message-id", 1)),
        in_reply_to=headers.identifiers("in-reply-to") if "in-reply-to" in fields else [],
        references=headers.identifiers("references") if "references" in fields else [],
        date=parse_date(date, defects),
        date_original=date or None,
        from_=_mailboxes(headers, "from", defects),
        sender=_mailboxes(headers, "sender", defects),
        reply_to=_mailboxes(headers, "reply-to", defects),
        to=_mailboxes(headers, "to", defects),
        cc=_mailboxes(headers, "cc", defects),
        bcc=_mailboxes(headers, "bcc", defects),
        subject=collapse(decoded(headers.raw("subject"), defects)),
        headers=headers.all_text(choices.headers, defects),
        size=len(raw),
        defects=defects,
    )
    if choices.bodies or choices.attachments != "none":
        part = read_parts(raw, headers, body, defects)
        if part.content is None and not part.children:
            defects.append("multipart-without-parts")
            part = Part("text/plain", body or b"")
        _Contents(message, choices, keep).take(part)
    if len(defects) > 1:
        message.defects = list(dict.fromkeys(defects))
    return message


def _first(values: list[str]) -> str | None:
    return values[0] if values else None


def _mailboxes(headers: Headers, name: str, defects: list[str]) -> list[Mailbox]:
    values = headers.fields.get(name)
    if values is None:
        return []
    value = values[0]
    if len(values) > 1:
        if name in {"to", "cc"}:
            value = ",".join(values)
        else:
            defects.append("header-repeated")
    if len(value) > VALUE_LIMIT:
        defects.append("addresses-truncated")
    return parse_addresses(value[:VALUE_LIMIT], defects)


class _Contents:
    """Sorts the leaves of a part tree into text, html and attachments."""

    __slots__ = ("_choices", "_found", "_htmls", "_keep", "_message", "_texts")

    def __init__(self, message: Message, choices: ParseChoices, keep: Keep | None) -> None:
        self._message = message
        self._choices = choices
        self._keep = keep
        self._texts: list[str] = []
        self._htmls: list[str] = []
        self._found: list[Attachment] = []

    def take(self, part: Part) -> None:
        """Fill the message from its root part."""
        self._walk(part, first=True)
        message = self._message
        if self._choices.bodies:
            message.text = self._bounded(self._texts, "text-truncated")
            message.html = self._bounded(self._htmls, "html-truncated")
        message.attachments = self._found

    def _walk(self, part: Part, *, first: bool) -> None:
        if part.content is None:
            for child in part.children:
                self._walk(child, first=first)
                first = False
        elif _is_body(part, first=first):
            if self._choices.bodies:
                self._body(part, part.content)
        elif self._choices.attachments != "none":
            self._attachment(part, part.content)

    def _body(self, part: Part, content: bytes) -> None:
        html = part.type == "text/html"
        label = part.charset
        if html and label is None and not content.isascii():
            meta = _META_CHARSET.search(content, 0, 2048)
            label = meta[1].decode("ascii") if meta else None
        text = decode(content[: 4 * TEXT_LIMIT], label, self._message.defects)
        if "\r" in text:
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        if "\0" in text:
            self._message.defects.append("nul-bytes")
            text = text.replace("\0", "")
        (self._htmls if html else self._texts).append(text)

    def _bounded(self, texts: list[str], defect: str) -> str:
        if not texts:
            return ""
        text = texts[0] if len(texts) == 1 else "\n".join(texts)
        if len(text) > TEXT_LIMIT:
            self._message.defects.append(defect)
            return text[:TEXT_LIMIT]
        return text

    def _attachment(self, part: Part, content: bytes) -> None:
        if len(self._found) >= ATTACHMENT_LIMIT:
            self._message.defects.append("attachments-truncated")
            return
        attachment = Attachment(
            name=_display_name(part.name),
            type=part.type,
            size=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            inline=part.disposition == "inline",
        )
        if self._choices.attachments == "artifacts" and self._keep is not None:
            attachment.artifact = self._keep(content, part.type, attachment.name)
        self._found.append(attachment)


def _is_body(part: Part, *, first: bool) -> bool:
    """Say whether a leaf is text to read rather than a file (after RFC 8621 4.1.4)."""
    if part.disposition == "attachment":
        return False
    if part.type in _BODY_TYPES:
        return first or part.name is None
    return first and part.type.startswith("text/") and part.name is None


def _display_name(name: str | None) -> str | None:
    """Make a file name safe to show and to store: no path, no control characters, decoded."""
    if name is None:
        return None
    if "=?" in name:
        name = decoded(name, []) if name.isascii() else name
    name = name.replace("\\", "/").rpartition("/")[2]
    return "".join(each for each in name if each.isprintable())[:255] or None
