"""Reads a header block: fields unfolded, names in lower case, values decoded on demand.

Keeps values as latin-1 text of their bytes until somebody asks, because most are never read.
"""

import binascii
import re
from collections.abc import Iterable
from typing import Final

from worker_email_parser.charsets import decode

VALUE_LIMIT: Final = 256 * 1024  # characters of one field that are looked at
WHITE: Final = " \t\r\n\f\v"  # of bytes: str.strip() would take the byte A0 of a UTF-8 letter too
FIELD_LIMIT: Final = 10_000  # fields of one message that are looked at

_NAME = re.compile(r"[!-9;-~]{1,200}")
_NAMES_KEPT: Final = 2000
_KNOWN_NAMES: dict[str, str] = {}  # spelling to lower case: a mailbox has few and repeats them
_MBOX_LINE = re.compile(r">?From ")
_ENCODED_WORD = re.compile(r"=\?([^?\s]{1,75})\?([bBqQ])\?([^?]*)\?=(?:[ \t\r\n]+(?==\?))?")
_IDENTIFIER = re.compile(r"<([^<>\s]{1,998})>")
_FOLD = re.compile(r"\n[ \t]")
_PARAMETER = re.compile(r";\s*([^\s=;]{1,78})\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^;\"]*))")


class Headers:
    """The fields of one header block."""

    __slots__ = ("_block", "fields")

    def __init__(self, block: bytes, defects: list[str]) -> None:
        """Split and unfold the block."""
        self._block = block
        self.fields: dict[str, list[str]] = {}
        text = block.decode("latin-1")
        if "\r" in text:
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        lines = _FOLD.sub(" ", text).split("\n", FIELD_LIMIT)
        fields = self.fields
        malformed = len(lines) > FIELD_LIMIT
        known = _KNOWN_NAMES.get
        for line in lines[:FIELD_LIMIT]:
            spelling, _, value = line.partition(":")
            name = known(spelling) or _field_name(spelling)
            if not name:
                malformed = malformed or bool(line and not _MBOX_LINE.match(line))
            elif name in fields:
                fields[name].append(value.strip(WHITE))
            else:
                fields[name] = [value.strip(WHITE)]
        if malformed:
            defects.append("header-malformed")

    def raw(self, name: str) -> str:
        """Return the first value as it stands (latin-1 text of the bytes), "" if there is none."""
        values = self.fields.get(name)
        return values[0][:VALUE_LIMIT] if values else ""

    def text(self, name: str, defects: list[str]) -> str:
        """Return the first value decoded, "" if there is none."""
        values = self.fields.get(name)
        return decoded(values[0][:VALUE_LIMIT], defects) if values else ""

    def identifiers(self, name: str, limit: int = 1000) -> list[str]:
        """Return the message identifiers in a field, without angle brackets."""
        values = self.fields.get(name)
        if not values:
            return []
        value = values[0][:VALUE_LIMIT]
        found = _IDENTIFIER.findall(value)[:limit]
        if not value.isascii():
            return [_ascii(each) for each in found]
        if found or "@" not in value:
            return found
        bare = value.split()  # ASCII was tested, so this splits at ASCII white space
        return bare if len(bare) == 1 else []

    def all_text(self, names: Iterable[str] | None, defects: list[str]) -> dict[str, list[str]]:
        """Return the fields called `names` (all for None), decoded."""
        fields = self.fields
        if names is None and self._is_plain():
            return fields
        return {
            name: [decoded(value[:VALUE_LIMIT], defects) for value in fields[name]]
            for name in (fields if names is None else names)
            if name in fields
        }

    def _is_plain(self) -> bool:
        """Say whether no value needs to be decoded or cut, which is so for most headers."""
        block = self._block
        if not block.isascii() or len(block) > VALUE_LIMIT:
            return False
        return b"?" not in block or b"=?" not in block  # most have none, which is found out faster


def _field_name(spelling: str) -> str:
    """Return a field's name in lower case, "" if it cannot be one; remembers what it has seen."""
    name = spelling.rstrip(WHITE).lower()
    if not _NAME.fullmatch(name):
        return ""
    if len(_KNOWN_NAMES) < _NAMES_KEPT:
        _KNOWN_NAMES[spelling] = name
    return name


def decoded(value: str, defects: list[str]) -> str:
    """Turn latin-1 text of header bytes into what was meant: encoded words, raw 8-bit text."""
    if "=?" in value and value.isascii():
        return decode_words(value, defects)
    if value.isascii():
        return value
    if "header-8bit" not in defects:
        defects.append("header-8bit")
    text = decode(value.encode("latin-1"), None, [])
    return decode_words(text, defects) if "=?" in text else text


def decode_words(value: str, defects: list[str]) -> str:
    """Decode the encoded words (RFC 2047) of a value; neighbours of one charset are joined first."""
    out: list[str] = []
    pending: list[bytes] = []
    charset = ""
    last = 0
    for match in _ENCODED_WORD.finditer(value):
        label = match[1].partition("*")[0]
        data = _word_bytes(match[2], match[3])
        if data is None:
            if "encoded-word-invalid" not in defects:
                defects.append("encoded-word-invalid")
            continue
        if match.start() != last or label.lower() != charset:
            _flush(out, pending, charset, defects)
            charset = label.lower()
            out.append(value[last : match.start()])
        pending.append(data)
        last = match.end()
    _flush(out, pending, charset, defects)
    out.append(value[last:])
    return "".join(out)


def _flush(out: list[str], pending: list[bytes], charset: str, defects: list[str]) -> None:
    if not pending:
        return
    found: list[str] = []
    out.append(decode(b"".join(pending), charset, found))
    defects.extend(each for each in found if each not in defects)
    pending.clear()


def _word_bytes(encoding: str, text: str) -> bytes | None:
    data = text.encode("utf-8")
    if encoding in "qQ":
        return binascii.a2b_qp(data, header=True)
    try:
        return binascii.a2b_base64(data + b"==")
    except binascii.Error:
        return None


def collapse(value: str) -> str:
    """Reduce white space, line breaks of a folded value included, to single blanks."""
    return " ".join(value.split())


def parameters(value: str) -> tuple[str, dict[str, str]]:
    """Split a Content-Type or Content-Disposition value: token in lower case, parameters."""
    token, semicolon, _ = value.partition(";")
    if not semicolon:
        return token.strip(WHITE).lower(), {}
    found: dict[str, str] = {}
    for match in _PARAMETER.finditer(value, len(token)):
        text = match[2].replace("\\", "") if match[2] is not None else match[3].strip(WHITE)
        found.setdefault(match[1].lower(), text)
    return token.strip(WHITE).lower(), found


def _ascii(value: str) -> str:
    return value if value.isascii() else decode(value.encode("latin-1"), None, [])
