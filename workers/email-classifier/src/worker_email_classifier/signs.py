"""Looks at a message for the signs that the rules weigh. Decides nothing.

A sign is looked for when a rule first asks for it: most mail is settled by a few.
"""

import re
from functools import cached_property, lru_cache
from typing import NamedTuple

from worker_email_classifier.message import Message
from worker_email_classifier.phrases import phrases_in
from worker_email_classifier.text import Reading

_READ = 6_000  # bytes of the body
_AMOUNT = re.compile(
    rb"(?:[$]|\xe2\x82\xac|\xc2\xa3|\b(?:usd|eur|gbp|chf|inr|rs\.?))\s?\d"
    rb"|\d[.,](?:\d\d|-)\s?(?:\xe2\x82\xac|z\xc5\x82|k\xc4\x8d|(?:eur|usd|gbp|chf|pln|kr)\b)|\btotal\D{1,20}\d+[.,]\d\d"
)
_GREETING = re.compile(
    rb"\s*(?:hi|hello|hey|dear|hallo|liebe[rs]?|good (?:morning|evening))\b[^\n]{0,40}[,!\n]"
)
_DEAR_NOBODY = re.compile(
    rb"\s*(?:dear|hello|hi) (?:[\w-]+ ){0,2}(?:customer|member|subscriber|reader|user|sir|friend"
    rb"|homeowner|alumni|patient|donor|parents|flyer|shareholder|beneficiary|colleague)"
)
_ONESELF = re.compile(rb"\b(?:i|m[ey]|we)\b")
_MACHINE = re.compile(
    r"no-?_?\.?reply|do-?not-?reply|notif|alert|mailer-daemon|postmaster|daemon|robot|bounce"
    r"|automat|bugzilla|root$|cron|calendar|system|account|security|service|support"
)
_TELLER = re.compile(r"news|digest|offer|weekly|daily|editor|update|deals|promo|magazine|marketing")
_CHARGER = re.compile(r"bill|invoice|account|finance|rechnung|faktur|buchhaltung|premium|rent")
_SELLER = re.compile(
    r"order|receipt|payment|shop|store|sales|ticket|booking|donation|purchase|kasse"
)
_OFFICE = re.compile(r"info|hello|team|contact|admin|office|sales|help|list|press|webmaster")
_DOCUMENT = re.compile(r"\.(?:pdf|docx?|xlsx?|png|jpe?g|html?|txt|zip)$")
_REPLIES = ("re:", "aw:", "sv:", "antw:", "fwd:", "fw:")
_BULK = frozenset({"bulk", "list", "junk"})


class Role(NamedTuple):
    """What the local part of an address says about who writes."""

    machine: bool
    teller: bool
    charger: bool
    seller: bool
    office: bool


@lru_cache(maxsize=4096)
def role_of(local: str) -> Role:
    """Return the role of a sender by the part of the address before the "@"."""
    patterns = (_MACHINE, _TELLER, _CHARGER, _SELLER, _OFFICE)
    return Role(*(pattern.search(local) is not None for pattern in patterns))


class Signs:
    """What the rules may ask about one message. Texts are lower case; bodies are UTF-8."""

    def __init__(self, reading: Reading) -> None:
        message = reading.message
        self._message = message
        self._lowered = reading.lowered
        self.subject = (message.subject or "")[:300].lower()
        self.body = reading.lowered[:_READ].replace(b"\n", b" ")
        self.role = role_of(message.sender.local[:80])
        headers = message.headers or {}
        self.answers = bool(message.in_reply_to or message.references) or (
            self.subject.startswith(_REPLIES)
        )
        self.bulk_header = "list-unsubscribe" in headers or message.header("precedence") in _BULK
        self.discussion = "list-post" in headers or "[" in self.subject
        self.automatic_header = message.header("auto-submitted") not in {"", "no"}

    def says(self, phrases: frozenset[bytes]) -> bool:
        """Return whether the body holds one of the phrases (of module `phrases`)."""
        return not self._said.isdisjoint(phrases)

    def entitled(self, names: re.Pattern[str]) -> bool:
        """Return whether the subject says one of the names."""
        return names.search(self.subject) is not None

    def encloses(self, names: re.Pattern[str]) -> bool:
        """Return whether a document of such a name is attached."""
        return any(_DOCUMENT.search(file) and names.search(file) for file in self.files)

    @cached_property
    def _said(self) -> set[bytes]:
        return phrases_in(self.body)

    @cached_property
    def files(self) -> tuple[str, ...]:
        """Lower-case names of the attachments."""
        return tuple((file.name or "").lower() for file in self._message.attachments or [])

    @cached_property
    def amount(self) -> bool:
        """Whether the body names an amount of money."""
        return _AMOUNT.search(self.body) is not None

    @cached_property
    def person(self) -> bool:
        """Whether the sender has the name and address of one person."""
        name = (self._message.sender.name or "").split()
        return bool(self._message.sender.local) and not any(self.role) and len(name) <= 3

    @cached_property
    def greeting(self) -> bool:
        """Whether the body begins by greeting someone in particular."""
        start = self._lowered[:200]
        return _GREETING.match(start) is not None and _DEAR_NOBODY.match(start) is None

    @cached_property
    def oneself(self) -> bool:
        """Whether the writer speaks of oneself."""
        return _ONESELF.search(self.body, 0, 1_500) is not None

    @property
    def recipients(self) -> int:
        """How many addresses it is sent to."""
        return _recipients(self._message)


def _recipients(message: Message) -> int:
    return len(message.to or ()) + len(message.cc or ())
