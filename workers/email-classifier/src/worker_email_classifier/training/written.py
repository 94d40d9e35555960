"""Reads the good mail that was written for this worker: bills, receipts, newsletters and so on.

The public archives hold hardly any such mail, so a model that never saw it calls it spam. It is
training material and a test of the rules; it is never counted as a measurement of quality.
"""

from importlib import resources

from worker_email_classifier.message import Message, message_of

_FILE = "written.txt"


def written() -> list[tuple[str, Message]]:
    """Return (type, message) pairs."""
    text = resources.files("worker_email_classifier.training").joinpath(_FILE).read_text("utf-8")
    lines = [line for line in text.splitlines() if line.strip()]
    return [_message(head, body) for head, body in zip(lines[::2], lines[1::2], strict=True)]


def _message(head: str, body: str) -> tuple[str, Message]:
    kind, sender, subject = head.split(" | ", 2)
    fields = {
        "subject": subject,
        "from": [{"name": sender.partition("@")[0], "address": sender}],
        "to": [{"name": "", "address": "reader@example.com"}],
        "text": body,
    }
    return kind, message_of(fields)
