"""The fields of a message record that the figures need; everything else is skipped undecoded."""

from datetime import UTC, datetime

import msgspec

NO_TEXT = msgspec.Raw(b'""')


class Mailbox(msgspec.Struct):
    """One address with its display name left out."""

    address: str = ""


class Attachment(msgspec.Struct):
    """What is counted of an attachment; its name and bytes are not read."""

    type: str = ""
    size: int = 0


class Label(msgspec.Struct):
    """The answer of `email.classify@1` for one type."""

    label: bool = False
    confidence: float = 0.0


class Message(msgspec.Struct):
    """A message record. The bodies stay bytes until an amount is looked for in them."""

    id: str = ""
    offset: int = 0
    size: int = 0
    message_id: str | None = None
    in_reply_to: list[str] = []
    references: list[str] = []
    date: str | None = None
    senders: list[Mailbox] = msgspec.field(name="from", default_factory=list)
    to: list[Mailbox] = []
    cc: list[Mailbox] = []
    subject: str = ""
    text: msgspec.Raw = NO_TEXT
    html: msgspec.Raw = NO_TEXT
    attachments: list[Attachment] = []
    labels: dict[str, Label] = {}

    @property
    def sender(self) -> str:
        """The first author's address in lower case, or empty where the message names none."""
        return self.senders[0].address.strip().lower() if self.senders else ""

    @property
    def moment(self) -> datetime | None:
        """The date in UTC, to the second; None where it is missing or no date."""
        if self.date is None:
            return None
        try:
            when = datetime.fromisoformat(self.date)
            return when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            return None

    def is_labelled(self, label: str) -> bool:
        """Whether the classifier said yes to this type."""
        answer = self.labels.get(label)
        return answer is not None and answer.label
