"""Reads address lists (RFC 5322 3.4 with its obsolete forms, and what list archives write).

Linear in the length of the field and independent of the Python version, which the standard
library's reader is not. Groups are flattened, comments become names, quotes and escapes go.
"""

import re
from functools import lru_cache
from typing import Final

import msgspec

from worker_email_parser.headers import WHITE, decoded

_CACHED_LENGTH: Final = 200  # the same few people write and are written to
LENGTH_LIMIT: Final = 1000  # characters of one name or address; RFC 5321 allows 320
ADDRESS_LIMIT: Final = 5000  # addresses kept of one field

_PLAIN = re.compile(r"\s*([^\s<>(),;:\"\\\[\]@]+@[^\s<>(),;:\"\\\[\]@]+)\s*\Z", re.ASCII)
_NAMED = re.compile(
    r"(?:\s*\"([^\"\\]*)\"\s*|([^<>(),;:\"\\\[\]@]*))"
    r"<([^\s<>(),;:\"\\\[\]@]+@[^\s<>(),;:\"\\\[\]@]+)>\s*\Z",
    re.ASCII,
)
_TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<quoted>\"(?:[^\"\\]|\\.)*\"?)|(?P<literal>\[[^\]\[]*\])"
    r"|(?P<special>[(),:;<>\\])|(?P<atom>[^\s(),:;<>\"\[\\]+|\[)",
    re.DOTALL | re.ASCII,
)
_OBFUSCATED = re.compile(r"(\S+) at (\S+)\Z", re.ASCII)  # "user at host", as pipermail writes it
_SPACES = re.compile(r"\s+", re.ASCII)
_BACKSLASH = re.compile(r"\\(.)", re.DOTALL)


class Mailbox(msgspec.Struct, gc=False, frozen=True):
    """One address; `address` is "" where the field holds a name alone."""

    name: str
    address: str


def parse_addresses(value: str, defects: list[str]) -> list[Mailbox]:
    """Return the mailboxes of a field (latin-1 text of its bytes), in order."""
    if len(value) > _CACHED_LENGTH:
        return _parse(value, defects)
    found, noted = _parse_cached(value)
    if noted:
        defects.extend(noted)
    return list(found)


@lru_cache(maxsize=4096)
def _parse_cached(value: str) -> tuple[tuple[Mailbox, ...], tuple[str, ...]]:
    defects: list[str] = []
    return tuple(_parse(value, defects)), tuple(defects)


def _parse(value: str, defects: list[str]) -> list[Mailbox]:
    match = _NAMED.match(value)
    if match:
        return [Mailbox(_name(match[1] or match[2] or "", defects), _address(match[3]))]
    match = _PLAIN.match(value)
    if match:
        return [Mailbox("", _address(match[1]))]
    found = _Reader(value, defects).read()
    if len(found) > ADDRESS_LIMIT:
        defects.append("addresses-truncated")
        del found[ADDRESS_LIMIT:]
    return found


def _name(text: str, defects: list[str]) -> str:
    return decoded(text.strip(WHITE), defects) if text else ""


def _address(text: str) -> str:
    return text if text.isascii() else decoded(text, [])


class _Reader:
    """One pass over the tokens of a field."""

    def __init__(self, value: str, defects: list[str]) -> None:
        self._value = value
        self._defects = defects
        self._found: list[Mailbox] = []
        self._reset()

    def _reset(self) -> None:
        self._words: list[str] = []  # what stands outside of angle brackets
        self._angle: list[str] | None = None  # what stands inside of them
        self._comment: list[str] = []
        self._open = False  # inside of angle brackets now

    def read(self) -> list[Mailbox]:
        position, value = 0, self._value
        while position < len(value) and len(self._found) <= ADDRESS_LIMIT:
            match = _TOKEN.match(value, position)
            if match is None:  # cannot be: the classes above cover every character
                break
            position = match.end()
            kind, text = match.lastgroup, match[0]
            if kind != "special":
                self._word(kind or "", text)
            elif text == "(":
                position = self._read_comment(position)
            else:
                self._special(text)
        self._finish()
        return self._found

    def _word(self, kind: str, text: str) -> None:
        if self._open and self._angle is not None:
            if kind != "space":
                self._angle.append(text)
        elif kind == "quoted":
            inner = text[1:-1] if len(text) > 1 and text.endswith('"') else text[1:]
            self._words.append(_BACKSLASH.sub(r"\1", inner))
        elif kind == "space":
            self._words.append(" ")
        else:
            self._words.append(text)

    def _special(self, text: str) -> None:
        if text == "<" and not self._open:
            self._angle, self._open = [], True
        elif text == ">":
            self._open = False
        elif text == ")":
            self._note()
        elif text == ":":
            self._colon()
        elif text in ",;":
            if self._open and self._angle is not None and "".join(self._angle[:1]).startswith("@"):
                return  # a route of the obsolete form <@a,@b:user@host>
            self._finish()
        else:
            self._word("atom", text)

    def _colon(self) -> None:
        if self._open and self._angle is not None:
            self._angle.clear()  # what stood before was a route
        elif "@" in "".join(self._words):
            self._words.append(":")
        else:
            self._reset()  # what stood before was a group's name

    def _read_comment(self, position: int) -> int:
        """Collect a comment, nested ones included; an unclosed one ends with the field."""
        depth, begin, value = 1, position, self._value
        while position < len(value) and depth:
            character = value[position]
            if character == "\\":
                position += 1
            elif character == "(":
                depth += 1
            elif character == ")":
                depth -= 1
            position += 1
        if depth:
            self._note()
        self._comment.append(_BACKSLASH.sub(r"\1", value[begin : position - (0 if depth else 1)]))
        return position

    def _note(self) -> None:
        if "address-invalid" not in self._defects:
            self._defects.append("address-invalid")

    def _finish(self) -> None:
        """End the current mailbox."""
        phrase = _SPACES.sub(" ", "".join(self._words)).strip(" ")
        comment = _SPACES.sub(" ", " ".join(self._comment)).strip(" ")
        if self._angle is not None:
            address = "".join(self._angle)
            if "@" not in address:
                address = self._repaired(address, phrase)
                phrase = "" if address == phrase else phrase
            self._add(phrase or comment, address)
        elif phrase:
            self._bare(phrase, comment)
        elif comment:
            self._note()
        self._reset()

    def _repaired(self, address: str, phrase: str) -> str:
        self._note()
        return phrase if not address and "@" in phrase and " " not in phrase else address

    def _bare(self, phrase: str, comment: str) -> None:
        """Add a mailbox that was written without angle brackets."""
        match = _OBFUSCATED.match(phrase)
        if "@" in phrase:
            self._with_at(phrase, comment)
        elif match and "." in match[2][1:-1]:
            self._add(comment, f"{match[1]}@{match[2]}")
        elif " " in phrase:
            self._note()
            self._add(phrase, "")
        else:
            self._add(comment, phrase)

    def _with_at(self, phrase: str, comment: str) -> None:
        words = phrase.split(" ")
        if len(words) == 1:
            self._add(comment, phrase)
            return
        if any(word in {"@", "."} or "@" in (word[0], word[-1]) for word in words):
            self._add(comment, phrase.replace(" ", ""))  # blanks around the @, as RFC 822 allowed
            return
        self._note()  # no brackets, or no comma
        name = " ".join(word for word in words if "@" not in word)
        for word in words:
            if "@" in word:
                self._add(name, word)

    def _add(self, name: str, address: str) -> None:
        self._found.append(
            Mailbox(_name(name[:LENGTH_LIMIT], self._defects), _address(address[:LENGTH_LIMIT]))
        )
