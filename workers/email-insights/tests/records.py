"""Message records as the classifier passes them on, built for one test at a time."""

import json
from datetime import UTC, datetime, timedelta

import msgspec
from worker_email_insights.message import Message

START = datetime(2024, 3, 4, 9, 0, tzinfo=UTC)  # a Monday
_DECODER = msgspec.json.Decoder(Message)


def record(number: int = 0, **changes: object) -> dict[str, object]:
    return {
        "id": f"{number:032x}",
        "source": "",
        "offset": 1000 * number,
        "length": 900,
        "message_id": f"<{number}@example.com>",
        "in_reply_to": [],
        "references": [],
        "date": stamp(hours=number),
        "from": [{"name": "Anna", "address": "anna@example.com"}],
        "to": [{"name": "", "address": "ben@example.org"}],
        "cc": [],
        "subject": f"Subject {number}",
        "headers": {},
        "text": "Hello",
        "html": "",
        "attachments": [],
        "size": 900,
        "defects": [],
        "labels": {},
    } | changes


def message(number: int = 0, **changes: object) -> Message:
    return _DECODER.decode(json.dumps(record(number, **changes)))


def stamp(**after: float) -> str:
    return (START + timedelta(**after)).strftime("%Y-%m-%dT%H:%M:%SZ")


def sender(address: str) -> list[dict[str, str]]:
    return [{"name": "", "address": address}]


def yes(*labels: str, confidence: float = 0.9) -> dict[str, object]:
    return {label: {"label": True, "confidence": confidence, "method": "rules"} for label in labels}
