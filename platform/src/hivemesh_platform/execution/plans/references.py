"""The grammar of `${{ path }}` in pipelines, and how references are replaced by values. Pure."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

import msgspec
from hivemesh_sdk.contracts.problems import FieldProblem
from hivemesh_sdk.errors import FatalError, InvalidError
from pydantic import JsonValue

PARAMETERS = "parameters"
# Of a step: the first line of its request has 1 MiB, a checkpoint 256 KiB of it.
MAX_OPTIONS_BYTES = 768 * 1024
MAX_RUN_OPTIONS_BYTES = 16 * 1024 * 1024  # of all steps of a run
_REFERENCE = re.compile(r"\$\{\{\s*(.*?)\s*\}\}", re.DOTALL)
_PATH = re.compile(r"[a-z][A-Za-z0-9_-]{0,63}(?:\.[A-Za-z0-9_-]{1,64}){0,15}")


class BrokenReferenceError(FatalError):
    """A reference names something that is not there."""

    slug = "pipeline-invalid"


class OptionsTooLargeError(InvalidError):
    """Options are too large once the values are put in that they refer to."""

    slug = "options-invalid"

    def __init__(self, pointer: str, most: int) -> None:
        message = (
            f"options take more than {most} bytes with the values that they refer to; hand on large "
            "values as artifacts"
        )
        super().__init__(
            f"{pointer}: {message}",
            errors=[FieldProblem(pointer=pointer, message=message, code="too-large")],
        )


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


class Room:
    """How many bytes options may still take while their references are replaced.

    A short document of many references to one long value is otherwise gigabytes of options.
    """

    def __init__(self, pointer: str, most: int, within: "Room | None" = None) -> None:
        self._pointer = pointer
        self._most = most
        self._left = most
        self._within = within

    @classmethod
    def of_run(cls) -> "Room":
        """That of all steps of a run."""
        return cls("/steps", MAX_RUN_OPTIONS_BYTES)

    def step(self, name: str) -> "Room":
        """That of one step among them."""
        return Room(f"/steps/{name}/with", MAX_OPTIONS_BYTES, self)

    def take(self, size: int) -> None:
        """Count what is written.

        Raises:
            OptionsTooLargeError: there is no room for it.
        """
        self._left -= size
        if self._left < 0:
            raise OptionsTooLargeError(self._pointer, self._most)
        if self._within is not None:
            self._within.take(size)


def resolve(value: JsonValue, scope: Mapping[str, JsonValue], room: Room) -> JsonValue:
    """Replace references by values of `scope`; a string that is one reference takes its type.

    Raises:
        BrokenReferenceError: a referred value does not exist.
        OptionsTooLargeError: there is not enough room for what they bring.
    """

    def whole(path: str, _: str) -> JsonValue:
        return look_up(parse_path(path), scope)

    def part(path: str, _: str) -> str:
        return _as_text(look_up(parse_path(path), scope))

    return _replace(value, _Finds(whole, part, room))


def fill(value: JsonValue, scope: Mapping[str, JsonValue], room: Room) -> JsonValue:
    """Replace what `scope` knows, as `resolve` will, and leave every other reference as it is.

    Raises:
        OptionsTooLargeError: there is not enough room for what they bring.
    """

    def whole(path: str, written: str) -> JsonValue:
        with suppress(BrokenReferenceError, ValueError):
            return look_up(parse_path(path), scope)
        return written

    def part(path: str, written: str) -> str:
        with suppress(BrokenReferenceError, ValueError):
            return _as_text(look_up(parse_path(path), scope))
        return written

    return _replace(value, _Finds(whole, part, room))


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


@dataclass(frozen=True, slots=True)
class _Finds:
    """What takes the place of a reference, by its path and as it is written."""

    whole: Callable[[str, str], JsonValue]  # that stands alone
    part: Callable[[str, str], str]  # within a text
    room: Room


def _replace(value: JsonValue, finds: _Finds) -> JsonValue:
    match value:
        case str():
            return _replace_text(value, finds)
        case dict():
            return {key: _replace(item, finds) for key, item in value.items()}
        case list():
            return [_replace(item, finds) for item in value]
        case _:
            return value


def _replace_text(text: str, finds: _Finds) -> JsonValue:
    finds.room.take(len(text))
    whole = _REFERENCE.fullmatch(text)
    if whole is not None and _REFERENCE.search(text, whole.start(1)) is None:
        found = finds.whole(whole[1], text)
        finds.room.take(len(msgspec.json.encode(found)))
        return found

    def part(match: re.Match[str]) -> str:
        found = finds.part(match[1], match[0])
        finds.room.take(len(msgspec.json.encode(found)))
        return found

    return _REFERENCE.sub(part, text)


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
