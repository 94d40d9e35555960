"""API tokens: `hm1.<id>.<secret>`, shown once, kept as a hash. Pure."""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field

_FORM = re.compile(r"hm1\.([0-9a-f]{16})\.([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class ApiToken:
    """The text that a person holds."""

    id: str
    secret: str = field(repr=False)

    @classmethod
    def new(cls) -> "ApiToken":
        """Make one with a secret of 256 random bits."""
        return cls(secrets.token_hex(8), secrets.token_urlsafe(32))

    @classmethod
    def parse(cls, text: str) -> "ApiToken | None":
        """Read a token, or None where the text has not its form."""
        found = _FORM.fullmatch(text)
        return None if found is None else cls(found[1], found[2])

    def hash(self) -> str:
        """What is kept of it; 256 random bits need no slow hash."""
        return hashlib.sha256(self.secret.encode("ascii")).hexdigest()

    def matches(self, stored: str) -> bool:
        """Compare in constant time."""
        return hmac.compare_digest(stored, self.hash())

    def reveal(self) -> str:
        """The text, for the one time that it is shown."""
        return f"hm1.{self.id}.{self.secret}"

    def __str__(self) -> str:
        return f"hm1.{self.id}.…"
