"""Declares what an endpoint reads and answers by itself, for the published description alone.

FastAPI knows the models of an endpoint's parameters and result. What passes it by (messages of
machines, bytes, lines of JSON, headers) is declared here; the endpoint itself stays as it is.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from hivemesh_sdk.contracts.names import (
    IDEMPOTENCY_HEADER,
    NDJSON_MEDIA_TYPE,
    TICKET_HEADER,
)
from pydantic import JsonValue

_ATTRIBUTE = "hivemesh_declared"
JSON = "application/json"
ANY = "*/*"
Schema = Mapping[str, JsonValue]

F = TypeVar("F", bound=Callable[..., object])


@dataclass(frozen=True, slots=True)
class Content:
    """A body: a type of the contracts, or a schema of its own."""

    of: type | Schema
    media_type: str = JSON
    description: str = ""


@dataclass(frozen=True, slots=True)
class Header:
    """A header that the endpoint reads."""

    name: str
    description: str
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What there is to say of an endpoint; an answer of `None` has no body."""

    reads: Content | None = None
    answers: Mapping[int, Content | None] = field(default_factory=dict)
    headers: tuple[Header, ...] = ()
    problems: tuple[str, ...] = ()  # slugs of the catalogue that are its own


BYTES = Content({"type": "string", "format": "binary"}, ANY, "the bytes as they are stored")
TEXT = Content({"type": "string"}, "text/plain")
TICKET = Header(TICKET_HEADER, "the ticket of the step", required=True)
IDEMPOTENCY = Header(IDEMPOTENCY_HEADER, "the same key and body again mean the same work")

# Refusals that several endpoints have in common.
STEP = ("ticket-missing", "ticket-invalid", "ticket-expired", "stale-attempt")
EXPORT = ("audit-unavailable",)
GIVEN = ("idempotency-mismatch", "submit-in-flight", "artifact-missing", "data-class-exceeded")
SUBMIT = (*GIVEN, "unknown-capability", "input-invalid", "options-invalid")
REPLAY = ("dead-letter-settled", "replay-impossible", "artifact-missing", "unknown-capability")
CERTIFICATE = ("csr-invalid", "key-reused", "root-expired", "signing-limited")
SECRET = ("secret-missing", "secret-denied", "secret-damaged", "secrets-sealed")


def lines(of: type | Schema, description: str) -> Content:
    """Lines of JSON; the schema is that of one of them."""
    return Content(of, NDJSON_MEDIA_TYPE, description)


def declares(
    *,
    reads: type | Content | None = None,
    answers: type | Content | Mapping[int, type | Content | None] | None = None,
    headers: tuple[Header, ...] = (),
    problems: tuple[str, ...] = (),
) -> Callable[[F], F]:
    """Declare an endpoint; an answer without a status is that of the route."""
    found = answers if isinstance(answers, Mapping) else {0: answers} if answers else {}
    told = Declared(
        reads=_content(reads),
        answers={status: _content(one) for status, one in found.items()},
        headers=headers,
        problems=problems,
    )

    def mark(endpoint: F) -> F:
        setattr(endpoint, _ATTRIBUTE, told)
        return endpoint

    return mark


def declared_by(endpoint: Callable[..., object]) -> Declared:
    """What an endpoint has declared."""
    found: Declared = getattr(endpoint, _ATTRIBUTE, _NOTHING)
    return found


def _content(found: type | Content | None) -> Content | None:
    return Content(found) if isinstance(found, type) else found


_NOTHING = Declared()
