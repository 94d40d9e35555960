"""Join tokens and deployment credentials: `<kind>.<id>.<secret>.<SHA-256 of the root, hex>`."""

import re
from dataclasses import dataclass, field
from enum import StrEnum

from hivemesh_sdk.errors import ConfigurationError

_ID = re.compile(r"[0-9a-f]{16}")
_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")  # 256 bits, base64url
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


class TokenKind(StrEnum):
    """What a token allows."""

    JOIN = "jt1"  # one enrolment within minutes
    DEPLOYMENT = "dc1"  # any number of enrolments of one worker type, until revoked


@dataclass(frozen=True, slots=True)
class Token:
    """A parsed token; its secret shows in no representation."""

    kind: TokenKind
    id: str
    secret: str = field(repr=False)
    root_sha256: str

    @classmethod
    def parse(cls, text: str) -> "Token":
        """Read a token.

        Raises:
            ConfigurationError: it is none; the message never holds the text.
        """
        parts = text.strip().split(".")
        if len(parts) == 4 and parts[0] in set(TokenKind):
            kind, identifier, secret, fingerprint = parts
            if (
                _ID.fullmatch(identifier)
                and _SECRET.fullmatch(secret)
                and _FINGERPRINT.fullmatch(fingerprint)
            ):
                return cls(TokenKind(kind), identifier, secret, fingerprint)
        message = "this is no join token; it has the form jt1.<id>.<secret>.<root sha-256>"
        raise ConfigurationError(message)

    def reveal(self) -> str:
        """The token as its holder keeps it."""
        return f"{self.kind}.{self.id}.{self.secret}.{self.root_sha256}"
