"""Reads JSON strictly: duplicate keys, NaN, lone surrogates, depth and size are refused."""

import json
import math
import re
from typing import TYPE_CHECKING, Never

import msgspec

from hivemesh_sdk.contracts.unreadable import UNREADABLE
from hivemesh_sdk.safeio.problems import MalformedError, escape

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydantic import JsonValue

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 64
# A string that never ends is one match too, or each of its quotes would begin another search.
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
_STRINGS = re.compile(rb'"[^"]*"')
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_OTHERS = bytes(set(range(256)) - set(b'[]{}"'))
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class _Twice:
    """Stands for an object that names a key twice, until its place is known."""

    def __init__(self, key: str) -> None:
        self.key = key


def parse_json(
    data: bytes | str,
    *,
    name: str = "the document",
    max_bytes: int = MAX_BYTES,
    max_depth: int = MAX_DEPTH,
) -> "JsonValue":
    """Read one JSON document (RFC 8259) in UTF-8.

    Raises:
        MalformedError: it is too large, too deep, no JSON, or means different things to
            different readers (duplicate keys, NaN, numbers beyond a double).
    """
    text = _text(data, name, max_bytes)
    _check_depth(text, name, max_depth)
    value = _decode(text, name)
    if _ESCAPED_SURROGATE.search(text):
        _check_surrogates(value, name)
    return value


def parse_json_fast(
    data: bytes, *, name: str = "the document", max_depth: int = MAX_DEPTH
) -> "JsonValue":
    """Read one JSON document of a program: of a key that it names twice the last one counts.

    What is read here can be read by everybody else, and stands for itself alone: its bytes may be
    put into another document as they are.

    Raises:
        MalformedError: it is too deep, no JSON, or a number in it is beyond a double.
    """
    check_depth(data, name=name, max_depth=max_depth)
    try:
        value: JsonValue = msgspec.json.decode(data)
    except UNREADABLE as error:
        message = f"{name} is no JSON: {error}"
        raise MalformedError(message, code="json-syntax") from error
    return value


def check_depth(data: bytes, *, name: str = "the document", max_depth: int = MAX_DEPTH) -> None:
    """Refuse what is nested deeper; whether it is JSON at all, its reader says.

    Raises:
        MalformedError: it is too deep.
    """
    if data.count(b"[") + data.count(b"{") > max_depth and _is_deeper(data, max_depth):
        message = f"{name} is nested deeper than {max_depth}"
        raise MalformedError(message, code="too-deep")


def _is_deeper(data: bytes, depth: int) -> bool:
    """Whether JSON is nested deeper; no byte of it is looked at in Python."""
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    left = data.translate(_ONE_KIND, _OTHERS).replace(b'""', b"")
    if b'"' in left:  # brackets in strings
        left = _STRINGS.sub(b"", left)
    for _ in range(depth):
        left = left.replace(b"[]", b"")  # what is innermost
    return left != b""


def _text(data: bytes | str, name: str, max_bytes: int) -> str:
    if len(data) > max_bytes:
        message = f"{name} has {len(data)} bytes; at most {max_bytes} are read"
        raise MalformedError(message, code="too-large")
    if isinstance(data, str):
        return data
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"{name} is no UTF-8 at byte {error.start}"
        raise MalformedError(message, code="utf-8") from error


def _check_depth(text: str, name: str, max_depth: int) -> None:
    if text.count("[") + text.count("{") <= max_depth:
        return
    depth = 0
    for match in _BRACKETS.finditer(text):
        first = text[match.start()]
        if first in "[{":
            depth += 1
            if depth > max_depth:
                message = f"{name} is nested deeper than {max_depth} at offset {match.start()}"
                raise MalformedError(message, code="too-deep")
        elif first != '"':
            depth -= 1


def _decode(text: str, name: str) -> "JsonValue":
    twice: list[_Twice] = []

    def members(pairs: "list[tuple[str, JsonValue]]") -> "dict[str, JsonValue] | _Twice":
        members = dict(pairs)
        if len(members) == len(pairs):
            return members
        twice.append(_Twice(_first_twice(key for key, _ in pairs)))
        return twice[-1]

    def constant(word: str) -> Never:
        message = f"{name} holds {word}, which is no JSON"
        raise MalformedError(message, code="number")

    def number(digits: str) -> float:
        value = float(digits)
        if not math.isfinite(value):
            message = f"{name} holds the number {digits[:40]}, which no double can hold"
            raise MalformedError(message, code="number")
        return value

    try:
        value: JsonValue = json.loads(
            text, object_pairs_hook=members, parse_constant=constant, parse_float=number
        )
    except json.JSONDecodeError as error:
        place = f"offset {error.pos} (line {error.lineno}, column {error.colno})"
        message = f"{name} is no JSON at {place}: {error.msg.lower()}"
        raise MalformedError(message, code="json-syntax") from error
    except ValueError as error:  # an integer of more than 4300 digits
        message = f"{name} holds a number that is too long"
        raise MalformedError(message, code="number") from error
    if twice:
        where, key = next(_find(value))
        message = f"{name} names the key {key!r} twice"
        raise MalformedError(message, code="duplicate-key", pointer=f"{where}/{escape(key)}")
    return value


def _first_twice(keys: "Iterable[str]") -> str:
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            return key
        seen.add(key)
    raise AssertionError(seen)


def _find(value: object, pointer: str = "") -> "Iterator[tuple[str, str]]":
    if isinstance(value, _Twice):
        yield pointer, value.key
    elif isinstance(value, dict):
        for key, below in value.items():
            yield from _find(below, f"{pointer}/{escape(key)}")
    elif isinstance(value, list):
        for no, below in enumerate(value):
            yield from _find(below, f"{pointer}/{no}")


def _check_surrogates(value: object, name: str, pointer: str = "") -> None:
    if isinstance(value, str):
        if not _is_text(value):
            message = f"{name} holds half a surrogate pair"
            raise MalformedError(message, code="utf-8", pointer=pointer)
    elif isinstance(value, dict):
        for key, below in value.items():
            _check_surrogates(key, name, pointer)
            _check_surrogates(below, name, f"{pointer}/{escape(key)}")
    elif isinstance(value, list):
        for no, below in enumerate(value):
            _check_surrogates(below, name, f"{pointer}/{no}")


def _is_text(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
