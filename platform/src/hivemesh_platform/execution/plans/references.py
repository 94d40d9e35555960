"""The grammar of `${{ path }}` in pipelines, and how references are replaced by values. Pure."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hivemesh_sdk.errors import FatalError
from pydantic import JsonValue

PARAMETERS = "parameters"
_REFERENCE = re.compile(r"\$\{\{\s*(.*?)\s*\}\}", re.DOTALL)
_PATH = re.compile(r"[a-z][A-Za-z0-9_-]{0,63}(?:\.[A-Za-z0-9_-]{1,64}){0,15}")


class BrokenReferenceError(FatalError):
    """A reference names something that is not there."""

    slug = "pipeline-invalid"


@dataclass(frozen=True, slots=True)
class Reference:
    """`root.field.field`: the root is `parameters` or the name of a step."""

    root: str
    fields: tuple[str, ...]

    def __str__(self) -> str:
        return ".".join((self.root, *self.fields))


def parse_path(text: str) -> Reference:
    """Read a path such as `parameters.archive` or `insights.report`.

    Raises:
        ValueError: the text is no path.
    """
    if _PATH.fullmatch(text) is None:
        message = (
            f"{text!r} is no reference; write ${{{{ parameters.NAME }}}} or ${{{{ STEP.field }}}}"
        )
        raise ValueError(message)
    root, *fields = text.split(".")
    return Reference(root, tuple(fields))


def find_references(value: JsonValue, pointer: str = "") -> Iterator[tuple[str, str]]:
    """Yield the JSON pointer and inner text of every reference in a document."""
    match value:
        case str():
            for text in _REFERENCE.findall(value):
                yield pointer, text
        case dict():
            for key, item in value.items():
                yield from find_references(item, f"{pointer}/{escape(key)}")
        case list():
            for index, item in enumerate(value):
                yield from find_references(item, f"{pointer}/{index}")
        case _:
            return


def escape(key: str) -> str:
    """Escape one token of a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")


def resolve(value: JsonValue, scope: Mapping[str, JsonValue]) -> JsonValue:
    """Replace references by values of `scope`; a string that is one reference takes its type.

    Raises:
        BrokenReferenceError: a referred value does not exist.
    """
    match value:
        case str():
            return _resolve_text(value, scope)
        case dict():
            return {key: resolve(item, scope) for key, item in value.items()}
        case list():
            return [resolve(item, scope) for item in value]
        case _:
            return value


def fill(value: JsonValue, scope: Mapping[str, JsonValue]) -> JsonValue:
    """Replace what `scope` knows, as `resolve` will, and leave every other reference as it is."""
    match value:
        case str():
            return _fill_text(value, scope)
        case dict():
            return {key: fill(item, scope) for key, item in value.items()}
        case list():
            return [fill(item, scope) for item in value]
        case _:
            return value


def look_up(reference: Reference, scope: Mapping[str, JsonValue]) -> JsonValue:
    """Follow a reference into the values of its root.

    Raises:
        BrokenReferenceError: there is no such value.
    """
    value: JsonValue = dict(scope)
    for name in (reference.root, *reference.fields):
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        else:
            message = f"{reference} has no {name!r}"
            raise BrokenReferenceError(message)
    return value


def _resolve_text(text: str, scope: Mapping[str, JsonValue]) -> JsonValue:
    whole = _REFERENCE.fullmatch(text)
    if whole is not None and _REFERENCE.search(text, whole.start(1)) is None:
        return look_up(parse_path(whole[1]), scope)
    return _REFERENCE.sub(lambda match: _as_text(look_up(parse_path(match[1]), scope)), text)


def _fill_text(text: str, scope: Mapping[str, JsonValue]) -> JsonValue:
    try:
        return _resolve_text(text, scope)
    except (BrokenReferenceError, ValueError):
        return _REFERENCE.sub(lambda match: _fill_one(match, scope), text)


def _fill_one(match: re.Match[str], scope: Mapping[str, JsonValue]) -> str:
    try:
        return _as_text(look_up(parse_path(match[1]), scope))
    except (BrokenReferenceError, ValueError):
        return match[0]


def _as_text(value: JsonValue) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case None:
            return ""
        case str() | int() | float():
            return str(value)
        case _:
            message = "an object or array cannot be put into a text; let the reference stand alone"
            raise BrokenReferenceError(message)
