"""Turns the bodies of a message into lower-case bytes worth reading: no markup, quotes or footers."""

import html as entities
import re
from dataclasses import dataclass

from worker_email_classifier.garbled import repaired
from worker_email_classifier.message import Message

READ_TEXT = 8_000  # characters; what follows changes no verdict and would only cost time
READ_HTML = 96_000
_ENOUGH_TEXT = 80  # a shorter text beside HTML is a notice such as "your reader shows no HTML"

_TAG = re.compile(r"<[^<>]*>")  # stops at the next "<", so a run of "<" costs linear time
_REPLY_MARK = re.compile(r"^(?:\s*(?:re|fwd?|aw|sv|antw)\s*(?:\[\d+\])?\s*:)+", re.IGNORECASE)
_LIST_TAG = re.compile(r"\[[^\[\]]{1,40}\]")
# These begin with a literal newline, which the regex engine finds faster than "^" at every place.
_QUOTED_LINE = re.compile(rb"\n[ \t]{0,3}[>|][^\n]*")
_ATTRIBUTION = re.compile(rb"\n[^\n]{0,160} wrote:[ \t\r]*(?=\n)")
_RULE = re.compile(rb"\n[-_=*~]{18,}\s*\n")
_FOOTER_AT_MOST = 1200
_UNSEEN = (("<!--", "-->"), ("<style", "</style"), ("<script", "</script"))
_ENCODED = re.compile(  # base64, uuencode, lists of hashes
    r"\n[!-~]{40,100}\r?\n[!-~]{40,100}\r?\n(?:[!-~]{40,100}\r?\n)+"
)


@dataclass(frozen=True, slots=True)
class Reading:
    """A message with its body as a person sees it, as UTF-8, and as lower-case UTF-8."""

    message: Message
    body: str
    data: bytes
    lowered: bytes


def read(message: Message) -> Reading:
    """Read the body of a message, once for model and rules."""
    body = body_of(message).replace("\xa0", " ")
    data = body.encode("utf-8", "replace")
    lowered = data.lower() if body.isascii() else body.lower().encode("utf-8", "replace")
    return Reading(message, body, data, lowered)


def subject_of(message: Message) -> str:
    """Return the subject without reply marks and list tags."""
    subject = (message.subject or "")[:300]
    return _REPLY_MARK.sub("", _LIST_TAG.sub(" ", subject).lstrip())


def body_of(message: Message) -> str:
    """Return what a person would read: the text part, or the HTML part without markup."""
    text = message.text or ""
    if message.html and len(text) < 4 * _ENOUGH_TEXT and len(text.strip()) < _ENOUGH_TEXT:
        text = f"{text}\n{visible(message.html)}"
    return repaired(_ENCODED.sub("\n", text[:READ_TEXT]))


def visible(markup: str) -> str:
    """Return the text of an HTML document, in time linear in its length."""
    markup = markup[:READ_HTML]
    lowered = markup.lower()
    for opening, closing in _UNSEEN:
        if opening in lowered:
            markup = _without(markup, opening, closing)
    text = _TAG.sub(" ", markup)
    return entities.unescape(text) if "&" in text else text


def _without(markup: str, opening: str, closing: str) -> str:
    lowered = markup.lower()
    if len(lowered) != len(markup):
        return markup
    kept, at = [], 0
    while (start := lowered.find(opening, at)) >= 0:
        kept.append(markup[at:start])
        end = lowered.find(closing, start)
        if end < 0:
            return "".join(kept)
        at = end + len(closing)
    return "".join([*kept, markup[at:]])


def own_words(lowered: bytes) -> bytes:
    """Return the body without quoted lines, signature and list footer."""
    data = lowered
    if b">" in data or b"\n|" in data:
        data = _QUOTED_LINE.sub(b"", data)
    if b" wrote:" in data:
        data = _ATTRIBUTION.sub(b"", data)
    signature = data.find(b"\n-- \n")
    if signature > 0:
        data = data[:signature]
    tail = max(0, len(data) - _FOOTER_AT_MOST)
    footer = _RULE.search(data, tail)
    if footer:
        data = data[: footer.start()]
    return data if len(data) > _ENOUGH_TEXT or len(data) * 4 > len(lowered) else lowered
