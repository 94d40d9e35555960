"""Lets msgspec print the JSON Schema of every type that it can decode.

It cannot print a default that is raw JSON, nor `object`. Structs with such defaults are replaced
by twins in which the field is merely optional; `object` becomes "any JSON value".
"""

import types
import typing
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

SCHEMA_ATTRIBUTE = "__hivemesh_schema__"  # of types that say their schema themselves

Type = Any  # an annotation: a class, a union, a generic alias


def schema_components(
    kinds: Sequence[Type], ref_template: str
) -> tuple[tuple[dict[str, Any], ...], dict[str, dict[str, Any]]]:
    """As `msgspec.json.schema_components`, for any of our types."""
    twins: dict[Type, Type] = {}
    printable = [_twin(kind, twins) for kind in kinds]
    return msgspec.json.schema_components(
        printable, schema_hook=_any_value, ref_template=ref_template
    )


def schema(kind: Type) -> dict[str, Any]:
    """As `msgspec.json.schema`, for any of our types."""
    return msgspec.json.schema(_twin(kind, {}), schema_hook=_any_value)


def _any_value(kind: type) -> dict[str, Any]:
    if kind is object:
        return {"description": "any JSON value"}
    own = getattr(kind, SCHEMA_ATTRIBUTE, None)
    if own is not None:
        return dict(own)
    raise NotImplementedError


def _twin(kind: Type, twins: dict[Type, Type]) -> Type:
    inner = typing.get_args(kind)
    origin: Type = typing.get_origin(kind)
    if inner and origin is not typing.Literal:
        return _rebuilt(kind, [_twin(one, twins) for one in inner])
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return kind
    if kind not in twins:
        twins[kind] = kind  # a type that refers to itself keeps itself there
        twins[kind] = _struct_twin(kind, twins)
    return twins[kind]


def _rebuilt(kind: Type, inner: list[Type]) -> Type:
    if inner == list(typing.get_args(kind)):
        return kind
    origin: Type = typing.get_origin(kind)
    if origin in {typing.Union, types.UnionType}:
        return typing.Union[tuple(inner)]  # noqa: UP007 - built from a list
    if hasattr(kind, "__metadata__"):
        return typing.Annotated[(inner[0], *kind.__metadata__)]
    subscript: Callable[[Type], Type] = origin.__class_getitem__
    return subscript(tuple(inner))


def _struct_twin(kind: type[msgspec.Struct], twins: dict[Type, Type]) -> Type:
    fields = msgspec.structs.fields(kind)
    kinds = [_twin(field.type, twins) for field in fields]
    changed = any(isinstance(field.default, msgspec.Raw) for field in fields) or any(
        new is not field.type for new, field in zip(kinds, fields, strict=True)
    )
    if not changed:
        return kind
    config = kind.__struct_config__
    return msgspec.defstruct(
        kind.__name__,
        [_field(field, new) for field, new in zip(fields, kinds, strict=True)],
        namespace={"__doc__": kind.__doc__},
        kw_only=True,
        tag=config.tag,
        tag_field=config.tag_field,
        forbid_unknown_fields=config.forbid_unknown_fields,
    )


def _field(field: msgspec.structs.FieldInfo, kind: Type) -> tuple[str, Type, Any]:
    name = field.encode_name
    if isinstance(field.default, msgspec.Raw):
        return (
            field.name,
            object | msgspec.UnsetType,
            msgspec.field(default=msgspec.UNSET, name=name),
        )
    if field.default is not msgspec.NODEFAULT:
        return field.name, kind, msgspec.field(default=field.default, name=name)
    if field.default_factory is not msgspec.NODEFAULT:
        return field.name, kind, msgspec.field(default_factory=field.default_factory, name=name)
    return field.name, kind, msgspec.field(name=name)
