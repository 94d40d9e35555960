"""The tree of a message's parts, with transfer encodings undone.

Three readers, the first that fits: a single part is cut off here; a MIME tree is read by
fast-mail-parser; what that refuses is read by the standard library.
"""

import email
import email.policy
from email.message import Message as LibraryMessage
from functools import lru_cache
from typing import Final

import fast_mail_parser
import msgspec

from worker_email_parser.headers import Headers, parameters
from worker_email_parser.separators import header_end
from worker_email_parser.transfer import ENCODED, encoding_token, undo

PART_LIMIT: Final = 2000  # parts kept of one message
LIBRARY_DEPTH: Final = 100  # of multiparts that the standard library, being recursive, is given
_HARMLESS: Final = bytes([9, 10, 13, *range(32, 127)])
_NAMING: Final = 8192  # characters of a field that may hold a file name
_UNREADABLE: Final = "mime-unreadable"


class Part(msgspec.Struct):
    """One node: a leaf or embedded message has `content`, a multipart and a message `children`."""

    type: str  # "text/plain", lower case
    content: bytes | None = None
    children: list["Part"] = []
    charset: str | None = None
    name: str | None = None
    disposition: str = ""


def part_tree(raw: bytes, defects: list[str] | None = None) -> Part:
    """Read the parts of a message given as its bytes; never raises."""
    defects = [] if defects is None else defects
    block, body = split_header(raw)
    return read_parts(raw, Headers(block, defects), body, defects)


def split_header(raw: bytes, known: int = -1) -> tuple[bytes, bytes | None]:
    """Cut a message at its first blank line; the body is None where there is no such line.

    `known` is the length of the header block if somebody has looked for it before.
    """
    if known > 0:
        return raw[:known], raw[known + (1 if raw.startswith(b"\n", known) else 2) :]
    if raw.startswith((b"\n", b"\r\n")):
        return b"", raw[1 if raw.startswith(b"\n") else 2 :]
    blank = header_end(raw, 0, len(raw))
    if blank < 0:
        return raw, None
    return split_header(raw, blank + 1)


def read_parts(raw: bytes, headers: Headers, body: bytes | None, defects: list[str]) -> Part:
    """Read the parts of a message whose header has been read already."""
    shape = _shape(
        headers.raw("content-type"),
        headers.raw("content-disposition"),
        headers.raw("content-transfer-encoding"),
    )
    if body is None:
        defects.append("header-unterminated")
    elif not shape.composite:
        if shape.encoding:
            body = undo(body, shape.encoding, defects)
        name = _library_name(headers, defects) if shape.named else None
        return Part(shape.type, body, [], shape.charset, name, shape.disposition)
    if _loses_bytes(raw):
        return _by_library(raw, body, defects)
    try:
        tree = fast_mail_parser.parse_email_tree(raw)
        if tree.content is not None or tree.children:
            return _from_fast(tree, _Budget(defects), defects)
        found = _by_library(raw, body, defects)
        return found if found.children else Part(tree.content_type)
    except fast_mail_parser.MimeStructureError:
        defects.append("mime-too-deep")
        return Part("application/octet-stream", body or b"")
    except fast_mail_parser.ParseError as error:
        defects.append(_slug(error))
    except BaseException as error:  # a panic of the extension is no Exception
        if type(error).__name__ != "PanicException":
            raise
        defects.append(_UNREADABLE)
    return _by_library(raw, body, defects)


def _loses_bytes(raw: bytes) -> bool:
    """Say whether the extension would drop bytes: control and 8-bit ones in quoted-printable."""
    return (b"uoted-" in raw or b"UOTED-" in raw) and bool(raw.translate(None, _HARMLESS))


class _Shape(msgspec.Struct, frozen=True):
    """What the Content-... fields of a header say, kept because few combinations are common."""

    type: str
    charset: str | None
    disposition: str
    encoding: str
    composite: bool  # made of parts
    named: bool


@lru_cache(maxsize=1024)
def _shape(content_type: str, disposition: str, encoding: str) -> _Shape:
    type_, found = parameters(content_type)
    token, disposed = parameters(disposition)
    encoding = encoding_token(encoding)
    return _Shape(
        type_ if "/" in type_ else "text/plain",
        found.get("charset"),
        token,
        encoding if encoding in ENCODED else "",
        composite=type_.startswith(("multipart/", "message/")),
        named=any(key.startswith(("filename", "name")) for key in (*found, *disposed)),
    )


