"""Loads what people write (plugin.yaml, pipelines) into its model, and says what is wrong where."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar, get_args

from pydantic import BaseModel, JsonValue, ValidationError
from pydantic_core import ErrorDetails

from hivemesh_sdk.contracts.manifest import Manifest
from hivemesh_sdk.contracts.pipeline import Pipeline
from hivemesh_sdk.contracts.policy import PolicyDocument
from hivemesh_sdk.contracts.problems import FieldProblem
from hivemesh_sdk.errors import HivemeshError, InvalidError
from hivemesh_sdk.safeio.egress import Rule
from hivemesh_sdk.safeio.problems import listing, pointer
from hivemesh_sdk.safeio.yaml import MAX_BYTES, Document, parse_yaml_document

Model = TypeVar("Model", bound=BaseModel)
Lists = Mapping[tuple[str | int, ...], Sequence[str]]  # what stands at a path of the document


class FileUnreadableError(HivemeshError):
    """A file that the caller named cannot be read."""

    slug = "file-unreadable"


def load_manifest(path: Path) -> Manifest:
    """Read a plugin.yaml.

    Raises:
        FileUnreadableError: the file cannot be read.
        MalformedError: it is no acceptable YAML.
        InvalidError: it is no manifest; `errors` point at each mistake.
    """
    return parse_manifest(read_text(path), name=path.name)


def parse_manifest(data: bytes | str, *, name: str = "plugin.yaml") -> Manifest:
    """Read the text of a plugin.yaml; raises as `load_manifest`."""
    document = parse_yaml_document(data, name=name)
    manifest = _validated(Manifest, document, name, "manifest-invalid")
    egress: Lists = {("permissions", "egress"): manifest.permissions.egress}
    _check_egress(egress, document, name, "manifest-invalid")
    return manifest


def load_pipeline(path: Path) -> Pipeline:
    """Read a pipeline file; raises as `load_manifest`."""
    return parse_pipeline(read_text(path), name=path.name)


def parse_pipeline(data: bytes | str, *, name: str = "the pipeline") -> Pipeline:
    """Read the text of a pipeline file; raises as `load_manifest`."""
    document = parse_yaml_document(data, name=name, max_aliases=100)
    return _validated(Pipeline, document, name, "pipeline-invalid")


def parse_policy(data: bytes | str, *, name: str = "the policy") -> PolicyDocument:
    """Read the text of a policy document; raises as `load_manifest`."""
    document = parse_yaml_document(data, name=name, max_aliases=100)
    policy = _validated(PolicyDocument, document, name, "policy-invalid")
    egress: Lists = {
        ("egress", index, "allow"): one.allow for index, one in enumerate(policy.egress)
    }
    _check_egress(egress, document, name, "policy-invalid")
    return policy


def validated(
    model: type[Model], value: JsonValue, *, name: str = "the document", slug: str = "invalid"
) -> Model:
    """Check a value that is parsed already.

    Raises:
        InvalidError: it does not have the model's shape; `errors` point at each mistake.
    """
    return _validated(model, Document(value), name, slug)


def read_text(path: Path) -> bytes:
    """Read a file of at most 1 MiB (and one byte, which tells that it is larger).

    Raises:
        FileUnreadableError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        message = f"{str(path)!r} cannot be read: {(error.strerror or str(error)).lower()}"
        raise FileUnreadableError(message) from error


def field_problems(
    error: ValidationError, model: type[BaseModel], *, show_values: bool = False
) -> list[FieldProblem]:
    """Pydantic's errors as pointers and messages, with a suggestion for each unknown key.

    Refused values are repeated only where the document cannot hold a secret.
    """
    errors = error.errors(include_url=False, include_input=show_values)
    broken = {
        one["loc"][: len(one["loc"]) - 1 - up] for one in errors for up in range(len(one["loc"]))
    }
    return [
        _field_problem(one, model, show_values=show_values)
        for one in errors
        if one["type"] != "too_short" or one["loc"] not in broken  # short for want of valid items
    ]


