"""The lines of a worker's log: its own events as JSON, and whatever else its code has printed."""

import json
from typing import Any

from hivemesh_platform.cli import output

_FRAME = ("timestamp", "level", "event", "worker", "step", "fields", "exception")


def parsed(line: str) -> dict[str, Any]:
    """A line as an object; what is no event is the `event` itself."""
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    return found if isinstance(found, dict) and "event" in found else {"event": line}


def shown(line: str) -> str:
    """A line for people: time, level, message, `key=value` for each field, and the step."""
    found = parsed(line)
    if "timestamp" not in found:
        return output.printable(line)
    fields = {name: value for name, value in found.items() if name not in _FRAME}
    own = found.get("fields")
    fields |= own if isinstance(own, dict) else {}
    if "step" in found:
        fields["step"] = found["step"]
    head = [_time(found["timestamp"]), str(found.get("level", "")), str(found["event"])]
    text = " ".join([*head, *(f"{name}={_value(value)}" for name, value in fields.items())])
    trace = str(found.get("exception") or "").splitlines()
    return "\n".join(output.printable(one) for one in (text, *trace))


def _time(text: object) -> str:
    try:
        return output.local_time(str(text))
    except ValueError:  # a line of somebody else
        return str(text)


def _value(value: object) -> str:
    """As it is where nobody could take it for more than one field, else as JSON."""
    plain = isinstance(value, str) and value.isprintable() and not set(value) & set(' "=')
    return str(value) if plain and value else json.dumps(value, ensure_ascii=False)
