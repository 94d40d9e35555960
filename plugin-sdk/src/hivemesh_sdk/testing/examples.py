"""Example inputs of a worker's capabilities: what a general suite cannot make up."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from pydantic import JsonValue

from hivemesh_sdk.contracts.artifacts import Artifact
from hivemesh_sdk.errors import ConfigurationError
from hivemesh_sdk.safeio.documents import read_text
from hivemesh_sdk.safeio.yaml import parse_yaml

EXAMPLES_FILE = "tests/examples.yaml"
FILE_KEY = "$file"

PutPath = Callable[[Path], Artifact]


@dataclass(frozen=True, slots=True)
class Example:
    """Options and input that a capability accepts.

    A `Path` anywhere in the options becomes an artifact. `input` is the list of records of a map
    or reducer, the value of a call, and nothing for a source.
    """

    options: Mapping[str, object] = field(default_factory=dict)
    input: object = None

    def parameters(self, put: PutPath) -> dict[str, object]:
        """The options as they travel; `put` stores a path and returns its reference."""
        return {name: _stored(value, put) for name, value in self.options.items()}

    def bodies(self, kind: str) -> list[bytes]:
        """The inline inputs of a step of this kind."""
        if kind == "source":
            return []
        if kind == "call":
            return [msgspec.json.encode(self.input)]
        if not isinstance(self.input, list):
            message = f"the example of a {kind} needs a list of records as input"
            raise ConfigurationError(message)
        return [b"".join(msgspec.json.encode(record) + b"\n" for record in self.input)]


def load_examples(folder: Path) -> dict[str, Example]:
    """Read `tests/examples.yaml` of a worker, an empty answer where there is none.

    Its form: `email.parse@1: {options: {archive: {$file: tests/data/a.mbox}}, input: null}`.

    Raises:
        ConfigurationError: an entry has another form.
    """
    path = folder / EXAMPLES_FILE
    if not path.is_file():
        return {}
    document = parse_yaml(read_text(path), name=EXAMPLES_FILE)
    if not isinstance(document, dict):
        message = f"{EXAMPLES_FILE} must map capability ids to examples"
        raise ConfigurationError(message)
    return {name: _example(name, entry, folder) for name, entry in document.items()}


def _example(name: str, entry: JsonValue, folder: Path) -> Example:
    if not isinstance(entry, dict) or entry.keys() - {"options", "input"}:
        message = f"{EXAMPLES_FILE}: {name} must have `options`, `input` and nothing else"
        raise ConfigurationError(message)
    options = entry.get("options") or {}
    if not isinstance(options, dict):
        message = f"{EXAMPLES_FILE}: the options of {name} must be a mapping"
        raise ConfigurationError(message)
    paths = {key: _with_paths(value, folder) for key, value in options.items()}
    return Example(options=paths, input=entry.get("input"))


def _with_paths(value: JsonValue, folder: Path) -> object:
    if isinstance(value, dict) and value.keys() == {FILE_KEY}:
        return folder / str(value[FILE_KEY])
    if isinstance(value, dict):
        return {key: _with_paths(below, folder) for key, below in value.items()}
    if isinstance(value, list):
        return [_with_paths(below, folder) for below in value]
    return value


def _stored(value: object, put: PutPath) -> object:
    if isinstance(value, Path):
        return msgspec.to_builtins(put(value))
    if isinstance(value, Mapping):
        return {key: _stored(below, put) for key, below in value.items()}
    if isinstance(value, list):
        return [_stored(below, put) for below in value]
    return value
