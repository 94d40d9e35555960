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
from hivemesh_sdk.trust.source import IdentitySource

SPENT = 65_536  # steps that are remembered as begun; some minutes of the fastest worker
SPAN_S = 32  # tickets whose time ends together are forgotten together
SEEN = 4096  # tickets whose signature need not be checked again

_decode = msgspec.json.Decoder(Ticket).decode

Keys = Callable[[], Mapping[str, VerifyKey]]


class TicketRefusedError(NotAuthorizedError):
    """A ticket does not give what is asked for; `reason` is one of a closed set, for counters."""

    def __init__(self, detail: str, *, reason: str, slug: str = "not-authorized") -> None:
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
        return self.timely(_claims(_checked_size(token)))

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
        return self.timely(ticket)

    def timely(self, ticket: Ticket) -> Ticket:
        """The claims, if their time is now.

        Raises:
            TicketRefusedError: it is over, or has not begun.
        """
        now = self._clock.timestamp()
        if now >= ticket.exp:
            message = f"it ended {now - ticket.exp:.0f} s ago by the clock here"
            raise TicketRefusedError(message, reason="expired", slug="ticket-expired")
        if now < ticket.iat - SKEW_S:
            message = f"it begins in {ticket.iat - now:.0f} s by the clock here"
            raise TicketRefusedError(message, reason="not-yet-valid", slug="ticket-not-yet-valid")
        return ticket


class Spent:
    """Which tickets have begun which steps, until they expire: each begins a step once.

    A step is a number of 64 bits here, made with a key of this process, and so takes a hundred
    bytes. Two that share one, of 65,536, would have the second refused; none is ever let through.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._begun: dict[int, set[int]] = {}  # by the span in which their tickets expire
        self._number = 0

    def __len__(self) -> int:
        """How many are remembered."""
        return self._number

    def add(self, ticket: Ticket, key: str) -> bool:
        """The ticket begins the step now; False where it has before."""
        span, name = ticket.exp // SPAN_S, hash((ticket.jti, key))
        begun = self._begun.get(span)
        if begun is None:
            self._drop_expired()
            begun = self._begun[span] = set()
        elif name in begun:
            return False
        elif self._number >= SPENT:
            self._drop(min(self._begun))  # the oldest of a flood
            begun = self._begun.setdefault(span, set())
        begun.add(name)
        self._number += 1
        return True

    def discard(self, ticket: Ticket, key: str) -> None:
        """The step had not begun after all."""
        begun, name = self._begun.get(ticket.exp // SPAN_S, set()), hash((ticket.jti, key))
        if name in begun:
            begun.remove(name)
            self._number -= 1

    def _drop_expired(self) -> None:
        now = int(self._clock.timestamp())
        for span in [one for one in self._begun if (one + 1) * SPAN_S <= now]:
            self._drop(span)

    def _drop(self, span: int) -> None:
        self._number -= len(self._begun.pop(span))


def announced_keys(source: IdentitySource) -> Keys:
    """The keys that the trust bundle announces, parsed when they change and not at each ticket."""
    raw: tuple[bytes, ...] = ()
    parsed: Mapping[str, VerifyKey] = {}

    def current() -> Mapping[str, VerifyKey]:
        nonlocal raw, parsed
        bundle = source.bundle()
        if bundle.signers != raw:
            raw, parsed = bundle.signers, bundle.verify_keys
        return parsed

    return current


def own_identity(source: IdentitySource) -> Callable[[], str]:
    """The SPIFFE ID of this process as text, made when its certificate changes."""
    svid, text = source.svid(), str(source.svid().id)

    def current() -> str:
        nonlocal svid, text
        if source.svid() is not svid:
            svid, text = source.svid(), str(source.svid().id)
        return text

    return current


def _checked_size(token: bytes) -> bytes:
    if len(token) > MAX_TICKET_BYTES:
        message = f"a ticket has at most {MAX_TICKET_BYTES} bytes"
        raise TicketRefusedError(message, reason="oversized", slug="ticket-invalid")
    return token


def _claims(token: bytes) -> Ticket:
    try:
        return _decode(jws.unverified(token, TICKET_TYPE))
    except (SignatureInvalidError, msgspec.DecodeError) as error:
        raise TicketRefusedError(str(error), reason="malformed", slug="ticket-invalid") from error


def _verified(token: bytes, keys: Mapping[str, VerifyKey]) -> Ticket:
    try:
        payload = jws.verify(token.decode("ascii"), keys, TICKET_TYPE)
    except UnicodeDecodeError as error:
        message = "this is no signed document"
        raise TicketRefusedError(message, reason="malformed", slug="ticket-invalid") from error
    except SignatureInvalidError as error:
        raise TicketRefusedError(
            error.detail, reason="signature", slug="signature-invalid"
        ) from error
    try:
        return _decode(payload)
    except msgspec.DecodeError as error:
        raise TicketRefusedError(str(error), reason="malformed", slug="ticket-invalid") from error
