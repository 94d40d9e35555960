"""The lines of a worker's log: its own events as JSON, and whatever else its code has printed."""

import json
from typing import Any

from hivemesh_platform.cli import output

_FRAME = ("timestamp", "level", "event", "worker", "step", "fields", "exception")
_LEVELS = 32  # a line nested deeper is shown as it is


def parsed(line: str) -> dict[str, Any]:
    """A line as an object; what is no event is the `event` itself."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    known = isinstance(found, dict) and "event" in found and _is_shallow(found, _LEVELS)
    return found if known else {"event": line}


def shown(line: str) -> str:
    """A line for people: time, level, message, `key=value` for each field, at last the step.

    A field may have the name of another, or be called `step` itself: both are shown.
    """
    found = parsed(line)
    if "timestamp" not in found:
        return output.printable(line)
    fields = [(name, value) for name, value in found.items() if name not in _FRAME]
    own = found.get("fields")
    fields += own.items() if isinstance(own, dict) else ()
    if "step" in found:
        fields.append(("step", found["step"]))
    head = [_time(found["timestamp"]), str(found.get("level", "")), str(found["event"])]
    text = " ".join([*head, *(f"{name}={_value(value)}" for name, value in fields)])
    trace = str(found.get("exception") or "").splitlines()
    return "\n".join(output.printable(one) for one in (text, *trace))


def _is_shallow(value: object, levels: int) -> bool:
    """Whether it can be written in any form, some of which take a few calls for each level."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels > 0 and all(_is_shallow(one, levels - 1) for one in inner)


def _time(text: object) -> str:
    try:
        return output.local_time(str(text))
    except ValueError:  # a line of somebody else
        return str(text)


def _value(value: object) -> str:
    """As it is where nobody could take it for more than one field, else as JSON."""
    plain = isinstance(value, str) and value.isprintable() and not set(value) & set(' "=')
    return str(value) if plain and value else json.dumps(value, ensure_ascii=False)
