"""Reads a capability's annotations: which parameter is what, which types, which JSON Schemas."""

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hivemesh_sdk.errors import ConfigurationError
from hivemesh_sdk.worker.codec import json_schema, options_schema
from hivemesh_sdk.worker.context import Context
from hivemesh_sdk.worker.records import Rejected, State

Kind = Literal["call", "map", "source", "reducer"]
Where = Literal["inline", "process"]
Role = Literal["input", "options", "start", "context"]
Type = Any  # an annotation: a class, a union, a generic alias

_NO_VALUE = type(None)
_NAMED_ROLES: dict[str, Role] = {
    "options": "options",
    "start": "start",
    "checkpoint": "start",
    "context": "context",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What one capability takes and gives; `None` where it takes no such thing.

    Types are those of single records: `list[T]` and `T | Rejected` count as T. Annotations stay:
    `Annotated[Raw, T]` is decoded as `Raw` and has the schema of T.
    """

    input: Type
    output: Type
    options: Type = None
    checkpoint: Type = None
    roles: Mapping[str, Role]  # parameter to role, of the function or of `add`
    result_roles: Mapping[str, Role]  # of a reducer's `result`

    def schemas(self) -> dict[str, dict[str, object] | None]:
        """JSON Schemas of input, output and options."""
        return {
            "input": None if self.input is None else json_schema(self.input),
            "output": json_schema(self.output),
            "options": None if self.options is None else options_schema(self.options),
        }


def introspect(capability: str, kind: Kind, target: Callable[..., object]) -> Signature:
    """Read the signature of a capability.

    Raises:
        ConfigurationError: it is none of its kind; the message says what is expected.
    """
    try:
        return _READERS[kind](target)
    except (ConfigurationError, NameError, TypeError) as error:
        message = f"{capability}: {error}"
        raise ConfigurationError(message) from error


def _call(target: Callable[..., object]) -> Signature:
    hints = typing.get_type_hints(target, include_extras=True)
    roles = _roles(target, hints)
    return Signature(
        input=_hint(hints, roles, "input"),
        output=_without(hints.get("return", object), Rejected),
        options=_hint(hints, roles, "options"),
        roles=roles,
        result_roles={},
    )


def _map(target: Callable[..., object]) -> Signature:
    hints = typing.get_type_hints(target, include_extras=True)
    roles = _roles(target, hints)
    if "input" not in roles.values():
        message = "a map takes `records: list[T]`"
        raise ConfigurationError(message)
    return Signature(
        input=_item(_hint(hints, roles, "input")),
        output=_without(_item(hints.get("return", list[object])), Rejected),
        options=_hint(hints, roles, "options"),
        roles=roles,
        result_roles={},
    )


def _source(target: Callable[..., object]) -> Signature:
    hints = typing.get_type_hints(target, include_extras=True)
    roles = _roles(target, hints)
    if "start" not in roles.values():
        message = "a source takes `start`, the checkpoint it goes on from (None: the beginning)"
        raise ConfigurationError(message)
    if "input" in roles.values():
        message = "a source takes `options`, `start` and `context` and nothing else"
        raise ConfigurationError(message)
    pair = typing.get_args(_item(hints.get("return", None)))
    parts = pair or (object, object)
    if len(parts) != 2:
        message = "a source yields pairs: (record or Rejected, checkpoint valid after it)"
        raise ConfigurationError(message)
    start = _without(_hint(hints, roles, "start"), _NO_VALUE)
    return Signature(
        input=None,
        output=_without(parts[0], Rejected),
        options=_hint(hints, roles, "options"),
        checkpoint=parts[1] if start is object else start,
        roles=roles,
        result_roles={},
    )


def _reducer(target: Callable[..., object]) -> Signature:
    if not (isinstance(target, type) and issubclass(target, State)):
        message = "a reducer is a class that inherits from State"
        raise ConfigurationError(message)
    methods = {name: getattr(target, name, None) for name in ("add", "merge", "result")}
    missing = [name for name, method in methods.items() if method is None]
    if missing:
        message = f"a reducer has the methods add, merge and result; missing: {missing}"
        raise ConfigurationError(message)
    add, result = methods["add"], methods["result"]
    if not (callable(add) and callable(result)):
        message = "add and result must be methods"
        raise ConfigurationError(message)
    add_hints = typing.get_type_hints(add, include_extras=True)
    result_hints = typing.get_type_hints(result, include_extras=True)
    roles, result_roles = _roles(add, add_hints), _roles(result, result_hints)
    return Signature(
        input=_item(_hint(add_hints, roles, "input")),
        output=result_hints.get("return", object),
        options=_hint(result_hints, result_roles, "options"),
        roles=roles,
        result_roles=result_roles,
    )


_READERS: dict[Kind, Callable[[Callable[..., object]], Signature]] = {
    "call": _call,
    "map": _map,
    "source": _source,
    "reducer": _reducer,
}


def _roles(target: Callable[..., object], hints: Mapping[str, Type]) -> dict[str, Role]:
    roles: dict[str, Role] = {}
    for name, parameter in inspect.signature(target).parameters.items():
        if name == "self":
            continue
        role: Role = "context" if hints.get(name) is Context else _NAMED_ROLES.get(name, "input")
        if role in roles.values():
            if parameter.default is not inspect.Parameter.empty:
                continue
            message = f"parameter {name!r} is one too many; known are options, start and context"
            raise ConfigurationError(message)
        roles[name] = role
    return roles


def _hint(hints: Mapping[str, Type], roles: Mapping[str, Role], role: Role) -> Type:
    name = next((name for name, one in roles.items() if one == role), None)
    return None if name is None else hints.get(name, object)


def _item(hint: Type) -> Type:
    """The first argument of `list[T]`, `Iterator[T]`, `Generator[T, …]` and their kin."""
    inner = typing.get_args(hint)
    return inner[0] if inner else object


def _without(hint: Type, unwanted: type) -> Type:
    if typing.get_origin(hint) not in {typing.Union, types.UnionType}:
        return hint
    kept = tuple(one for one in typing.get_args(hint) if one is not unwanted)
    return typing.Union[kept]  # noqa: UP007 - the members are known at run time only
