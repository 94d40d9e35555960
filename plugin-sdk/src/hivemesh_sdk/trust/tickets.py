"""Reads tickets: what they claim, whose signature they bear, and whether their time is now.

Who may show which ticket to whom is decided by `hivemesh_sdk.worker.access`.
"""

from collections.abc import Callable, Mapping
from hashlib import sha256

import msgspec

from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.tickets import MAX_TICKET_BYTES, SKEW_S, TICKET_TYPE, Ticket
from hivemesh_sdk.errors import NotAuthorizedError
from hivemesh_sdk.trust import jws
from hivemesh_sdk.trust.jws import SignatureInvalidError, VerifyKey

SEEN = 4096  # tickets whose signature need not be checked again

_decode = msgspec.json.Decoder(Ticket).decode

Keys = Callable[[], Mapping[str, VerifyKey]]


class TicketRefusedError(NotAuthorizedError):
    """A ticket does not give what is asked for; `reason` is one of a closed set, for counters."""

    def __init__(self, reason: str, detail: str, *, slug: str = "not-authorized") -> None:
        super().__init__(detail, slug=slug)
        self.reason = reason


class TicketReader:
    """Reads the tickets that one process is shown; remembers by digest those it has verified."""

    def __init__(self, keys: Keys, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock
        self._seen: dict[bytes, Ticket] = {}
        self._seen_with: Mapping[str, VerifyKey] = {}

    def from_signer(self, token: bytes) -> Ticket:
        """The claims of a ticket that came over a connection whose peer is the signer itself.

        Raises:
            TicketRefusedError: it cannot be read, or its time is not now.
        """
        return self._timely(_claims(_checked_size(token)))

    def from_holder(self, token: bytes) -> Ticket:
        """The claims of a ticket that anybody else shows: its signature counts.

        Raises:
            TicketRefusedError: it cannot be read, is not signed by the platform, or its time is
                not now.
        """
        keys = self._keys()
        if keys is not self._seen_with:  # what a removed key has signed is believed no more
            self._seen.clear()
            self._seen_with = keys
        digest = sha256(_checked_size(token)).digest()
        ticket = self._seen.get(digest)
        if ticket is None:
            ticket = _verified(token, keys)
            if len(self._seen) >= SEEN:
                del self._seen[next(iter(self._seen))]
            self._seen[digest] = ticket
        return self._timely(ticket)

    def _timely(self, ticket: Ticket) -> Ticket:
        now = self._clock.now().timestamp()
        if now >= ticket.exp:
            message = f"it ended {now - ticket.exp:.0f} s ago by the clock here"
            raise TicketRefusedError("expired", message, slug="ticket-expired")
        if now < ticket.iat - SKEW_S:
            message = f"it begins in {ticket.iat - now:.0f} s by the clock here"
            raise TicketRefusedError("not-yet-valid", message, slug="ticket-not-yet-valid")
        return ticket


def remembered(keys: Callable[[], tuple[bytes, ...]]) -> Keys:
    """Parse the announced keys (32 bytes each) when they change, not at each ticket."""
    announced: tuple[bytes, ...] = ()
    parsed: dict[str, VerifyKey] = {}

    def current() -> Mapping[str, VerifyKey]:
        nonlocal announced, parsed
        raw = keys()
        if raw is not announced:
            if raw != announced:
                parsed = {key.id: key for key in map(jws.verify_key, raw)}
            announced = raw
        return parsed

    return current


def _checked_size(token: bytes) -> bytes:
    if len(token) > MAX_TICKET_BYTES:
        message = f"a ticket has at most {MAX_TICKET_BYTES} bytes"
        raise TicketRefusedError("oversized", message, slug="ticket-invalid")
    return token


def _claims(token: bytes) -> Ticket:
    try:
        return _decode(jws.unverified(token, TICKET_TYPE))
    except (SignatureInvalidError, msgspec.DecodeError) as error:
        raise TicketRefusedError("malformed", str(error), slug="ticket-invalid") from error


def _verified(token: bytes, keys: Mapping[str, VerifyKey]) -> Ticket:
    try:
        payload = jws.verify(token.decode("ascii"), keys, TICKET_TYPE)
    except UnicodeDecodeError as error:
        message = "this is no signed document"
        raise TicketRefusedError("malformed", message, slug="ticket-invalid") from error
    except SignatureInvalidError as error:
        raise TicketRefusedError("signature", error.detail, slug="signature-invalid") from error
    try:
        return _decode(payload)
    except msgspec.DecodeError as error:
        raise TicketRefusedError("malformed", str(error), slug="ticket-invalid") from error
