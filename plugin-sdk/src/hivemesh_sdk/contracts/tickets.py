"""Tickets: on whose behalf a step runs, and what it may touch. Signed by the platform (EdDSA JWS).

Times are whole seconds since 1970 (RFC 7519). Names of claims follow RFC 7519, `azp` OpenID
Connect, `act` RFC 8693.
"""

import msgspec

from hivemesh_sdk.contracts.artifacts import DataClass

TICKET_TYPE = "hivemesh-ticket"
MAX_LIFETIME_S = 900
GRACE_S = 60  # a ticket outlives its step's time-out by this much
SKEW_S = 60  # a ticket from a clock that is so much ahead is still taken
MAX_TICKET_BYTES = 8 * 1024
MAX_NAMED_ARTIFACTS = 32
GIVEN = "*"  # in `artifacts`: those that the step was given, where they are too many to name
STORED = "run"  # in `artifacts`: also those that the steps of the run store


class Ticket(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The claims of one step's ticket.

    Accepted by a worker when the caller is the platform and `azp` is the worker itself, or when
    the caller is `azp` and the capability asked for is in `calls`.
    """

    iss: str  # SPIFFE ID of the platform replica that signed
    aud: list[str]  # worker types that may accept it: the step's own and those it may call
    azp: str  # SPIFFE ID of the instance that holds the step
    sub: str  # the principal it is done for: SPIFFE ID of a user, or `pipeline:<name>`
    iat: int
    exp: int
    jti: str
    run: str
    step: str  # run.node.seq; a worker's own call adds `.<name>`
    attempt: int
    cap: str  # the capability that the holder runs
    tenant: str = "default"
    roles: list[str] = []  # of `sub`, as policy rules ask for them
    other_roles: list[str] = []  # held by somebody involved, not lent: only denials ask for them
    calls: list[str] = []  # capabilities that the holder may call with it
    artifacts: list[str] = []  # digests that it may read, `*`, and `run`
    datasets: list[str] = []  # read:<name> and write:<name>
    secrets: list[str] = []  # references that it may resolve: a.b.c
    data_class: DataClass = DataClass.INTERNAL  # of its inputs
    members: str = ""  # of several small calls in one request: digest of their keys and attempts
    act: list[str] = []  # who passed it on, the last one first


class ExchangeRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `POST /v1/tickets/exchange`: a ticket that was shown, for one of the asker's own.

    Lists that are given narrow the answer; those that are left out stay as they are.
    """

    ticket: str
    step: str  # the key that the caller chose: `<step of the ticket>.<name>`
    capability: str  # the one that was called
    calls: list[str] | None = None
    artifacts: list[str] | None = None
    datasets: list[str] | None = None
    secrets: list[str] | None = None
    data_class: DataClass | None = None  # raised, never lowered
    lifetime_s: int | None = None


class ExchangeReply(msgspec.Struct, frozen=True, kw_only=True):
    """The ticket that the asker may use, and for how long."""

    ticket: str
    expires_in_s: int
