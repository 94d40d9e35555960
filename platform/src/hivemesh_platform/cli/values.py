"""Values that people write on the command line: `key=value` pairs and JSON files."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from hivemesh_sdk.contracts.problems import FieldProblem
from hivemesh_sdk.errors import ConfigurationError
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
            problem = FieldProblem(
                pointer=f"/{key}", message=f"{pair!r} is not of the form key=value"
            )
            detail = "an option cannot be read"
            raise ConfigurationError(detail, errors=[problem])
        values[key] = parse_value(text)
    return values


def parse_value(text: str) -> "JsonValue":
    """A value as JSON where it is JSON, else as text."""
    try:
        value: JsonValue = json.loads(text)
    except ValueError:
        return text
    return value


def seconds(text: str) -> float:
    """Read a duration: a number with s, m, h or d.

    Raises:
        ConfigurationError: it is none.
    """
    units = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
    number, unit = text[:-1], text[-1:]
    if unit not in units or not number.replace(".", "", 1).isdecimal():
        message = f"{text!r} is no duration; write 15m, 12h or 30d"
        raise ConfigurationError(message, slug="configuration-invalid")
    return float(number) * units[unit]


def read_json(source: str) -> "JsonValue":
    """Read a JSON document from a file, or from standard input for `-`.

    Raises:
        ConfigurationError: the text is not JSON.
    """
    text = sys.stdin.read() if source == "-" else Path(source).read_text()
    try:
        value: JsonValue = json.loads(text)
    except ValueError as error:
        message = f"{source!r} holds no JSON document: {error}"
        raise ConfigurationError(message, slug="malformed") from error
    return value


def since_time(text: str) -> str:
    """A time in ISO 8601: as it is written, or so long ago as `90s`, `2h` or `7d` says."""
    if not text or not text[:-1].isdigit() or text[-1] not in "smhd":
        return text
    from datetime import UTC, datetime, timedelta

    return (datetime.now(UTC) - timedelta(seconds=seconds(text))).isoformat()