def _slug(error: Exception) -> str:
    if isinstance(error, fast_mail_parser.DecodeError):
        return "transfer-encoding-invalid"
    return (
        "header-malformed" if isinstance(error, fast_mail_parser.HeaderParseError) else _UNREADABLE
    )


class _Budget:
    """Counts parts down, so that a message of a million parts stays small."""

    def __init__(self, defects: list[str]) -> None:
        self._left = PART_LIMIT
        self._defects = defects

    def take(self) -> bool:
        self._left -= 1
        if self._left == -1:
            self._defects.append("parts-truncated")
        return self._left >= 0


def _library_name(headers: Headers, defects: list[str]) -> str | None:
    """Read a file name, with its continuations and character sets (RFC 2231), by the library."""
    probe = LibraryMessage()
    for field in ("content-disposition", "content-type"):
        if field in headers.fields:
            probe[field] = headers.text(field, defects)[:_NAMING]
    try:
        return probe.get_filename() or None
    except (LookupError, ValueError, TypeError, AttributeError):
        defects.append("name-invalid")
        return None


def _from_fast(node: "fast_mail_parser.PyMimePart", budget: _Budget, defects: list[str]) -> Part:
    type_ = node.content_type if "/" in node.content_type else "text/plain"
    content = node.content
    if content is None:
        children = [_from_fast(child, budget, defects) for child in node.children if budget.take()]
        return Part(type_, None, children)
    content_type, encoding = "", ""
    for name, values in node.headers.items():
        lower = name.lower()
        if lower == "content-type":
            content_type = values[0]
        elif lower == "content-transfer-encoding":
            encoding = values[0]
    if encoding:
        token = encoding_token(encoding)
        # the extension decodes an exact token only; a trailing blank or comment is enough to stop it
        if token in ENCODED and encoding.lower() not in {"base64", "quoted-printable"}:
            content = undo(content, token, defects)
    children = (
        [_from_fast(child, budget, defects) for child in node.children] if node.is_message else []
    )
    charset = parameters(content_type)[1].get("charset") if "=" in content_type else None
    return Part(type_, content, children, charset, node.filename or None, node.disposition or "")


def _by_library(raw: bytes, body: bytes | None, defects: list[str]) -> Part:
    if raw.count(b"oundary") > LIBRARY_DEPTH:
        defects.append("mime-too-deep")
        return Part("application/octet-stream", body or b"")
    try:
        message = email.message_from_bytes(raw, policy=email.policy.compat32)
        return _from_library(message, _Budget(defects), defects)
    except Exception:  # noqa: BLE001  the library raises whatever it likes on hostile mail; recorded below
        defects.append(_UNREADABLE)
        return Part("application/octet-stream", body or b"")


def _from_library(message: LibraryMessage, budget: _Budget, defects: list[str]) -> Part:
    type_ = message.get_content_type()
    payload = message.get_payload()
    if isinstance(payload, list):
        inner = [each for each in payload if isinstance(each, LibraryMessage)]
        content = b"\n".join(map(_bytes, inner)) if type_.startswith("message/") else None
        if content is not None and type_ != "message/rfc822":
            inner = []  # a delivery report's blocks are no parts
        children = [_from_library(each, budget, defects) for each in inner if budget.take()]
        return Part(type_, content, children)
    encoding = encoding_token(str(message.get("content-transfer-encoding", "")))
    del message["content-transfer-encoding"]  # else the library decodes, in its own way
    data = message.get_payload(decode=True)
    return Part(
        type_,
        undo(data if isinstance(data, bytes) else b"", encoding, defects),
        charset=_library_charset(message),
        name=message.get_filename() or None,
        disposition=message.get_content_disposition() or "",
    )


def _library_charset(message: LibraryMessage) -> str | None:
    label = message.get_param("charset")
    return label[2] if isinstance(label, tuple) else label


def _bytes(message: LibraryMessage) -> bytes:
    return message.as_bytes(policy=email.policy.compat32.clone(mangle_from_=False))