def _validated(model: type[Model], document: Document, name: str, slug: str) -> Model:
    try:
        return model.model_validate(document.value)
    except ValidationError as error:
        found = field_problems(error, model, show_values=bool(document.lines))
        problems = [_with_line(one, document.lines) for one in found]
        message = f"{name} is not valid: {listing(problems)}"
        raise InvalidError(message, slug=slug, errors=problems) from error


def _check_egress(lists: Lists, document: Document, name: str, slug: str) -> None:
    """Refuse destinations that have the form of one and name none."""
    problems = []
    for path, rules in lists.items():
        for index, text in enumerate(rules):
            try:
                Rule.parse(text)
            except InvalidError as error:
                found = FieldProblem(
                    pointer=pointer((*path, index)), message=error.detail, code="destination"
                )
                problems.append(_with_line(found, document.lines))
    if problems:
        message = f"{name} is not valid: {listing(problems)}"
        raise InvalidError(message, slug=slug, errors=problems)


def _with_line(problem: FieldProblem, lines: dict[str, int]) -> FieldProblem:
    line = lines.get(problem.pointer) or lines.get(problem.pointer.rpartition("/")[0])
    if line is None:
        return problem
    return FieldProblem(
        pointer=problem.pointer, message=f"{problem.message} (line {line})", code=problem.code
    )


def _field_problem(
    error: ErrorDetails, model: type[BaseModel], *, show_values: bool
) -> FieldProblem:
    path = tuple(part for part in error["loc"] if part != "[key]")
    kind = error["type"]
    if kind == "extra_forbidden":
        return FieldProblem(
            pointer=pointer(path), message=_unknown_key(path, model), code="unknown-key"
        )
    message = error["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if kind == "missing":
        message = "the key is missing"
    elif show_values and kind != "value_error" and isinstance(error["input"], str | int | float):
        message = f"{message}; it is {error['input']!r:.80}"
    return FieldProblem(pointer=pointer(path), message=message, code=kind.replace("_", "-"))


def _unknown_key(path: tuple[str | int, ...], model: type[BaseModel]) -> str:
    key = str(path[-1])
    known = sorted({name for owner in _models_at(model, path[:-1]) for name in _keys(owner)})
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if close:
        return f"unknown key {key!r}; did you mean {close[0]!r}?"
    return f"unknown key {key!r}; known are {', '.join(known)}" if known else f"unknown key {key!r}"


def _keys(model: type[BaseModel]) -> Iterator[str]:
    for name, info in model.model_fields.items():
        yield info.alias or name


def _models_at(model: type[BaseModel], path: tuple[str | int, ...]) -> list[type[BaseModel]]:
    """The models that may stand at a path; unions leave several."""
    found: list[object] = [model]
    for part in path:
        found = [below for one in found for below in _below(one, part)]
    return [one for one in _flat(found) if isinstance(one, type) and issubclass(one, BaseModel)]


def _below(annotation: object, part: str | int) -> Iterator[object]:
    for one in _flat([annotation]):
        if isinstance(one, type) and issubclass(one, BaseModel):
            for name, info in one.model_fields.items():
                if part in {name, info.alias}:
                    yield info.annotation
        else:
            yield from get_args(one)[-1:] if not _is_tuple(one) else get_args(one)[:1]


def _is_tuple(annotation: object) -> bool:
    return getattr(annotation, "__origin__", None) is tuple


def _flat(annotations: list[object]) -> Iterator[object]:
    """Look through Annotated, Optional and unions."""
    for one in annotations:
        if hasattr(one, "__metadata__"):
            yield from _flat([get_args(one)[0]])
        elif type(one).__name__ in {"UnionType", "_UnionGenericAlias"}:
            yield from _flat([arg for arg in get_args(one) if arg is not type(None)])
        else:
            yield one
