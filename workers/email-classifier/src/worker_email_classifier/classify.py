"""Labels batches of messages: the model for spam, the rules for the rest. Knows no transport."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import msgspec

from worker_email_classifier.features import Extractor
from worker_email_classifier.message import Message, decode
from worker_email_classifier.model import Model
from worker_email_classifier.rules import confidences
from worker_email_classifier.signs import Signs
from worker_email_classifier.text import Reading, read
from worker_email_classifier.types import SPAM, THRESHOLD, TYPES, Label, NotAMessage, label

_encode = msgspec.json.Encoder().encode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Classifier:
    """Holds the model and the memo of words between batches."""

    types = TYPES

    def __init__(self, model: Model) -> None:
        self._model = model
        self._extractor = Extractor()

    def records(
        self, lines: Sequence[bytes | msgspec.Raw], types: Sequence[str]
    ) -> list[bytes | NotAMessage]:
        """Return each record as it came, with `labels` added; one answer per line, in order."""
        answers: list[bytes | NotAMessage] = []
        messages: list[Message] = []
        places: list[int] = []
        for line in lines:
            try:
                messages.append(decode(line))
                places.append(len(answers))
                answers.append(b"")
            except msgspec.DecodeError as error:
                answers.append(NotAMessage(str(error)))
        labels = self.labels(messages, types)
        for place, message, given in zip(places, messages, labels, strict=True):
            answers[place] = _with_labels(bytes(lines[place]), message, given)
        return answers

    def labels(self, messages: list[Message], types: Sequence[str]) -> list[dict[str, Label]]:
        """Return the labels of the asked types for each message."""
        if not messages:
            return []
        readings = [read(message) for message in messages]
        spam = self._model.probabilities(self._extractor.features(readings)).tolist()
        ruled = frozenset(types) - {SPAM}
        return [_labels(*pair, types, ruled) for pair in zip(readings, spam, strict=True)]


def _labels(
    reading: Reading, spam: float, types: Sequence[str], ruled: AbstractSet[str]
) -> dict[str, Label]:
    given = {SPAM: label(spam, "model")}
    if ruled:
        honest = 1.0 if spam < THRESHOLD else 1.0 - spam  # spam poses as every other type
        for name, confidence in confidences(Signs(reading), ruled).items():
            given[name] = label(confidence * honest, "rules")
    return {name: given[name] for name in types}


def _with_labels(line: bytes, message: Message, labels: dict[str, Label]) -> bytes:
    """Add a field to a JSON object without reading the rest of it."""
    if message.labels is not msgspec.UNSET:
        return _with_other_labels(line, message.labels, labels)
    head = line.rstrip()[:-1].rstrip()
    comma = b"" if head.endswith(b"{") else b","
    return b'%b%b"labels":%b}' % (head, comma, _encode(labels))


def _with_other_labels(line: bytes, old: msgspec.Raw, labels: dict[str, Label]) -> bytes:
    fields = _fields(line)
    try:
        kept = _fields(old)
    except msgspec.DecodeError:
        kept = {}
    fields["labels"] = msgspec.Raw(_encode({**kept, **labels}))
    return _encode(fields)
