"""Reads `key=value` pairs as people write them on a command line."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from hivemesh_sdk.contracts.problems import FieldProblem
from hivemesh_sdk.errors import ConfigurationError

if TYPE_CHECKING:
    from pydantic import JsonValue


def parse_pairs(pairs: Sequence[str]) -> "dict[str, JsonValue]":
    """Read `key=value` pairs; a value that is JSON is taken as JSON, any other as text.

    Raises:
        ConfigurationError: a pair has no `=`.
    """
    values: dict[str, JsonValue] = {}
    for pair in pairs:
        key, sign, text = pair.partition("=")
        if not sign or not key:
            message = f"{pair!r} is not of the form key=value"
            problem = FieldProblem(pointer=f"/{key}", message=message)
            raise ConfigurationError(message, slug="command-misused", errors=[problem])
        values[key] = parse_value(text)
    return values


def parse_value(text: str) -> "JsonValue":
    """A value as JSON where it is JSON, else as text."""
    try:
        value: JsonValue = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return text
    return value
