"""The types of mail that this worker knows, and what it says about each."""

from typing import Literal

import msgspec

SPAM, BILL, RECEIPT = "spam", "bill", "receipt"
NEWSLETTER, NOTIFICATION, PERSONAL = "newsletter", "notification", "personal"
TYPES = (SPAM, BILL, RECEIPT, NEWSLETTER, NOTIFICATION, PERSONAL)
THRESHOLD = 0.5


class Label(msgspec.Struct, frozen=True):
    """Whether a message is of a type; `confidence` says how sure it is that it IS of the type."""

    label: bool  # true from a confidence of 0.5 on
    confidence: float  # a probability of the model, or a sum of named signs
    method: Literal["model", "rules"]


class NotAMessage(msgspec.Struct, frozen=True):
    """Stands in the place of a record that cannot be read; says why."""

    detail: str


def label(confidence: float, method: Literal["model", "rules"]) -> Label:
    """Return the label for a confidence."""
    rounded = round(confidence, 4)
    return Label(label=rounded >= THRESHOLD, confidence=rounded, method=method)
