"""Chooses the one amount that a bill or receipt is about, and sums these by currency."""

import html
import re
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

import msgspec

from worker_email_insights.amounts import Amount, amounts
from worker_email_insights.message import Message

KINDS = ("bill", "receipt")
LONGEST_TEXT = 200_000  # characters; a bill says its total long before
LONGEST_LINE = 2_000


class Money(msgspec.Struct):
    """Documents of one kind and currency: how many, what they come to, the largest one."""

    documents: int = 0
    sum: Decimal = Decimal(0)
    max: Decimal = Decimal(0)
    found: int = 0  # all amounts named in them, line items included

    def add(self, other: "Money") -> None:
        """Take in the other's figures; exact, because 250,000 sums fit into 28 digits."""
        self.documents += other.documents
        self.sum += other.sum
        self.max = max(self.max, other.max)
        self.found += other.found


class Bills(msgspec.Struct):
    """Money by "kind currency" and month. Kinds, currencies and months are few: all exact."""

    examined: int = 0
    without_amount: int = 0
    months: dict[str, dict[str, Money]] = {}  # "bill EUR" -> "2024-05", or "" -> figures

    def add(self, message: Message, when: datetime | None) -> None:
        """Look for the total of a message that the classifier called a bill or receipt."""
        kind = kind_of(message)
        if kind is None:
            return
        self.examined += 1
        finding = find(text_of(message))
        if finding is None:
            self.without_amount += 1
            return
        total = finding.total
        money = Money(documents=1, sum=total.value, max=total.value, found=finding.found)
        month = f"{when:%Y-%m}" if when else ""
        self._month(f"{kind} {total.currency}", month).add(money)

    def merge(self, other: "Bills") -> None:
        """Take in the other's figures."""
        self.examined += other.examined
        self.without_amount += other.without_amount
        for key, months in other.months.items():
            for month, money in months.items():
                self._month(key, month).add(money)

    def _month(self, key: str, month: str) -> Money:
        return self.months.setdefault(key, {}).setdefault(month, Money())


class Finding(NamedTuple):
    """What one message says: its total, and how many amounts it named."""

    total: Amount
    found: int


def kind_of(message: Message) -> str | None:
    """Whether the message is a bill or a receipt, of both the surer one; spam is neither."""
    if message.is_labelled("spam"):
        return None
    sure = [(message.labels[kind].confidence, kind) for kind in KINDS if message.is_labelled(kind)]
    return max(sure)[1] if sure else None


def find(text: str) -> Finding | None:
    """Find the total of a bill or receipt, or None where it names no amount.

    The total is the largest amount on a line that calls itself the total due, or else a total,
    or else the largest amount of all; in the currency that most of these amounts are in.
    """
    ranked = list(_ranked(text))
    if not ranked:
        return None
    best = max(rank for rank, _ in ranked)
    return Finding(_largest([amount for rank, amount in ranked if rank == best]), len(ranked))


def text_of(message: Message) -> str:
    """Subject and words of a message; of an HTML body only where it has no other."""
    body = msgspec.json.decode(message.text, type=str)
    if not body.strip():
        body = plain_text(msgspec.json.decode(message.html, type=str))
    return f"{message.subject}\n{body[:LONGEST_TEXT]}"


def plain_text(markup: str) -> str:
    """The words of an HTML body, a line per block, without styles and scripts."""
    shown = _without(_without(markup[: 4 * LONGEST_TEXT], "style"), "script")
    return html.unescape(_TAG.sub(_gap, shown))


_DUE = re.compile(
    r"""
    \b(?: grand\ total | total\ (?:amount\ )?(?:due|paid|payable|charged|to\ pay) | amount\ (?:due|paid|payable|charged)
      | balance\ due | you\ paid | payment\ due | to\ pay | order\ total | invoice\ total
      | gesamtbetrag | rechnungsbetrag | endbetrag | zahlbetrag | zu\ zahlen(?:der\ betrag)?
      | do\ zap[łl]aty | kwota\ do\ zap[łl]aty | zap[łl]acono
      | net\ [àa]\ payer | total\ ttc | montant\ d[ûu] | total\ a\ pagar | totale\ da\ pagare | te\ betalen | k\ [úu]hrad[ěe]
    )\b
    """,
    re.VERBOSE | re.IGNORECASE,
)
_SUM = re.compile(
    r"\b(?:total|sum|gesamt|gesamtsumme|summe|suma|razem|[łl][ąa]cznie|montant|importe|totale|totaal|celkem|amount)\b",
    re.IGNORECASE,
)
_NO_SUM = re.compile(
    r"\b(?:sub[ -]?total|zwischensumme|sous[ -]total|saving|savings|saved|discount|points|rabatt|rabat)\b",
    re.IGNORECASE,
)
_DIGIT = re.compile(r"\d")
_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)?[^<>]*>")
_INLINE = frozenset(
    [
        "a",
        "abbr",
        "b",
        "bdi",
        "big",
        "em",
        "font",
        "i",
        "label",
        "mark",
        "s",
        "small",
        "span",
        "strong",
        "sub",
        "sup",
        "u",
    ]
)
_CELL = frozenset(("td", "th"))


def _ranked(text: str) -> Iterator[tuple[int, Amount]]:
    """Each amount with its line's rank: 2 names a total due, 1 a total.

    A line without a digit is taken as the caption of the next one: so tables come out of HTML.
    """
    caption = ""
    for long_line in text.splitlines():
        line = long_line[:LONGEST_LINE]
        if _DIGIT.search(line) is None:
            caption = line if line.strip() else caption
            continue
        found = amounts(line)
        if found:
            rank = max(_rank(line), _rank(caption))
            yield from ((rank, amount) for amount in found)
        caption = ""


def _rank(line: str) -> int:
    if _NO_SUM.search(line):
        return 0
    if _DUE.search(line):
        return 2
    return 1 if _SUM.search(line) else 0


def _largest(found: list[Amount]) -> Amount:
    counts: dict[str, int] = {}
    for amount in found:
        counts[amount.currency] = counts.get(amount.currency, 0) + 1
    currency = max(counts, key=lambda one: counts[one])  # the first named of equals
    return Amount(currency, max(one.value for one in found if one.currency == currency))


def _gap(tag: re.Match[str]) -> str:
    name = (tag[2] or "").lower()
    if name in _INLINE:
        return ""
    return "  " if name in _CELL else "\n"


def _without(markup: str, name: str) -> str:
    """Cut out elements of this name with all that they hold; linear in the length."""
    opening, closing = (re.compile(f"<{slash}{name}", re.IGNORECASE) for slash in ("", "/"))
    kept, at = [], 0
    while start := opening.search(markup, at):
        kept.append(markup[at : start.start()])
        end = closing.search(markup, start.end())
        if end is None:
            return "".join(kept)
        at = end.start()
    return "".join([*kept, markup[at:]])
