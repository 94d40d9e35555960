"""Values that people write on the command line: `key=value` pairs and JSON files."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from hivemesh_sdk.errors import ConfigurationError
from pydantic import JsonValue


def parse_labels(pairs: Sequence[str], option: str = "--label") -> dict[str, str]:
    """Read `name=value` pairs of an option; the values are text.

    Raises:
        ConfigurationError: a pair has no `=`.
    """
    labels: dict[str, str] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or not name:
            message = f"{option}: {pair!r} is no label; write NAME=VALUE"
            raise ConfigurationError(message, slug="command-misused")
        labels[name] = value
    return labels


def read_lines(source: str, option: str) -> "list[JsonValue]":
    """Read a JSON document a line, from the file of an option or from standard input for `-`.

    Raises:
        ConfigurationError: a line is not JSON, there is none, or no file is named.
    """
    text = _text(source, option)
    values: list[JsonValue] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            values.append(json.loads(line))
        except ValueError as error:
            message = f"line {number} of {source!r} is no JSON: {error}"
            raise ConfigurationError(message, slug="malformed") from error
    if not values:
        message = f"{source!r} has no line; write the JSON of one input on each"
        raise ConfigurationError(message, slug="malformed")
    return values


def seconds(text: str, option: str) -> float:
    """Read the duration that an option has: a number with s, m, h or d.

    Raises:
        ConfigurationError: it is none.
    """
    units = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
    number, unit = text[:-1], text[-1:]
    if unit not in units or not number.replace(".", "", 1).isdecimal():
        message = f"{option}: {text!r} is no duration; write 15m, 12h or 30d"
        raise ConfigurationError(message, slug="command-misused")
    return float(number) * units[unit]


def read_json(source: str, option: str) -> "JsonValue":
    """Read a JSON document from the file of an option, or from standard input for `-`.

    Raises:
        ConfigurationError: the text is not JSON, or no file is named.
    """
    text = _text(source, option)
    try:
        value: JsonValue = json.loads(text)
    except ValueError as error:
        message = f"{source!r} holds no JSON document: {error}"
        raise ConfigurationError(message, slug="malformed") from error
    return value


def _text(source: str, option: str) -> str:
    """What a file holds, or standard input.

    Raises:
        ConfigurationError: the document itself stands where its file is named.
    """
    if source == "-":
        return sys.stdin.read()
    try:
        return Path(source).read_text()
    except OSError as error:
        if source[:1] not in tuple('{["'):
            raise
        message = f"{option}: the JSON itself stands where a file is named, or - for standard input"
        remedy = f"name a file that holds it, or pipe it in: echo 'JSON' | hivemesh … {option} -"
        raise ConfigurationError(message, slug="command-misused", remedy=remedy) from error


def since_time(text: str) -> str:
    """A time in ISO 8601: as it is written, or so long ago as `90s`, `2h` or `7d` says."""
    if not text or not text[:-1].isdigit() or text[-1] not in "smhd":
        return text
    from datetime import UTC, datetime, timedelta

    return (datetime.now(UTC) - timedelta(seconds=seconds(text, "--since"))).isoformat()
