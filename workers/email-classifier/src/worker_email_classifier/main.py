"""The worker: translates between Hivemesh and the classifier."""

from functools import cache
from typing import TYPE_CHECKING, Annotated

from hivemesh_sdk import ConfigurationError, Raw, Record, Rejected, Worker
from hivemesh_sdk.contracts.problems import FieldProblem
from msgspec import Meta, field

from worker_email_classifier.message import Message
from worker_email_classifier.threads import one_thread
from worker_email_classifier.types import TYPES, Label, NotAMessage

if TYPE_CHECKING:
    from worker_email_classifier.classify import Classifier

worker = Worker()

Type = Annotated[str, Meta(extra_json_schema={"enum": list(TYPES)})]
Types = Annotated[
    list[Type],
    Meta(
        description="Types of mail to label each message with.",
        extra_json_schema={"minItems": 1, "uniqueItems": True},
    ),
]


class ClassifyOptions(Record):
    """Options of `email.classify@1`."""

    types: Types = field(default_factory=lambda: list(TYPES))

    def __post_init__(self) -> None:
        """Refuse unknown types before any record is read.

        Raises:
            ConfigurationError: no type, an unknown type, or one named twice.
        """
        errors = [
            FieldProblem(pointer=f"/types/{place}", message=_complaint(name), code="unknown-type")
            for place, name in enumerate(self.types)
            if name not in TYPES or name in self.types[:place]
        ]
        if not self.types:
            errors = [FieldProblem(pointer="/types", message=f"name at least one of {_KNOWN}")]
        if errors:
            raise ConfigurationError(errors[0].message, slug="options-invalid", errors=errors)


class Labelled(Message, frozen=True, kw_only=True):
    """The message as it came, unknown fields included, with a label for each type."""

    labels: dict[str, Label]  # type: ignore[assignment]  # what comes may hold any labels


Given = Annotated[Raw, Message]
Answered = Annotated[Raw, Labelled, Meta(extra_json_schema={"additionalProperties": True})]


@worker.map("email.classify@1", run_in="process")
def classify(records: list[Given], options: ClassifyOptions) -> list[Answered | Rejected]:
    """Return each message as it came, unknown fields included, with `labels` added."""
    return [_answer(answer) for answer in _classifier().records(records, options.types)]


@cache
def _classifier() -> "Classifier":
    # Only the executor pays for numpy and the model: the process that serves requests never
    # classifies, and stays 30 MiB smaller.
    one_thread()
    from worker_email_classifier.classify import Classifier  # noqa: PLC0415 - see above
    from worker_email_classifier.model import shipped  # noqa: PLC0415 - see above

    return Classifier(shipped())


def _answer(answer: bytes | NotAMessage) -> Raw | Rejected:
    if isinstance(answer, NotAMessage):
        return Rejected("not-a-message", answer.detail)
    return Raw(answer)


_KNOWN = ", ".join(TYPES)


def _complaint(name: str) -> str:
    return (
        f"{name!r} is named twice"
        if name in TYPES
        else f"unknown type {name!r}; known are {_KNOWN}"
    )
