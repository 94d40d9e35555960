"""A worker's log: one JSON object a line, with the worker's name."""

import json
import subprocess
import sys

CODE = """
import structlog
from hivemesh_sdk.lifecycle.logs import configure_logs
configure_logs("warning", worker="echo")
log = structlog.get_logger("x")
log.info("unseen")
log.warning("seen", key="two\\nlines")
"""


def test_a_line_is_json_names_the_worker_and_escapes_line_feeds():
    result = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=60
    )
    (line,) = result.stderr.splitlines()
    event = json.loads(line)
    assert (event["worker"], event["event"], event["level"]) == ("echo", "seen", "warning")
    assert event["key"] == "two\nlines"
    assert result.stdout == ""
