"""Turns JSON into the types that a capability declares, and back.

Everything msgspec knows is accepted, and Pydantic models; Pydantic is never imported here.
"""

import re
import typing
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import msgspec

from hivemesh_sdk.contracts.artifacts import Artifact
from hivemesh_sdk.contracts.printable import schema_components
from hivemesh_sdk.contracts.problems import FieldProblem
from hivemesh_sdk.errors import ConfigurationError, FatalError
from hivemesh_sdk.worker.records import Raw
from hivemesh_sdk.worker.secrets import NO_VAULT, Vault, option_decoder

Type = Any  # an annotation: a class, a union, a generic alias

UNWRITABLE = (TypeError, ValueError, RecursionError)  # what has no form in JSON, or holds it

_encoder = msgspec.json.Encoder()
encode = _encoder.encode
_PATH = re.compile(r"(?P<what>.*?)(?: - at `\$(?P<path>[^`]*)`)?", re.DOTALL)
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|\[\.\.\.\]")


class UnwritableError(FatalError):
    """A value cannot be written as JSON, such as text that is no Unicode; others of its type can."""

    slug = "output-invalid"


class Codec:
    """Decodes one type; `decode` takes a document, `decode_lines` a batch of NDJSON."""

    __slots__ = ("_model", "decode", "decode_lines", "names", "type")

    def __init__(self, declared: Type) -> None:
        self.type = declared
        self.names = _field_names(declared)  # None where any name is taken
        self._model = _is_pydantic(declared)
        if self._model:
            self.decode: Callable[[bytes], Any] = declared.model_validate_json
            self.decode_lines: Callable[[bytes], list[Any]] = self._each_line
        else:
            decoder = msgspec.json.Decoder(Any if declared in (None, object) else declared)
            self.decode = decoder.decode
            self.decode_lines = decoder.decode_lines

    def convert(self, value: object, vault: Vault = NO_VAULT) -> Any:
        """Turn a decoded document into the type; its secrets come from `vault`."""
        if self._model:
            return self.type.model_validate(value, context={"vault": vault})
        return msgspec.convert(value, self.type, dec_hook=option_decoder(vault))

    def _each_line(self, data: bytes) -> list[Any]:
        return [self.decode(line) for line in data.split(b"\n") if line]


def encode_record(record: object, what: str = "the answer") -> bytes:
    """The JSON of a record, on one line.

    Raises:
        UnwritableError: because of its value.
        FatalError: because of its type.
    """
    try:
        if _is_pydantic(type(record)):
            data: str = record.model_dump_json()  # type: ignore[attr-defined] # a Pydantic model
            return data.encode()
        return encode(record)
    except TypeError as error:
        message = f"{what} cannot be written as JSON: {error}"
        raise FatalError(message, slug="output-invalid") from error
    except UNWRITABLE as error:
        message = f"{what} cannot be written as JSON: {error}"
        raise UnwritableError(message) from error


def options_of(codec: Codec | None, given: Mapping[str, object], vault: Vault = NO_VAULT) -> object:
    """Check options against their type; `codec` is None where the capability takes none.

    Raises:
        ConfigurationError: an option is unknown, missing or wrong; `errors` point at it.
    """
    if codec is None and not given:
        return None
    known = () if codec is None else codec.names
    unknown = [] if known is None else [name for name in given if name not in known]
    if unknown:
        errors = [_unknown_option(name, known or ()) for name in unknown]
        raise ConfigurationError(errors[0].message, slug="options-invalid", errors=errors)
    if codec is None:
        return None
    try:
        return codec.convert(given, vault)
    except Exception as error:
        problems = field_problems(error)
        if problems is None:
            raise
        raise ConfigurationError(
            problems[0].message, slug="options-invalid", errors=problems
        ) from error


def field_problems(error: Exception) -> list[FieldProblem] | None:
    """What a decoder complains of, with JSON pointers; None for any other exception."""
    if isinstance(error, msgspec.ValidationError):
        return [_from_msgspec(str(error))]
    if isinstance(error, msgspec.DecodeError):
        return [FieldProblem(pointer="", message=str(error))]
    listed = getattr(error, "errors", None)
    if type(error).__module__.startswith("pydantic") and callable(listed):
        return [
            FieldProblem(
                pointer="".join(f"/{_escape(str(part))}" for part in one["loc"]),
                message=one["msg"],
                code=one["type"],
            )
            for one in listed(include_url=False, include_context=False, include_input=False)
        ]
    return None


