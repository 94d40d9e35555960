"""Builds messages and record lines for the tests."""

import json
from typing import Any

from worker_email_classifier.message import Message, message_of
from worker_email_classifier.text import Reading, read


def fields(**given: Any) -> dict[str, Any]:
    sender = given.pop("sender", "anna@example.com")
    name = given.pop("name", "Anna")
    return {
        "subject": "",
        "from": [{"name": name, "address": sender}],
        "to": [{"name": "", "address": "ben@example.org"}],
        "text": "",
        **given,
    }


def message(**given: Any) -> Message:
    return message_of(fields(**given))


def reading(**given: Any) -> Reading:
    return read(message(**given))


def line(**given: Any) -> bytes:
    return json.dumps(fields(**given)).encode()
