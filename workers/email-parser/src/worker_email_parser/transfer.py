"""Undoes transfer encodings (RFC 2045 6) as far as the bytes allow. Never raises."""

import binascii
import re
import string
from typing import Final

_BASE64: Final = (string.ascii_letters + string.digits + "+/").encode()
_NOT_BASE64: Final = bytes(set(range(256)).difference(_BASE64))
_UU_BEGIN = re.compile(rb"^begin [0-7]{3,4} [^\n]*\n", re.MULTILINE)
_UU_NAMES: Final = frozenset({"x-uuencode", "uuencode", "uue", "x-uue"})
ENCODED: Final = frozenset({"base64", "quoted-printable"}) | _UU_NAMES


def encoding_token(value: str) -> str:
    """Return the encoding that a header value means: lower case, no quotes, comment or blanks."""
    words = value.replace('"', " ").replace(";", " ").lower().split(None, 1)
    return words[0] if words else ""


def undo(body: bytes, encoding: str, defects: list[str]) -> bytes:
    """Decode `body`, written in `encoding` (an `encoding_token`)."""
    if encoding == "base64":
        return _base64(body, defects)
    if encoding == "quoted-printable":
        return binascii.a2b_qp(body)
    if encoding in _UU_NAMES:
        return _uuencoded(body, defects)
    return body


def _base64(body: bytes, defects: list[str]) -> bytes:
    try:
        return binascii.a2b_base64(body)
    except binascii.Error:
        defects.append("base64-invalid")
    data = body.translate(None, _NOT_BASE64)
    data = data[: len(data) - (len(data) % 4 == 1)]
    return binascii.a2b_base64(data + b"=" * (-len(data) % 4))


def _uuencoded(body: bytes, defects: list[str]) -> bytes:
    begin = _UU_BEGIN.search(body)
    if begin is None:
        defects.append("uuencode-invalid")
        return body
    out: list[bytes] = []
    for line in body[begin.end() :].splitlines():
        if line.rstrip() in {b"end", b"`", b""}:
            break
        try:
            out.append(binascii.a2b_uu(line))
        except binascii.Error:
            # some encoders write trailing garbage: read the bytes that the line announces
            count = (((line[0] - 32) & 63) * 4 + 5) // 3
            out.append(_uu_line(line[:count], defects))
    return b"".join(out)


def _uu_line(line: bytes, defects: list[str]) -> bytes:
    try:
        return binascii.a2b_uu(line)
    except binascii.Error:
        if "uuencode-invalid" not in defects:
            defects.append("uuencode-invalid")
        return b""
