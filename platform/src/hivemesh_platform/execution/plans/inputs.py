"""Checks a value against a JSON Schema before work is accepted. Pure.

Only what cannot be right is reported: words of a schema that are not known here are taken to fit,
since a worker checks everything itself.
"""

from collections.abc import Iterator, Mapping, Sequence

from hivemesh_sdk.contracts.problems import FieldProblem
from pydantic import JsonValue

from hivemesh_platform.execution.plans.references import escape

MAX_DEPTH = 32
MAX_TOLD = 20
Schema = Mapping[str, JsonValue]

_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


def unfit(value: JsonValue, schema: Schema | None, pointer: str = "") -> list[FieldProblem]:
    """Say what of a value does not fit, each with its place."""
    found = []
    for problem in _check(value, dict(schema or {}), schema or {}, pointer, 0):
        found.append(problem)
        if len(found) == MAX_TOLD:
            break
    return found


def _check(
    value: JsonValue, schema: JsonValue, root: Schema, pointer: str, depth: int
) -> Iterator[FieldProblem]:
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return
    reference = schema.get("$ref")
    if isinstance(reference, str):
        definitions = root.get("$defs")
        name = reference.removeprefix("#/$defs/")
        if isinstance(definitions, dict):
            yield from _check(value, definitions.get(name), root, pointer, depth + 1)
        return
    yield from _check_choices(value, schema, root, pointer, depth)
    wrong = _wrong_type(value, schema)
    if wrong:
        yield FieldProblem(pointer=pointer, message=wrong, code="type")
    elif isinstance(value, dict):
        yield from _check_object(value, schema, root, pointer, depth)
    elif isinstance(value, list):
        items = schema.get("items")
        for index, item in enumerate(value):
            yield from _check(item, items, root, f"{pointer}/{index}", depth + 1)


def _check_choices(
    value: JsonValue, schema: Schema, root: Schema, pointer: str, depth: int
) -> Iterator[FieldProblem]:
    for word in ("anyOf", "oneOf"):
        offered = schema.get(word)
        if isinstance(offered, Sequence) and offered:
            tried = [list(_check(value, one, root, pointer, depth + 1)) for one in offered]
            if all(tried):
                yield from min(tried, key=len)
    allowed = schema.get("enum")
    if isinstance(allowed, list) and value not in allowed:
        message = f"is none of {', '.join(map(str, allowed))}"
        yield FieldProblem(pointer=pointer, message=message, code="enum")


def _wrong_type(value: JsonValue, schema: Schema) -> str:
    named = schema.get("type")
    names = [named] if isinstance(named, str) else named
    if not isinstance(names, list) or not names:
        return ""
    for name in names:
        kinds = _TYPES.get(str(name))
        if kinds is None or (isinstance(value, kinds) and _is_plain(value, str(name))):
            return ""
    return f"is no {' or '.join(map(str, names))}"


def _is_plain(value: JsonValue, name: str) -> bool:
    return name == "boolean" or not isinstance(value, bool)


def _check_object(
    value: Mapping[str, JsonValue], schema: Schema, root: Schema, pointer: str, depth: int
) -> Iterator[FieldProblem]:
    required = schema.get("required")
    for name in required if isinstance(required, list) else []:
        if isinstance(name, str) and name not in value:
            yield FieldProblem(pointer=pointer, message=f"{name!r} is missing", code="missing")
    properties = schema.get("properties")
    known = properties if isinstance(properties, dict) else {}
    for name, item in value.items():
        place = f"{pointer}/{escape(name)}"
        if name in known:
            yield from _check(item, known[name], root, place, depth + 1)
        elif schema.get("additionalProperties") is False:
            message = f"there is no {name!r}; known: {', '.join(sorted(known)) or 'none'}"
            yield FieldProblem(pointer=place, message=message, code="unknown")
