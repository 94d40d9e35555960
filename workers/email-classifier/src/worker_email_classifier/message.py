"""The part of a message record that classification reads. Unknown fields are skipped, not kept."""

from typing import Any

import msgspec


class Address(msgspec.Struct, frozen=True):
    """One mailbox of a header."""

    name: str | None = None
    address: str | None = None

    @property
    def domain(self) -> str:
        return (self.address or "").rpartition("@")[2].lower()

    @property
    def local(self) -> str:
        return (self.address or "").rpartition("@")[0].lower()


class Attachment(msgspec.Struct, frozen=True):
    """What a record says about one attachment."""

    name: str | None = None
    type: str | None = None
    inline: bool = False


class Message(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """The fields of `email.parse@1` that decide about a label."""

    subject: str | None = None
    from_: list[Address] | None = None
    reply_to: list[Address] | None = None
    to: list[Address] | None = None
    cc: list[Address] | None = None
    in_reply_to: list[str] | None = None
    references: list[str] | None = None
    headers: dict[str, list[str]] | None = None
    text: str | None = None
    html: str | None = None
    attachments: list[Attachment] | None = None
    labels: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET

    @property
    def sender(self) -> Address:
        return self.from_[0] if self.from_ else _NOBODY

    def header(self, name: str) -> str:
        """Return the first value of a header, lower case, or an empty string."""
        values = self.headers.get(name) if self.headers else None
        return values[0].lower() if values else ""


_NOBODY = Address()
_decode = msgspec.json.Decoder(Message).decode


def decode(line: bytes | memoryview | msgspec.Raw) -> Message:
    """Read one record.

    Raises:
        msgspec.DecodeError: the bytes are no message record.
    """
    return _decode(line)


def message_of(fields: dict[str, Any]) -> Message:
    """Build a message from plain Python values, as training and tests have them."""
    return msgspec.convert(fields, Message)
