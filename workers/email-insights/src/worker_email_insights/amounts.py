"""Finds amounts of money on a line of text.

An amount is a number beside a currency. Numbers without one are left alone, and so are phone
numbers, dates, times, ranges, percentages, negative amounts and "$5 million".
"""

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import NamedTuple

from worker_email_insights.currencies import SPELLINGS

LARGEST = Decimal(10) ** 12
UNGROUPED_DIGITS = 7  # a longer number without separators is a phone number or a reference
LONGEST_CHAIN = 6  # parts of a number that are looked at
SPACED_DIGITS = 8  # likewise one in groups of three with spaces between, and no cents


class Amount(NamedTuple):
    """So much of one currency."""

    currency: str
    value: Decimal


def amounts(line: str) -> list[Amount]:
    """All amounts on one line, from left to right; zero is none."""
    if _CURRENCY.search(line) is None:
        return []
    tokens = list(_tokens(line))
    found = []
    taken = -1  # the last number that has its currency
    for at, token in enumerate(tokens):
        if not token.currency or _is_negative(line, token):
            continue
        sides = _sides(tokens, at, taken, line)
        for side in sides:
            value = _before(tokens, at, line) if side < 0 else _after(tokens, at, line)
            if value:
                found.append(Amount(token.currency, value))
                taken = at + side
                break
    return found


class _Token(NamedTuple):
    start: int
    end: int
    text: str
    currency: str = ""
    number: bool = False
    refused: bool = False  # a number that is none: signed, or a percentage


_HARD = "\u00a0\u202f\u2009"  # spaces that hold a number together
_DASHES = "\u2012\u2013\u2014\u2212"
_NO_CENTS = rf"(?: [.,] [\-{_DASHES}]{{1,2}} (?!\d) )?"  # 12,- and 12.--
_SPELLINGS = "|".join(re.escape(one) for one in sorted(SPELLINGS, key=len, reverse=True))
_CURRENCY = re.compile(rf"(?:{_SPELLINGS})(?![^\W\d_])")
_TOKEN = re.compile(
    rf"""
    (?P<currency> {_CURRENCY.pattern} )
    | (?P<word> [^\W\d] \w* (?: -\w+ )* )
    | (?P<number> (?P<sign> [+\-{_DASHES}\#]? )
        \d (?: [\d.,:/'\u2019\-{_DASHES}{_HARD}]* \d )? {_NO_CENTS} )
    """,
    re.VERBOSE,
)
_VALUE = re.compile(
    rf"""
    (?P<whole> 0
      | [1-9]\d{{0,2}} (?P<group> [.,'\u2019\x20{_HARD}] ) \d{{3}} (?: (?P=group) \d{{3}} )*
      | [1-9]\d? (?: ,\d\d )+ ,\d{{3}}
      | [1-9]\d* )
    (?: (?P<point> [.,] ) (?P<cents> \d\d? | (?<= \b0[.,] ) \d{{3}} ) | {_NO_CENTS} )
    """,
    re.VERBOSE,
)
_NO_DIGIT = re.compile(r"\D")
_GAP = re.compile(rf"[ \t:={_HARD}]{{0,24}}")
_REFUSED_AFTER = re.compile(r"\s?[%‰°]")
_MULTIPLIED = re.compile(
    r"\s?(?:k|m|mn|mio|mln|mrd|bn|tys|thousand|hundred|million|billion|lakh|crore)s?\b",
    re.IGNORECASE,
)


def _tokens(line: str) -> Iterator[_Token]:
    for match in _TOKEN.finditer(line):
        start, end = match.span()
        text = match.group()
        if match["currency"]:
            yield _Token(start, end, text, currency=SPELLINGS[text])
        elif match["number"]:
            refused = bool(match["sign"]) or _REFUSED_AFTER.match(line, end) is not None
            yield _Token(start, end, text, number=True, refused=refused)
        else:
            yield _Token(start, end, text)


def _is_negative(line: str, token: _Token) -> bool:
    return token.start > 0 and line[token.start - 1] in "-" + _DASHES


def _sides(tokens: list[_Token], at: int, taken: int, line: str) -> tuple[int, ...]:
    """Where the currency's number stands: -1 before it, +1 after it; the likelier side first."""
    before = at > 0 and taken < at - 1 and _touch(tokens[at - 1], tokens[at], line, longest=2)
    after = at + 1 < len(tokens) and _touch(tokens[at], tokens[at + 1], line, longest=24)
    if not (before and after):
        return (-1,) * before + (1,) * after
    if at + 2 < len(tokens) and tokens[at + 2].currency:
        return (-1, 1)  # 12 EUR 24 EUR
    glued_before = tokens[at - 1].end == tokens[at].start
    glued_after = tokens[at].end == tokens[at + 1].start
    if glued_before != glued_after:
        return (-1,) if glued_before else (1,)  # 2 $20, or 20$ 2
    if _has_cents(tokens[at - 1].text) and not _has_cents(tokens[at + 1].text):
        return (-1, 1)  # 12.00 EUR 2
    return (1, -1)  # 2 USD 20.00


def _touch(left: _Token, right: _Token, line: str, *, longest: int) -> bool:
    number = left if left.number else right
    gap = line[left.end : right.start]
    return number.number and len(gap) <= longest and _GAP.fullmatch(gap) is not None


def _has_cents(text: str) -> bool:
    return len(text) > 3 and text[-3] in ".,"


def _before(tokens: list[_Token], at: int, line: str) -> Decimal | None:
    """The number that ends before a currency: 12,50 € or 1 234,56 zł."""
    chain = [tokens[at - 1]]
    for token in reversed(tokens[max(0, at - LONGEST_CHAIN) : at - 1]):
        if not token.number or line[token.end : chain[0].start] != " ":
            break
        chain.insert(0, token)
    if any(token.refused for token in chain):
        return None
    for first in range(len(chain)):
        text = " ".join(token.text for token in chain[first:])
        value = _value(text)
        if value is not None:
            return None if first and not _has_cents(text) else value
    return None


def _after(tokens: list[_Token], at: int, line: str) -> Decimal | None:
    """The number that begins after a currency: $1,234.56 or EUR 1 234,56."""
    number = tokens[at + 1]
    if number.refused or _MULTIPLIED.match(line, number.end):
        return None
    text = number.text
    for token in tokens[at + 2 : at + LONGEST_CHAIN]:
        if not token.number or token.start != number.end + 1 or line[number.end] != " ":
            break
        text = f"{text} {token.text}"
        number = token
    if " " not in text:
        return _value(text)
    if _has_cents(text) and (value := _value(text)) is not None:
        return value
    first, second = text.split(" ")[:2]
    looks_like_a_phone = not _has_cents(first) and len(_NO_DIGIT.sub("", second)) >= 3
    return None if looks_like_a_phone else _value(first)


def _value(text: str) -> Decimal | None:
    """Read 1.234,56 and 1,234.56 and 1'234.5; None where the separators fit no number."""
    match = _VALUE.fullmatch(text)
    if match is None or (match["point"] and match["point"] == match["group"]):
        return None
    whole, cents = _NO_DIGIT.sub("", match["whole"]), match["cents"]
    if cents is None and len(whole) > _longest(match):
        return None
    value = Decimal(f"{whole}.{cents}" if cents else whole)
    return value if value < LARGEST else None


def _longest(match: re.Match[str]) -> int:
    if match["group"] == " ":
        return SPACED_DIGITS
    return 12 if match["group"] or "," in match["whole"] else UNGROUPED_DIGITS
