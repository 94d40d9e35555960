"""Measures the form of a message: shouting, money, hidden text, sender. Every value is 0 to 1.

Left out on purpose, because they tell archives apart and not mail: whether there is HTML at all,
list headers, reply addresses, providers of free mail, missing names, alphabets other than Latin,
dates, the mail programme, Received lines.
"""

import re

from worker_email_classifier.garbled import garbled_share
from worker_email_classifier.message import Message
from worker_email_classifier.text import READ_HTML, Reading

NAMES = (
    "capitals",
    "exclamations",
    "money",
    "shouted_subject",
    "subject_exclaims",
    "subject_money",
    "subject_code",
    "link_to_number",
    "hidden_text",
    "form",
    "garbled",
    "sender_digits",
    "answers",
)
_CAPITALS = bytes(range(65, 91))
_NUMBER_LINK = re.compile(r"://(?:(?:\d{1,3}\.){3}\d{1,3}|\d{8,10}|0x[0-9a-f]{8})(?![\w.-])")
_CODE = re.compile(r"\s{4,}\S+$|\s[a-z]{0,6}\d{4,}[a-z]{0,6}$|\[[a-z0-9]{5}\]$", re.IGNORECASE)
_HIDDEN = ("display:none", "font-size:0", "font-size:1p", 'color="#ffffff"', "color=#ffffff")


def measure(reading: Reading) -> list[float]:
    """Return one value per name."""
    message, body = reading.message, reading.body
    return [
        *_voice(reading.data),
        *_subject(message.subject or ""),
        *_markup(message.html or "", body),
        garbled_share(body),
        *_sender(message),
    ]


def _voice(data: bytes) -> list[float]:
    size = len(data)
    capitals = size - len(data.translate(None, _CAPITALS))
    return [
        min(1.0, 4.0 * capitals / (size + 100)),
        min(1.0, 60.0 * data.count(b"!") / (size + 200)),
        min(1.0, data.count(b"$") / 8),
    ]


def _subject(subject: str) -> list[float]:
    return [
        float(len(subject) > 8 and subject.isupper()),
        float(subject.rstrip().endswith("!") or "!!" in subject),
        float("$" in subject or "%" in subject),
        float(_CODE.search(subject[:300]) is not None),
    ]


def _markup(html: str, body: str) -> list[float]:
    source = html[:READ_HTML] or body
    to_number = float("://" in source and _NUMBER_LINK.search(source) is not None)
    if not html:
        return [to_number, 0.0, 0.0]
    lowered = source.lower().replace(": ", ":")
    hidden = sum(lowered.count(sign) for sign in _HIDDEN)
    return [to_number, min(1.0, hidden / 4), float("<form" in lowered)]


def _sender(message: Message) -> list[float]:
    sender = message.sender
    return [
        float(sum(map(str.isdigit, sender.local)) >= 3),
        float(bool(message.in_reply_to or message.references)),
    ]
