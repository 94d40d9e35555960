"""Reads YAML as data: bounded, without aliases unless asked, duplicate keys refused.

Scalars follow the core schema of YAML 1.2: `no`, `on`, `off` and `yes` are text (YAML 1.1 reads
them as booleans), `010` is ten, `12:30` is text, a date is text. A boolean is written `true` or
`false`. Only what JSON can say is accepted: no tags, no merge keys, no infinity, text as keys.
"""

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Never

import yaml

from hivemesh_sdk.safeio.problems import MalformedError, escape

if TYPE_CHECKING:
    from pydantic import JsonValue
    from yaml._yaml import Mark as CMark

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 64
MAX_NODES = 100_000  # counted with every alias written out: ten aliases of ten aliases are a bomb
MAX_KEY_LENGTH = 1024

REMEDY = "correct the file at this place; it is YAML, or JSON, in UTF-8"

_PREFIX = "tag:yaml.org,2002:"


class _Loader(yaml.CSafeLoader):
    """Composes nodes with the resolvers of the core schema."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - as typed in the stubs of the base


_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_SPECIAL_FLOAT = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_RESOLVERS = (
    ("bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    ("null", re.compile(r"(?:~|null|Null|NULL|)$"), ("~", "n", "N", "")),
    ("int", re.compile(rf"(?:{_INTEGER.pattern})$"), "-+0123456789"),
    ("float", re.compile(rf"(?:{_FLOAT.pattern}|{_SPECIAL_FLOAT.pattern})$"), "-+0123456789."),
)
for _name, _pattern, _first in _RESOLVERS:
    _Loader.add_implicit_resolver(_PREFIX + _name, _pattern, list(_first))


@dataclass(frozen=True, slots=True)
class Document:
    """A value and, per JSON pointer, the line it stands on (the first is 1)."""

    value: "JsonValue"
    lines: dict[str, int] = field(default_factory=dict)


def parse_yaml(
    data: bytes | str, *, name: str = "the document", max_aliases: int = 0
) -> "JsonValue":
    """Read one YAML document.

    Raises:
        MalformedError: it is too large, too deep, no YAML, or says what JSON cannot.
    """
    return parse_yaml_document(data, name=name, max_aliases=max_aliases).value


def parse_yaml_document(
    data: bytes | str, *, name: str = "the document", max_aliases: int = 0
) -> Document:
    """Read one YAML document together with its line numbers; raises as `parse_yaml`."""
    text = _text(data, name)
    try:
        _Limits(name, max_aliases).check(text)
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        raise _unreadable(name, error) from error
    except yaml.YAMLError as error:  # a character that YAML does not allow carries no mark
        message = f"{name} is no YAML: {' '.join(str(error).split())}"
        raise MalformedError(message, code="yaml-syntax", remedy=REMEDY) from error
    builder = _Builder(name)
    return Document(builder.value(root, "") if root is not None else None, builder.lines)


def _text(data: bytes | str, name: str) -> str:
    size = len(data) if isinstance(data, bytes) else len(data.encode("utf-8", "replace"))
    if size > MAX_BYTES:
        message = f"{name} has {size} bytes; at most {MAX_BYTES} are read"
        raise MalformedError(message, code="too-large")
    if isinstance(data, str):
        return data
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"{name} is no UTF-8 at byte {error.start}"
        raise MalformedError(message, code="utf-8") from error


def _unreadable(name: str, error: yaml.MarkedYAMLError) -> MalformedError:
    mark = error.problem_mark or error.context_mark
    what = error.problem or error.context or "it is no YAML"
    if "found another document" in what or "single document" in what:
        what = "it holds more than one document"
    return MalformedError(f"{_place(name, mark)}: {what}", code="yaml-syntax", remedy=REMEDY)


def _place(name: str, mark: "yaml.Mark | CMark | None") -> str:
    return name if mark is None else f"{name} line {mark.line + 1}, column {mark.column + 1}"


class _Limits:
    """Walks the events before anything is built."""

    def __init__(self, name: str, max_aliases: int) -> None:
        self._name = name
        self._max_aliases = max_aliases
        self._aliases = 0
        self._sizes: dict[str, int] = {}  # nodes below a closed anchor, aliases written out
        self._open: list[tuple[str | None, int]] = []  # anchor and node count at its start
        self._nodes = 0

    def check(self, text: str) -> None:
        for event in yaml.parse(text, Loader=_Loader):
            self._look(event)
            if self._nodes > MAX_NODES:
                self._refuse(event, f"more than {MAX_NODES} values", "too-many-values")

    def _look(self, event: yaml.Event) -> None:
        match event:
            case yaml.AliasEvent():
                self._alias(event)
            case yaml.ScalarEvent():
                self._nodes += 1
                if event.anchor is not None:
                    self._sizes[event.anchor] = 1
            case yaml.CollectionStartEvent():
                if len(self._open) >= MAX_DEPTH:
                    self._refuse(event, f"nested deeper than {MAX_DEPTH}", "too-deep")
                self._open.append((event.anchor, self._nodes))
                self._nodes += 1
            case yaml.CollectionEndEvent():
                anchor, before = self._open.pop()
                if anchor is not None:
                    self._sizes[anchor] = self._nodes - before
            case _:
                pass

    def _alias(self, event: yaml.AliasEvent) -> None:
        self._aliases += 1
        if self._max_aliases == 0:
            self._refuse(event, "aliases (*name) are not allowed here; repeat the value", "alias")
        if self._aliases > self._max_aliases:
            self._refuse(event, f"more than {self._max_aliases} aliases", "alias")
        if event.anchor not in self._sizes:
            self._refuse(
                event, f"alias *{event.anchor} stands inside or before its anchor", "alias"
            )
        self._nodes += self._sizes[event.anchor]

    def _refuse(self, event: yaml.Event, what: str, code: str) -> Never:
        message = f"{_place(self._name, event.start_mark)}: {what}"
        raise MalformedError(message, code=code)


class _Builder:
    """Turns checked nodes into JSON values."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.lines: dict[str, int] = {}

    def value(self, node: yaml.Node, pointer: str) -> "JsonValue":
        self.lines[pointer] = node.start_mark.line + 1
        tag = node.tag.removeprefix(_PREFIX)
        if isinstance(node, yaml.MappingNode) and tag == "map":
            return self._mapping(node, pointer)
        if isinstance(node, yaml.SequenceNode) and tag == "seq":
            return [self.value(item, f"{pointer}/{no}") for no, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, tag, pointer)
        raise self._error(node, f"the tag {node.tag!r} is not allowed", "tag", pointer)

    def _mapping(self, node: yaml.MappingNode, pointer: str) -> "dict[str, JsonValue]":
        result: dict[str, JsonValue] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node, pointer)
            below = f"{pointer}/{escape(key)}"
            if key in result:
                raise self._error(
                    key_node, f"the key {key!r} is written twice", "duplicate-key", below
                )
            result[key] = self.value(value_node, below)
            self.lines[below] = key_node.start_mark.line + 1
        return result

    def _key(self, node: yaml.Node, pointer: str) -> str:
        if not isinstance(node, yaml.ScalarNode) or node.tag != f"{_PREFIX}str":
            written = node.value if isinstance(node, yaml.ScalarNode) else "a collection"
            raise self._error(node, f"a key must be text; quote {written!r}", "key", pointer)
        if node.value == "<<" and not node.style:
            raise self._error(
                node, "merge keys (<<) are not allowed; repeat the keys", "key", pointer
            )
        if len(node.value) > MAX_KEY_LENGTH:
            raise self._error(node, f"a key is longer than {MAX_KEY_LENGTH}", "key", pointer)
        return str(node.value)

    def _scalar(self, node: yaml.ScalarNode, tag: str, pointer: str) -> "JsonValue":
        text: str = node.value
        match tag:
            case "str":
                return text
            case "null":
                return None
            case "bool" if text.lower() in {"true", "false"}:
                return text.lower() == "true"
            case "int" if _INTEGER.fullmatch(text):
                return self._integer(node, text, pointer)
            case "float" if _FLOAT.fullmatch(text) and math.isfinite(float(text)):
                return float(text)
            case _:
                what = f"{text!r} is no value that JSON can say ({tag})"
                raise self._error(node, what, "scalar", pointer)

    def _integer(self, node: yaml.ScalarNode, text: str, pointer: str) -> int:
        if len(text) > 100:
            raise self._error(node, "a number has more than 100 digits", "scalar", pointer)
        return int(text, 0) if text.startswith(("0o", "0x")) else int(text)

    def _error(self, node: yaml.Node, what: str, code: str, pointer: str) -> MalformedError:
        message = f"{_place(self._name, node.start_mark)}: {what}"
        return MalformedError(message, code=code, pointer=pointer)