def json_schema(declared: Type) -> dict[str, object]:
    """JSON Schema (2020-12) of a type, with its `$defs` inside.

    A record that is not decoded says by `Annotated[Raw, T]` what others may take it for.
    """
    kind, more = _described(declared)
    return {**_schema(kind), **more}


def _schema(declared: Type) -> dict[str, object]:
    if declared is object:
        return {}
    if _is_pydantic(declared):
        schema: dict[str, object] = declared.model_json_schema()
        return schema
    (schema,), definitions = schema_components([declared], "#/$defs/{name}")
    reference = schema.get("$ref")
    if isinstance(reference, str):
        schema = definitions.pop(reference.rsplit("/", 1)[1])
        if reference in str(definitions) or reference in str(schema):
            definitions[reference.rsplit("/", 1)[1]] = schema  # it refers to itself
    return {**schema, "$defs": definitions} if definitions else schema


def options_schema(declared: Type) -> dict[str, object]:
    """JSON Schema of options; unlike records they refuse what they do not know."""
    schema = json_schema(declared)
    if _field_names(declared) is not None:
        schema = {**schema, "additionalProperties": False}
    return schema


def artifact_fields(declared: Type) -> frozenset[str]:
    """Names of the fields of options that hold an `Artifact`, or a list of them."""
    try:
        fields = msgspec.inspect.type_info(declared).fields  # type: ignore[attr-defined] # types without fields are caught
    except (AttributeError, TypeError):
        return frozenset()
    return frozenset(field.encode_name for field in fields if _holds_artifact(field.type))


def _holds_artifact(info: msgspec.inspect.Type) -> bool:
    match info:
        case msgspec.inspect.StructType(cls=cls):
            return issubclass(cls, Artifact)
        case msgspec.inspect.UnionType(types=types):
            return any(map(_holds_artifact, types))
        case msgspec.inspect.ListType(item_type=item):
            return _holds_artifact(item)
        case _:
            return False


def _described(declared: Type) -> tuple[Type, dict[str, object]]:
    """The type that `Annotated[Raw, T]` names, and what a `Meta` beside it adds to T's schema."""
    origin: Type = typing.get_origin(declared)
    if origin is not typing.Annotated:
        return declared, {}
    base, *named = typing.get_args(declared)
    kind = next((one for one in named if isinstance(one, type)), None)
    if base is not Raw or kind is None:
        return declared, {}
    metas = (one.extra_json_schema or {} for one in named if isinstance(one, msgspec.Meta))
    return kind, {key: value for extra in metas for key, value in extra.items()}


def _is_pydantic(declared: Type) -> bool:
    return isinstance(declared, type) and hasattr(declared, "model_validate_json")


def _field_names(declared: Type) -> Sequence[str] | None:
    """Names on the wire, or None where the type is open (a dict)."""
    if _is_pydantic(declared):
        if declared.model_config.get("extra") == "allow":
            return None
        return [field.alias or name for name, field in declared.model_fields.items()]
    try:
        return [field.encode_name for field in msgspec.inspect.type_info(declared).fields]  # type: ignore[attr-defined] # types without fields are caught
    except AttributeError:
        return None


def _unknown_option(name: str, known: Sequence[str]) -> FieldProblem:
    near = get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; known are {sorted(known)}"
    return FieldProblem(
        pointer=f"/{_escape(name)}", message=f"unknown option {name!r}{hint}", code="unknown"
    )


def _from_msgspec(text: str) -> FieldProblem:
    match = _PATH.fullmatch(text)
    what, path = (match["what"], match["path"] or "") if match else (text, "")
    parts = (name or index or "*" for name, index in _STEP.findall(path))
    return FieldProblem(
        pointer="".join(f"/{_escape(part)}" for part in parts), message=what, code="invalid"
    )


def _escape(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")
