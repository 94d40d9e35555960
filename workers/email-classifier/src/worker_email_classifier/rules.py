"""Names the types of mail for which there are too few labelled messages to train on.

Each type is a list of named signs for and against. Every sign for it leaves less doubt
(1 - confidence is the product of the doubts that the signs leave), every sign against takes its
share away. The numbers were set by hand; they order messages, they are no probabilities.
"""

import re
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from worker_email_classifier.phrases import (
    ASKS_TO_PAY,
    HAS_BEEN_PAID,
    HINTS_AT_A_BILL,
    HINTS_AT_A_RECEIPT,
    HINTS_AT_NEWS,
    IS_AUTOMATIC,
    IS_DUE,
    KNOWS_READERS,
    LEAVES_THE_LIST,
    NAMES_A_BILL,
    NAMES_AN_ORDER,
    OFFERS,
)
from worker_email_classifier.signs import Signs
from worker_email_classifier.types import BILL, NEWSLETTER, NOTIFICATION, PERSONAL, RECEIPT


@dataclass(frozen=True, slots=True)
class Sign:
    """One named reason and its weight: what it adds for a type, or leaves over against it."""

    name: str
    weight: float
    holds: Callable[[Signs], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """All signs of one type. Without `needs` the answer is 0 and nothing else is looked at."""

    needs: Callable[[Signs], bool]
    signs: tuple[Sign, ...]
    against: tuple[Sign, ...]

    def confidence(self, seen: Signs) -> float:
        """Return how much speaks for the type, 0 to 1."""
        if not self.needs(seen):
            return 0.0
        doubt = 1.0
        for sign in self.signs:
            if sign.holds(seen):
                doubt *= 1.0 - sign.weight
        rest = 1.0 - doubt
        for sign in self.against:
            if rest > 0.02 and sign.holds(seen):
                rest *= sign.weight
        return rest

    def reasons(self, seen: Signs) -> list[str]:
        """Return the names of the signs that hold, for and against."""
        return [sign.name for sign in (*self.signs, *self.against) if sign.holds(seen)]


def confidences(seen: Signs, wanted: AbstractSet[str]) -> dict[str, float]:
    """Return the confidence of each wanted type that has rules.

    A type gives way to those before it: a bill with an unsubscribe link is no newsletter.
    """
    found = {name: RULES[name].confidence(seen) for name in (BILL, RECEIPT)}
    if wanted <= found.keys():
        return found
    charged = max(found.values())
    news = RULES[NEWSLETTER].confidence(seen) * (1.0 - 0.6 * charged)
    notice = RULES[NOTIFICATION].confidence(seen) * (1.0 - 0.6 * max(charged, news))
    person = RULES[PERSONAL].confidence(seen) * (1.0 - max(charged, news, notice))
    return {**found, NEWSLETTER: news, NOTIFICATION: notice, PERSONAL: person}


_BILL_SUBJECT = re.compile(
    r"\b(?:invoice|bill|statement|amount due|payment (?:is )?(?:over)?due|overdue|rechnung|facture"
    r"|factura|fattura|faktura|premium|rent due|mahnung)\b"
)
_RECEIPT_SUBJECT = re.compile(
    r"\b(?:receipt|order (?:confirm|#|no|\d|shipped|has|received)|your (?:\S+ )?(?:order|purchase)"
    r"|payment (?:received|confirm)|(?:booking|reservation|purchase|order).{0,20}confirm"
    r"|thank you for your (?:order|purchase|payment|donation)|subscription has been renewed"
    r"|bestellung|quittung|zahlungsbest)"
)
_NEWS_SUBJECT = re.compile(
    r"\b(?:newsletter|digest|weekly|monthly|issue \d+|briefing|headlines|edition|bulletin|news"
    r"|this (?:week|month)|round-?up|sale|\d+% off|offers?|ausgabe|rundbrief)\b"
)
_NOTICE_SUBJECT = re.compile(
    r"\b(?:alert|reminder|verify|confirm (?:your|you)|password|notification|sign-in|log-?in"
    r"|deliver(?:y|ed)|arrives|parcel|undeliver\w+|returned mail|failure notice|failed|maintenance"
    r"|new (?:messages?|comments?|followers?)|invited|invitation|security|scheduled|expires?"
    r"|passed|bug \d+|out of office|status)\b"
)
_BILL_FILE = re.compile(r"invoice|bill|rechnung|facture|factura|fattura|statement|faktura|mahnung")
_ANY_FILE = re.compile("")
_RECEIPT_FILE = re.compile(r"receipt|order|quittung|beleg|ticket|confirmation")


def _charges(seen: Signs) -> bool:
    return (
        seen.role.charger
        or seen.encloses(_BILL_FILE)
        or seen.entitled(_BILL_SUBJECT)
        or seen.says(HINTS_AT_A_BILL)
    )


def _sold(seen: Signs) -> bool:
    return (
        seen.role.seller
        or seen.encloses(_RECEIPT_FILE)
        or seen.entitled(_RECEIPT_SUBJECT)
        or seen.says(HINTS_AT_A_RECEIPT)
    )


def _told(seen: Signs) -> bool:
    return (
        seen.role.teller
        or seen.bulk_header
        or seen.entitled(_NEWS_SUBJECT)
        or seen.says(LEAVES_THE_LIST)
        or seen.says(HINTS_AT_NEWS)
    )


def _happened(seen: Signs) -> bool:
    return seen.role.machine or seen.automatic_header or seen.entitled(_NOTICE_SUBJECT)


_ANSWER = Sign("is an answer", 0.4, lambda seen: seen.answers)
_LIST = Sign("comes from a discussion list", 0.3, lambda seen: seen.discussion)

RULES: dict[str, Rule] = {
    BILL: Rule(
        needs=_charges,
        signs=(
            Sign("subject names a bill", 0.45, lambda s: s.entitled(_BILL_SUBJECT)),
            Sign("asks to pay", 0.4, lambda s: s.says(ASKS_TO_PAY)),
            Sign("speaks of a bill", 0.3, lambda s: s.says(NAMES_A_BILL)),
            Sign("encloses a bill", 0.5, lambda s: s.encloses(_BILL_FILE)),
            Sign("names a bill and encloses a document", 0.3, lambda s: s.entitled(_BILL_SUBJECT) and s.encloses(_ANY_FILE)),
            Sign("sent by a billing office", 0.3, lambda s: s.role.charger),
            Sign("names an amount", 0.2, lambda s: s.amount),
        ),
        against=(
            Sign("makes offers to readers", 0.4, lambda s: s.says(OFFERS) and s.says(KNOWS_READERS)),
            Sign("has been paid", 0.5, lambda s: s.says(HAS_BEEN_PAID)),
            Sign("neither amount nor document", 0.4, lambda s: not s.amount and not s.files),
            _ANSWER,
            _LIST,
        ),
    ),
    RECEIPT: Rule(
        needs=_sold,
        signs=(
            Sign("subject names a receipt", 0.45, lambda s: s.entitled(_RECEIPT_SUBJECT)),
            Sign("says it is paid", 0.4, lambda s: s.says(HAS_BEEN_PAID)),
            Sign("speaks of an order", 0.4, lambda s: s.says(NAMES_AN_ORDER)),
            Sign("encloses a receipt", 0.5, lambda s: s.encloses(_RECEIPT_FILE)),
            Sign("sent by a shop", 0.25, lambda s: s.role.seller),
            Sign("names an amount", 0.2, lambda s: s.amount),
        ),
        against=(
            Sign("asks to pay", 0.6, lambda s: s.says(IS_DUE)),
            Sign("neither amount nor document", 0.5, lambda s: not s.amount and not s.files),
            _ANSWER,
            _LIST,
        ),
    ),
    NEWSLETTER: Rule(
        needs=_told,
        signs=(
            Sign("can be unsubscribed from, by header", 0.35, lambda s: s.bulk_header),
            Sign("can be unsubscribed from", 0.35, lambda s: s.says(LEAVES_THE_LIST)),
            Sign("speaks to readers", 0.4, lambda s: s.says(KNOWS_READERS)),
            Sign("makes offers", 0.25, lambda s: s.says(OFFERS)),
            Sign("subject names an issue", 0.35, lambda s: s.entitled(_NEWS_SUBJECT)),
            Sign("sent by an editor", 0.35, lambda s: s.role.teller),
        ),
        against=(_ANSWER, _LIST, Sign("sent by a machine", 0.7, lambda s: s.role.machine)),
    ),
    NOTIFICATION: Rule(
        needs=_happened,
        signs=(
            Sign("sent by a machine", 0.4, lambda s: s.role.machine),
            Sign("sent automatically, by header", 0.6, lambda s: s.automatic_header),
            Sign("says it is automatic", 0.4, lambda s: s.says(IS_AUTOMATIC)),
            Sign("subject names an event", 0.35, lambda s: s.entitled(_NOTICE_SUBJECT)),
        ),
        against=(
            Sign("is an answer", 0.3, lambda s: s.answers and not s.automatic_header),
            Sign("sent by an editor", 0.6, lambda s: s.role.teller),
        ),
    ),
    PERSONAL: Rule(
        needs=lambda seen: seen.person and not seen.automatic_header,
        signs=(
            Sign("sent by a person", 0.3, lambda s: s.person),
            Sign("begins with a greeting", 0.3, lambda s: s.greeting),
            Sign("is an answer", 0.3, lambda s: s.answers),
            Sign("speaks of oneself", 0.2, lambda s: s.oneself),
            Sign("sent to few", 0.15, lambda s: 0 < s.recipients <= 3),
        ),
        against=(
            Sign("sent in bulk", 0.4, lambda s: s.bulk_header or s.discussion),
            Sign("can be unsubscribed from", 0.4, lambda s: s.says(LEAVES_THE_LIST)),
            Sign("talks to nobody", 0.6, lambda s: not (s.oneself or s.answers or s.greeting)),
        ),
    ),
}  # fmt: skip
