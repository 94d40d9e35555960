"""The language of `when`: comparisons of references and constants. Pure, and nothing is evaluated.

when    = "${{" or "}}"
or      = and { "or" and }          and = not { "and" not }
not     = "not" not | "(" or ")" | compare
compare = value [ ( "==" | "!=" | "<" | "<=" | ">" | ">=" ) value ]
value   = 'text' | "text" | number | true | false | null | reference
| exists(reference) | succeeded(STEP) | failed(STEP) | skipped(STEP)

A step that a failure further up has blocked counts as failed: whoever tells of failures or tidies
up after them names the last step, and need not know which one before it broke.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from operator import ge, gt, le, lt
from typing import Literal

import msgspec
from hivemesh_sdk.errors import FatalError
from pydantic import JsonValue

from hivemesh_platform.execution.plans.references import (
    BrokenReferenceError,
    Reference,
    look_up,
    parse_path,
)

MAX_LENGTH = 1000
MAX_DEPTH = 32
_WHOLE = re.compile(r"\s*\$\{\{(.*)\}\}\s*", re.DOTALL)
_TOKEN = re.compile(
    r"""\s*(?:(?P<text>'[^'\\]*'|"[^"\\]*")
          |(?P<number>-?\d{1,18}(?:\.\d{1,18})?(?![A-Za-z0-9_.]))
          |(?P<name>[a-z][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*)
          |(?P<sign>==|!=|<=|>=|<|>|\(|\)))""",
    re.VERBOSE,
)
_CONSTANTS: Mapping[str, JsonValue] = {"true": True, "false": False, "null": None}
_ORDER: Mapping[str, Callable[[float | str, float | str], bool]] = {
    "<": lt,
    "<=": le,
    ">": gt,
    ">=": ge,
}

Question = Literal["succeeded", "failed", "skipped"]
_QUESTIONS: Mapping[str, frozenset[str]] = {
    "succeeded": frozenset({"completed", "partial"}),
    "failed": frozenset({"failed", "blocked"}),
    "skipped": frozenset({"skipped"}),
}


class ConditionError(FatalError):
    """A condition cannot be decided: what it compares is not there or of another type."""

    slug = "condition-undecided"


@dataclass(frozen=True, slots=True)
class Constant:
    """A text, a number, true, false or null."""

    value: JsonValue


@dataclass(frozen=True, slots=True)
class Value:
    """What a reference leads to."""

    reference: Reference


@dataclass(frozen=True, slots=True)
class Exists:
    """Whether a reference leads anywhere."""

    reference: Reference


@dataclass(frozen=True, slots=True)
class Ended:
    """How a step has ended."""

    question: str
    step: str


@dataclass(frozen=True, slots=True)
class Compare:
    """Two values and the sign between them."""

    sign: str
    left: "Expression"
    right: "Expression"


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    of: "Expression"


@dataclass(frozen=True, slots=True)
class Both:
    """`and` or `or` of two."""

    word: str
    left: "Expression"
    right: "Expression"


Expression = Constant | Value | Exists | Ended | Compare | Not | Both


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition that was read, with its text."""

    text: str
    expression: Expression

    def values(self) -> Iterator[Reference]:
        """The references whose values it compares."""
        return (one.reference for one in _walk(self.expression) if isinstance(one, Value))

    def looks(self) -> Iterator[Reference]:
        """The references that it only asks for, so that they may be missing."""
        return (one.reference for one in _walk(self.expression) if isinstance(one, Exists))

    def asks(self) -> Iterator[str]:
        """The steps that it asks how they have ended."""
        return (one.step for one in _walk(self.expression) if isinstance(one, Ended))


def parse_condition(text: str) -> Condition:
    """Read a condition.

    Raises:
        ValueError: it is none.
    """
    whole = _WHOLE.fullmatch(text)
    if whole is None:
        message = "write a condition as ${{ STEP.field == 'a' }}"
        raise ValueError(message)
    if len(text) > MAX_LENGTH:
        message = f"the condition is longer than {MAX_LENGTH} characters"
        raise ValueError(message)
    inner = whole[1].strip()
    return Condition(inner, _Parser(inner).parse())


def decide(condition: Condition, scope: Mapping[str, JsonValue], states: Mapping[str, str]) -> bool:
    """Say whether a condition holds, by the values of its references and the ends of steps.

    Raises:
        ConditionError: it cannot be said.
    """
    answer = _evaluate(condition.expression, scope, states)
    if not isinstance(answer, bool):
        message = f"the condition {condition.text!r} is neither true nor false; compare it"
        raise ConditionError(message)
    return answer


class _Parser:
    """Reads one expression, from left to right."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._next = 0
        self._depth = 0

    def parse(self) -> Expression:
        found = self._or()
        if self._next < len(self._tokens):
            raise self._unexpected()
        return found

    def _or(self) -> Expression:
        found = self._and()
        while self._take("or"):
            found = Both("or", found, self._and())
        return found

    def _and(self) -> Expression:
        found = self._not()
        while self._take("and"):
            found = Both("and", found, self._not())
        return found

    def _not(self) -> Expression:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            message = f"the condition is nested more than {MAX_DEPTH} deep"
            raise ValueError(message)
        try:
            if self._take("not"):
                return Not(self._not())
            if self._take("("):
                found = self._or()
                self._expect(")")
                return found
            return self._compare()
        finally:
            self._depth -= 1

    def _compare(self) -> Expression:
        left = self._value()
        for sign in ("==", "!=", "<", "<=", ">", ">="):
            if self._take(sign):
                return Compare(sign, left, self._value())
        return left

    def _value(self) -> Expression:
        kind, text = self._peek()
        self._next += 1
        match kind:
            case "text":
                return Constant(text[1:-1])
            case "number":
                return Constant(msgspec.json.decode(text))
            case "name" if text in _CONSTANTS:
                return Constant(_CONSTANTS[text])
            case "name" if self._take("("):
                return self._function(text)
            case "name" if text not in {"and", "or", "not"}:
                return Value(parse_path(text))
        self._next -= 1
        raise self._unexpected()

    def _function(self, name: str) -> Expression:
        kind, argument = self._peek()
        if kind != "name" or (name != "exists" and name not in _QUESTIONS):
            message = f"{name}(…) is no question; ask exists, succeeded, failed or skipped"
            raise ValueError(message)
        self._next += 1
        self._expect(")")
        reference = parse_path(argument)
        if name == "exists":
            return Exists(reference)
        if reference.fields:
            message = f"{name}(…) asks about a step, not about its field {argument!r}"
            raise ValueError(message)
        return Ended(name, reference.root)

    def _peek(self) -> tuple[str, str]:
        if self._next >= len(self._tokens):
            message = "the condition ends too early"
            raise ValueError(message)
        return self._tokens[self._next]

    def _take(self, text: str) -> bool:
        if self._next < len(self._tokens) and self._tokens[self._next] in {
            ("name", text),
            ("sign", text),
        }:
            self._next += 1
            return True
        return False

    def _expect(self, text: str) -> None:
        if not self._take(text):
            message = f"{text!r} is missing in the condition"
            raise ValueError(message)

    def _unexpected(self) -> ValueError:
        return ValueError(f"{self._tokens[self._next][1]!r} is out of place in the condition")


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    place, end = 0, len(text.rstrip())
    while place < end:
        match = _TOKEN.match(text, place)
        if match is None or match.lastgroup is None:
            message = f"{text[place:].strip()[:20]!r} is out of place in the condition"
            raise ValueError(message)
        yield match.lastgroup, match[match.lastgroup]
        place = match.end()


def _walk(expression: Expression) -> Iterator[Expression]:
    yield expression
    match expression:
        case Compare(_, left, right) | Both(_, left, right):
            yield from _walk(left)
            yield from _walk(right)
        case Not(of):
            yield from _walk(of)
        case _:
            return


def _evaluate(
    expression: Expression, scope: Mapping[str, JsonValue], states: Mapping[str, str]
) -> JsonValue:
    match expression:
        case Constant(value):
            return value
        case Value(reference):
            return _value(reference, scope)
        case Compare(sign, left, right):
            return _compare(sign, _evaluate(left, scope, states), _evaluate(right, scope, states))
        case _:
            return _answer(expression, scope, states)


def _answer(
    expression: Exists | Ended | Not | Both,
    scope: Mapping[str, JsonValue],
    states: Mapping[str, str],
) -> bool:
    match expression:
        case Exists(reference):
            return _exists(reference, scope)
        case Ended(question, step):
            return states.get(step, "") in _QUESTIONS[question]
        case Not(of):
            return not _truth(_evaluate(of, scope, states))
        case Both(word, left, right):
            first = _truth(_evaluate(left, scope, states))
            if first is (word == "or"):
                return first
            return _truth(_evaluate(right, scope, states))


def _value(reference: Reference, scope: Mapping[str, JsonValue]) -> JsonValue:
    try:
        return look_up(reference, scope)
    except BrokenReferenceError as error:
        message = f"{error.detail}; ask exists({reference}) before"
        raise ConditionError(message) from error


def _exists(reference: Reference, scope: Mapping[str, JsonValue]) -> bool:
    try:
        return look_up(reference, scope) is not None
    except BrokenReferenceError:
        return False


def _truth(value: JsonValue) -> bool:
    if isinstance(value, bool):
        return value
    message = "`and`, `or` and `not` take what is true or false; compare the other values"
    raise ConditionError(message)


def _compare(sign: str, left: JsonValue, right: JsonValue) -> bool:
    """Values of different types are not equal; only numbers and texts have an order."""
    if sign in {"==", "!="}:
        same = isinstance(left, bool) is isinstance(right, bool) and left == right
        return same is (sign == "==")
    if isinstance(left, str) and isinstance(right, str):
        return _ORDER[sign](left, right)
    if _is_number(left) and _is_number(right):
        return _ORDER[sign](left, right)  # type: ignore[arg-type]  # numbers, see above
    message = f"{sign!r} compares two numbers or two texts"
    raise ConditionError(message)


def _is_number(value: JsonValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
