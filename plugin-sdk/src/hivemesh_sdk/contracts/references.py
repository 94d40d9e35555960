"""The grammar of `{{ vault.a.b }}`, and which fields of options may hold one. Pure.

A reference is the whole of a text, names a secret and nothing else, and stands only in a field
that the schema marks `"writeOnly": true, "format": "secret"`. What it stands for is never expanded.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hivemesh_sdk.contracts.problems import FieldProblem

SECRET_FORMAT = "secret"  # noqa: S105 - the word of the schema
SECRET_SCHEMA: Mapping[str, object] = {
    "type": "string",
    "format": SECRET_FORMAT,
    "writeOnly": True,
    "description": "a reference to a secret: {{ vault.a.b }}",
}
SECRET_PATH = re.compile(r"[A-Za-z0-9_-]{1,64}(?:\.[A-Za-z0-9_-]{1,64}){0,15}")
_WHOLE = re.compile(rf"\{{\{{ {{0,8}}vault\.({SECRET_PATH.pattern}) {{0,8}}\}}\}}")
_MEANT = re.compile(r"(?<!\$)\{\{\s*vault\b")
_FILLED_LATER = "${{"  # by parameters and answers: whoever gives them must not choose a secret
_MAX_DEPTH = 32

Schema = Mapping[str, Any]


def secret_path(text: str) -> str:
    """The path that a reference names: `a.b` of `{{ vault.a.b }}`.

    Raises:
        ValueError: the text is no reference.
    """
    match = _WHOLE.fullmatch(text)
    if match is None:
        message = "a secret is referred to as {{ vault.a.b }}, and by nothing else in the same text"
        raise ValueError(message)
    return match[1]


def named_secrets(options: object, schema: Schema | None) -> frozenset[str]:
    """The paths that options refer to in fields which their schema marks secret."""
    return frozenset(path for _, path in references_in(options, schema))


def written_secrets(options: object) -> frozenset[str]:
    """The paths that a document itself refers to, wherever it does."""
    found = set()
    for _, value, _ in _scalars(options, None):
        if isinstance(value, str) and (match := _WHOLE.fullmatch(value)):
            found.add(match[1])
    return frozenset(found)


def reference_problems(
    options: object, schema: Schema | None, pointer: str = ""
) -> Iterator[FieldProblem]:
    """What is wrong with the references of options; no message repeats a value."""
    root = schema or {}
    for place, value, schemas in _scalars(options, schema, pointer):
        marked = any(map(_is_marked, schemas))
        if marked and not _is_reference(value):
            message = (
                "this field takes a secret by reference, not its value: store it with "
                "`hivemesh secret set NAME` and write {{ vault.NAME }}"
            )
            yield FieldProblem(pointer=place, message=message, code="secret-literal")
        elif not marked and isinstance(value, str) and _MEANT.search(value):
            message = "a secret may stand only in a field that the capability marks secret"
            yield FieldProblem(pointer=place, message=message, code="secret-misplaced")
        elif isinstance(value, str) and _FILLED_LATER in value and _hold_secrets(schemas, root):
            message = (
                "this field has fields below it that take secrets, so it cannot be filled by a "
                "reference: write its fields one by one"
            )
            yield FieldProblem(pointer=place, message=message, code="secret-templated")


def references_in(
    options: object, schema: Schema | None, pointer: str = ""
) -> Iterator[tuple[str, str]]:
    """The pointer and path of each reference that stands in a field which is marked secret."""
    for place, value, schemas in _scalars(options, schema, pointer):
        marked = any(map(_is_marked, schemas))
        if marked and isinstance(value, str) and (match := _WHOLE.fullmatch(value)):
            yield place, match[1]


def pattern_problem(pattern: str) -> str:
    """What is wrong with a pattern of `permissions.secrets`; "" where nothing is."""
    segments = pattern.split(".")
    if "**" in segments[:-1]:
        return f"{pattern!r}: `**` stands at the end"
    plain = ".".join("x" if one in {"*", "**"} else one for one in segments)
    if SECRET_PATH.fullmatch(plain) is None:
        return f"{pattern!r} is no path of secrets; write it like mail.imap.* or mail.**"
    return ""


def takes_secrets(schema: object) -> bool:
    """Whether a field of the schema is marked secret."""
    if isinstance(schema, list):
        return any(map(takes_secrets, schema))
    if not isinstance(schema, Mapping):
        return False
    return _is_marked(schema) or any(map(takes_secrets, schema.values()))


def permits(patterns: Sequence[str], path: str) -> bool:
    """Whether a pattern covers a path: `*` is one segment, `**` at the end one or more."""
    return any(_covers(pattern.split("."), path.split(".")) for pattern in patterns)


def _covers(pattern: Sequence[str], path: Sequence[str]) -> bool:
    if pattern[-1] == "**":
        head = pattern[:-1]
        return len(path) > len(head) and _covers_each(head, path[: len(head)])
    return len(path) == len(pattern) and _covers_each(pattern, path)


def _covers_each(pattern: Sequence[str], path: Sequence[str]) -> bool:
    return all(one in {"*", other} for one, other in zip(pattern, path, strict=True))


def _is_reference(value: object) -> bool:
    return value is None or (isinstance(value, str) and _WHOLE.fullmatch(value) is not None)


def _scalars(
    value: object, schema: Schema | None, pointer: str = ""
) -> Iterator[tuple[str, object, Sequence[Schema]]]:
    """Every value that is no object or array, and what the schema says of its place.

    Where an object or array stands at a marked place, it counts as one value.
    """
    root = schema or {}
    yield from _walk(value, [root], root, pointer)


def _walk(
    value: object, schemas: Sequence[Schema], root: Schema, pointer: str
) -> Iterator[tuple[str, object, Sequence[Schema]]]:
    schemas = [one for schema in schemas for one in _choices(schema, root)]
    marked = any(map(_is_marked, schemas))
    if isinstance(value, Mapping) and not marked:
        for key, item in value.items():
            below = [one for schema in schemas for one in _member(schema, str(key))]
            yield from _walk(item, below, root, f"{pointer}/{_escape(str(key))}")
    elif isinstance(value, list) and not marked:
        for index, item in enumerate(value):
            below = [one for schema in schemas for one in _item(schema, index)]
            yield from _walk(item, below, root, f"{pointer}/{index}")
    else:
        yield pointer, value, schemas


def _hold_secrets(schemas: Sequence[Schema], root: Schema) -> bool:
    """Whether a field below is marked secret."""
    seen: set[str] = set()  # what was referred to
    waiting: list[object] = list(schemas)
    while waiting:
        one = waiting.pop()
        if isinstance(one, Mapping):
            if _is_marked(one):
                return True
            waiting.extend(one.values())
            reference = one.get("$ref")
            definitions = root.get("$defs")
            if isinstance(reference, str) and isinstance(definitions, Mapping):
                name = reference.removeprefix("#/$defs/")
                if name not in seen:
                    seen.add(name)
                    waiting.append(definitions.get(name))
        elif isinstance(one, list | tuple):
            waiting.extend(one)
    return False


def _is_marked(schema: Schema) -> bool:
    return schema.get("writeOnly") is True and schema.get("format") == SECRET_FORMAT


def _choices(schema: object, root: Schema, depth: int = 0) -> Iterator[Schema]:
    """A schema and all that it refers to or offers as an alternative."""
    if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
        return
    yield schema
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/$defs/"):
        definitions = root.get("$defs")
        if isinstance(definitions, Mapping):
            yield from _choices(definitions.get(reference[8:]), root, depth + 1)
    for word in ("anyOf", "oneOf", "allOf"):
        offered = schema.get(word)
        for one in offered if isinstance(offered, Sequence) else ():
            yield from _choices(one, root, depth + 1)


def _member(schema: Schema, key: str) -> Iterator[Schema]:
    properties = schema.get("properties")
    if isinstance(properties, Mapping) and key in properties:
        yield properties[key]
        return
    others = schema.get("additionalProperties")
    if isinstance(others, Mapping):
        yield others


def _item(schema: Schema, index: int) -> Iterator[Schema]:
    first = schema.get("prefixItems")
    if isinstance(first, Sequence) and index < len(first):
        yield first[index]
        return
    items = schema.get("items")
    if isinstance(items, Mapping):
        yield items


def _escape(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
