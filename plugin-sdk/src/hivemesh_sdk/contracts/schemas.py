"""JSON Schemas (2020-12) of every document of the wire contract, made from the types themselves."""

from collections.abc import Mapping
from typing import Union, get_args

import msgspec
from pydantic import BaseModel, JsonValue

from hivemesh_sdk.contracts.artifacts import Artifact, Grant, GrantRequest, Tree
from hivemesh_sdk.contracts.instances import (
    Discovery,
    Heartbeat,
    HeartbeatReply,
    Registration,
    RegistrationReply,
)
from hivemesh_sdk.contracts.manifest import Manifest
from hivemesh_sdk.contracts.pipeline import Pipeline
from hivemesh_sdk.contracts.problems import Problem
from hivemesh_sdk.contracts.steps import (
    Command,
    Event,
    ExecutionStatus,
    StepRequest,
    WorkerStatus,
)

DIALECT = "https://json-schema.org/draft/2020-12/schema"

WRITTEN: Mapping[str, type[BaseModel]] = {"manifest": Manifest, "pipeline": Pipeline}
MESSAGES: Mapping[str, object] = {
    "step-request": StepRequest,
    "event": Event,
    "worker-status": WorkerStatus,
    "execution-status": ExecutionStatus,
    "command": Command,
    "registration": Registration,
    "registration-reply": RegistrationReply,
    "heartbeat": Heartbeat,
    "heartbeat-reply": HeartbeatReply,
    "discovery": Discovery,
    "artifact": Artifact,
    "tree": Tree,
    "grant-request": GrantRequest,
    "grant": Grant,
    "problem": Problem,
}


def documents() -> dict[str, JsonValue]:
    """One schema per document, by its name; each stands alone."""
    written = {name: _written(name, model) for name, model in WRITTEN.items()}
    messages = {name: _message(name, kind) for name, kind in MESSAGES.items()}
    return {**written, **messages}


def components() -> dict[str, JsonValue]:
    """The machine messages as the components of an OpenAPI document."""
    template = "#/components/schemas/{name}"
    types = [_twin(kind) for kind in MESSAGES.values()]
    roots, found = msgspec.json.schema_components(types, schema_hook=_any, ref_template=template)
    event = list(MESSAGES).index("event")
    return dict(sorted({**found, "Event": roots[event]}.items()))


def _written(name: str, model: type[BaseModel]) -> JsonValue:
    return {**_head(name), **model.model_json_schema(by_alias=True)}


def _message(name: str, kind: object) -> JsonValue:
    return {**_head(name), **msgspec.json.schema(_twin(kind), schema_hook=_any)}


def _head(name: str) -> dict[str, JsonValue]:
    return {"$schema": DIALECT, "$id": f"urn:hivemesh:schema:v1:{name}"}


def _any(kind: type) -> dict[str, JsonValue]:
    if kind is not object:
        message = f"{kind} has no JSON form"
        raise TypeError(message)
    return {"description": "any JSON value"}


def _twin(kind: object) -> object:
    """The same type with optional fields in place of raw defaults, which msgspec cannot print."""
    if get_args(kind):
        return Union[tuple(_twin(one) for one in get_args(kind))]  # noqa: UP007 - built from a tuple
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return kind
    fields = msgspec.structs.fields(kind)
    if not any(isinstance(field.default, msgspec.Raw) for field in fields):
        return kind
    return msgspec.defstruct(
        kind.__name__,
        [_twin_field(field) for field in fields],
        namespace={"__doc__": kind.__doc__},
        kw_only=True,
        tag=kind.__struct_config__.tag,
        tag_field=kind.__struct_config__.tag_field,
    )


def _twin_field(field: msgspec.structs.FieldInfo) -> tuple[str, object, object]:
    if isinstance(field.default, msgspec.Raw):
        return field.name, object | msgspec.UnsetType, msgspec.UNSET
    if field.default_factory is not msgspec.NODEFAULT:
        return field.name, field.type, msgspec.field(default_factory=field.default_factory)
    return field.name, field.type, msgspec.field(default=field.default)
