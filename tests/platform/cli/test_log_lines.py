"""Lines of a worker's log, for people and for programs."""

import json

import pytest
from hivemesh_platform.cli.log_lines import parsed, shown

DEEP = '{"event": "x", "fields": {"a": ' + "[" * 500 + "]" * 500 + "}}"


def a_line(**fields):
    return json.dumps(
        {"worker": "w", "level": "info", "timestamp": "2026-01-02T10:00:00Z"} | fields
    )


def test_fields_follow_the_message():
    line = a_line(event="read", step="r.s.0", fields={"bytes": 7, "name": "a b", "kind": "mail"})
    assert shown(line).endswith(' info read bytes=7 name="a b" kind=mail step=r.s.0')
    assert parsed(line)["fields"] == {"bytes": 7, "name": "a b", "kind": "mail"}


def test_a_field_that_is_called_step_stands_beside_the_step():
    line = a_line(event="read", step="r.s.0", fields={"step": 3})
    assert shown(line).endswith(" info read step=3 step=r.s.0")


def test_events_of_the_process_are_shown_alike():
    assert shown(a_line(event="joined", slots=2)).endswith(" info joined slots=2")


def test_a_stack_trace_stands_below_its_line():
    assert shown(a_line(event="failed", exception="Traceback\n  line 1")).endswith(
        " info failed\nTraceback\n  line 1"
    )


@pytest.mark.parametrize(
    "line", ["printed by the code", '{"event": "x"', '["event"]', "7", "", "[" * 100_000, DEEP]
)
def test_any_other_line_is_itself(line):
    assert shown(line) == line
    assert parsed(line) == {"event": line}


def test_nothing_commands_the_terminal():
    line = a_line(event="\x1b[2J", fields={"\x1b[1m": "\x1b[0m"}, timestamp="\x1b", level="\x07")
    assert "\x1b" not in shown(line)
    assert "\x07" not in shown(line)
    assert "\x1b" not in shown("\x1b[2J")
