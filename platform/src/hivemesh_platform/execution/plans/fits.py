"""Compares what one step gives with what the next one takes, by their JSON Schemas. Pure.

Only what cannot work is reported: schemas that leave something open are taken to fit, since a
worker checks every record itself.
"""

from collections.abc import Iterator, Mapping

from pydantic import JsonValue

Schema = Mapping[str, JsonValue]

_DEEPEST = 16  # a schema may refer to itself
_EVERYTHING = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})


def misfits(given: Schema | None, taken: Schema | None) -> list[str]:
    """Say in a few words each why records of one schema cannot be taken as the other."""
    if not given or not taken:
        return []
    return list(dict.fromkeys(_misfits(_Place(given, given), _Place(taken, taken), "", 0)))


class _Place:
    """A schema within its document, where its references lead."""

    def __init__(self, document: Schema, schema: Schema) -> None:
        self._document = document
        found: JsonValue = dict(schema)
        for _ in range(_DEEPEST):
            if not isinstance(found, dict) or "$ref" not in found:
                break
            found = self._look_up(found["$ref"])
        self.schema: Schema = found if isinstance(found, dict) else {}

    def at(self, schema: JsonValue) -> "_Place":
        """A schema below this one."""
        return _Place(self._document, schema if isinstance(schema, dict) else {})

    def _look_up(self, reference: JsonValue) -> JsonValue:
        found: JsonValue = dict(self._document)
        parts = str(reference).removeprefix("#/").split("/")
        for part in parts:
            found = found.get(part, {}) if isinstance(found, dict) else {}
        return found

    @property
    def types(self) -> frozenset[str]:
        """The JSON types that it admits; all of them where it does not say."""
        for word in ("anyOf", "oneOf"):
            choices = self.schema.get(word)
            if isinstance(choices, list):
                return frozenset().union(*(self.at(one).types for one in choices))
        declared = self.schema.get("type")
        if isinstance(declared, str):
            return _widened({declared})
        if isinstance(declared, list):
            return _widened({str(one) for one in declared})
        return _EVERYTHING

    @property
    def properties(self) -> Mapping[str, JsonValue] | None:
        """The properties of an object, where they are listed."""
        found = self.schema.get("properties")
        return found if isinstance(found, dict) else None

    @property
    def passes_more(self) -> bool:
        """Whether it says that objects have properties which it does not list."""
        return self.schema.get("additionalProperties", False) is not False


def _widened(types: set[str]) -> frozenset[str]:
    return frozenset(types | ({"number"} if "integer" in types else set()))


def _misfits(given: _Place, taken: _Place, path: str, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        return
    name = path or "the record"
    if given.types.isdisjoint(taken.types):
        yield f"{name} is {_words(given)}, {_words(taken)} is taken"
        return
    offered, wanted = given.properties, taken.properties
    if offered is not None:
        required = None if given.passes_more else taken.schema.get("required")
        for field in required if isinstance(required, list) else []:
            if field not in offered:
                yield f"{_below(path, str(field))} is required and not given"
        for field in offered.keys() & (wanted or {}).keys():
            below = given.at(offered[field]), taken.at((wanted or {})[field])
            yield from _misfits(*below, _below(path, field), depth + 1)
    if "items" in given.schema and "items" in taken.schema:
        below = given.at(given.schema["items"]), taken.at(taken.schema["items"])
        yield from _misfits(*below, f"{path}[]", depth + 1)


def _words(place: _Place) -> str:
    types = place.types - ({"number"} if "integer" in place.types else set())
    return " or ".join(sorted(types))


def _below(path: str, field: str) -> str:
    return f"{path}.{field}" if path else field
