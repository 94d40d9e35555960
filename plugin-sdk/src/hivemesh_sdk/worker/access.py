"""Who may do what at this worker: default-deny, decided here on every request.

Steps need a ticket. On a connection whose peer is the platform its claims are authentic by the
connection; from another worker its signature counts. Then the policy decides with what it says.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import msgspec
import structlog

from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.artifacts import DataClass
from hivemesh_sdk.contracts.manifest import Manifest
from hivemesh_sdk.contracts.names import CALL_NAME, TICKET_HEADER
from hivemesh_sdk.contracts.steps import StepRequest, digest_of_members
from hivemesh_sdk.contracts.tickets import Ticket
from hivemesh_sdk.errors import NotAuthorizedError
from hivemesh_sdk.trust.jws import VerifyKey
from hivemesh_sdk.trust.policy import CompiledPolicy, Facts, Policies
from hivemesh_sdk.trust.tickets import Keys, TicketReader, TicketRefusedError
from hivemesh_sdk.worker.refused import Refused

_OPERATOR = ("user", "operator")  # of the machine; what other people see is decided at the platform
GRANTS = 1024  # tickets of other workers that need not be looked into again
_HOLDERS = frozenset({"platform", "worker"})
_TICKET = TICKET_HEADER.encode()

_log = structlog.get_logger("hivemesh.access")

RequestHeaders = Mapping[bytes, bytes]


class Identity(Protocol):
    """A verified SPIFFE ID; its path begins with what it is: platform, worker or user."""

    @property
    def path(self) -> tuple[str, ...]: ...


class Caller(Protocol):
    """The peer of a connection, as the transport verified it."""

    @property
    def id(self) -> Identity: ...

    @property
    def uri(self) -> str: ...


_NO_CLAIMS = Ticket(
    iss="", aud=[], azp="", sub="", iat=0, exp=0, jti="", run="", step="", attempt=0, cap=""
)


class Right(msgspec.Struct, eq=False):
    """On what right an execution runs: who asked for it, with which ticket."""

    caller: str
    ticket: str
    claims: Ticket
    _bare: "Right | None" = None

    @property
    def bare(self) -> "Right":
        """What is kept of it for an ended execution; made once for all calls under the ticket.

        The ticket is a kilobyte and its claims are two. Only of another worker it matters later
        what it had shown: whether it goes on with the same step.
        """
        if self._bare is None:
            claims = self.claims if self.from_worker else _NO_CLAIMS
            self._bare = Right(self.caller, "", claims)
        return self._bare

    @property
    def from_worker(self) -> bool:
        """Whether another worker has shown it: it is then no ticket of our own."""
        return self.claims.azp == self.caller


class _Grant(msgspec.Struct, frozen=True):
    """What was found out about one ticket in the hands of one worker, for one capability.

    It holds as long as keys and policy are the same; what depends on the time, the step and the
    attempt is looked at on every request.
    """

    right: Right
    keys: Mapping[str, VerifyKey]
    policy: CompiledPolicy


class Shown(Protocol):
    """An execution, as far as it matters who may read it on."""

    key: str
    attempt: int
    capability: str
    right: Right


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """What a worker knows of itself and of those who sign."""

    worker: str
    identity: Callable[[], str]  # its SPIFFE ID, which a new enrolment may change
    keys: Keys  # of those who sign tickets
    clearances: Mapping[str, DataClass]  # `data_class_max` by capability
    policies: Policies

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        identity: Callable[[], str],
        keys: Keys,
        policies: Policies,
    ) -> "Own":
        """What the manifest says."""
        return cls(
            worker=manifest.metadata.name,
            identity=identity,
            keys=keys,
            clearances={one.id: one.data_class_max for one in manifest.capabilities},
            policies=policies,
        )


class Access:
    """Steps: whoever holds a ticket for them. Commands: the platform. Reading: the operator too."""

    def __init__(self, own: Own, clock: Clock, refused: Refused | None = None) -> None:
        self._own = own
        self._tickets = TicketReader(own.keys, clock)
        self._grants: dict[tuple[str, str, bytes], _Grant] = {}
        self._refused = refused or Refused(clock)

    @property
    def refusals(self) -> Mapping[str, int]:
        """How often step requests were refused, by reason."""
        return self._refused.counts

    def require_platform(self, scope: Mapping[str, Any]) -> None:
        """Let through who may command.

        Raises:
            NotAuthorizedError: anybody else.
        """
        caller = caller_of(scope)
        if caller.id.path[0] != "platform":
            self._refuse(caller, "not-a-platform", f"{caller.uri} may not command this worker")

    def require_reader(self, scope: Mapping[str, Any]) -> None:
        """Let through who may see status, manifest and metrics.

        Raises:
            NotAuthorizedError: anybody else.
        """
        caller = caller_of(scope)
        if caller.id.path[0] != "platform" and tuple(caller.id.path) != _OPERATOR:
            self._refuse(caller, "not-a-reader", f"{caller.uri} may not look at this worker")

    def require_member(self, scope: Mapping[str, Any]) -> Caller:
        """Let through those who may have created a step: the platform and workers.

        Raises:
            NotAuthorizedError: anybody else.
        """
        caller = caller_of(scope)
        if caller.id.path[0] not in _HOLDERS:
            self._refuse(caller, "not-a-holder", f"{caller.uri} may not run steps here")
        return caller

    def require_holder(self, scope: Mapping[str, Any], headers: RequestHeaders) -> Caller:
        """Refuse, before a body is read, who cannot hold a ticket or shows none.

        Raises:
            NotAuthorizedError: nobody, a person, or `ticket-missing`.
        """
        caller = self.require_member(scope)
        if not headers.get(_TICKET):
            self._refuse(caller, "missing", slug="ticket-missing")
        return caller

    def begin(
        self,
        caller: Caller,
        headers: RequestHeaders,
        key: str,
        request: StepRequest,
        present: Shown | None = None,
    ) -> Right:
        """The right to create this step; `present` is what the key has already, if anything.

        Under a stale policy nothing begins for another worker: the same request again is answered
        from what it has begun.

        Raises:
            NotAuthorizedError: it may not; the reason is counted.
        """
        if caller.id.path[0] == "platform":
            return self._for_platform(caller, headers, key, request)
        if request.members:
            message = "only the platform sends several calls in one request"
            self._refuse(caller, "other-members", message)
        grant = self._grants.get((caller.uri, request.capability, headers.get(_TICKET, b"")))
        if grant is None or self._is_outdated(grant):
            return self._for_worker(caller, headers, key, request, present)
        ticket = self._in_time(caller, grant.right.claims)
        if self._own.policies.stale:
            self._refuse_new(caller, headers[_TICKET], present)
        if problem := _not_below(ticket, key):
            self._refuse(caller, *problem)
        self._check_attempt(caller, ticket, request)
        return grant.right

    def _for_platform(
        self, caller: Caller, headers: RequestHeaders, key: str, request: StepRequest
    ) -> Right:
        token, ticket = self._shown(caller, headers)
        problem = self._not_from_platform(ticket, key, request.capability)
        if problem:
            self._refuse(caller, *problem)
        self._check_attempt(caller, ticket, request)
        if ticket.members != digest_of_members(request.members):
            message = "the ticket is one of other calls than the request has"
            self._refuse(caller, "other-members", message)
        self._check_class(caller, ticket, request.capability)
        self._ask_policy(caller, ticket, request.capability)
        return Right(caller.uri, token.decode("ascii"), ticket)

    def _for_worker(
        self,
        caller: Caller,
        headers: RequestHeaders,
        key: str,
        request: StepRequest,
        present: Shown | None,
    ) -> Right:
        """The same of a ticket that another worker shows for the first time."""
        keys, policy = self._own.keys(), self._own.policies.current()
        token, ticket = self._shown(caller, headers)
        if self._own.policies.stale:
            self._refuse_new(caller, token, present)
        problem = self._not_from_worker(caller, ticket, key, request.capability)
        if problem:
            self._refuse(caller, *problem)
        self._check_attempt(caller, ticket, request)
        self._check_class(caller, ticket, request.capability)
        self._ask_policy(caller, ticket, request.capability)
        right = Right(caller.uri, token.decode("ascii"), ticket)
        while len(self._grants) >= GRANTS:
            del self._grants[next(iter(self._grants))]
        self._grants[caller.uri, request.capability, token] = _Grant(right, keys, policy)
        return right

    def _is_outdated(self, grant: _Grant) -> bool:
        own = self._own
        return grant.keys is not own.keys() or grant.policy is not own.policies.current()

    def _refuse_new(self, caller: Caller, token: bytes, present: Shown | None) -> None:
        """Under a stale policy let only the request through that has begun the step."""
        if present is None or present.right.ticket.encode() != token:
            message = "the policy here is too old to begin work for another worker"
            self._refuse(caller, "stale-policy", message, slug="policy-stale")

    def _check_attempt(self, caller: Caller, ticket: Ticket, request: StepRequest) -> None:
        if ticket.attempt != request.attempt:
            message = f"the ticket is one of attempt {ticket.attempt}"
            self._refuse(caller, "other-attempt", message)

    def go_on(self, scope: Mapping[str, Any], headers: RequestHeaders, execution: Shown) -> None:
        """Let through who may read on; keeps the fresh ticket.

        Raises:
            NotAuthorizedError: it may not; the reason is counted.
        """
        caller = caller_of(scope)
        if not self.is_owner(scope, execution):
            message = f"key {execution.key!r}"  # whose it is, is nobody else's business
            self._refuse(caller, "other-caller", message, slug="execution-unknown")
        right = execution.right
        if right.ticket and headers.get(_TICKET) == right.ticket.encode():
            ticket = self._in_time(caller, right.claims)
        else:
            token, ticket = self._shown(caller, headers)
            problem = (
                self._not_from_platform(ticket, execution.key, execution.capability)
                if caller.id.path[0] == "platform"
                else self._not_from_worker(caller, ticket, execution.key, execution.capability)
            )
            if problem:
                self._refuse(caller, *problem)
            if ticket.attempt != execution.attempt:
                message = f"the ticket is one of attempt {ticket.attempt}"
                stale = ticket.attempt < execution.attempt
                slug = "stale-attempt" if stale else "not-authorized"
                self._refuse(caller, "other-attempt", message, slug=slug)
            self._check_class(caller, ticket, execution.capability)
            execution.right = Right(right.caller, token.decode("ascii"), ticket)
        self._ask_policy(caller, ticket, execution.capability)

    def is_owner(self, scope: Mapping[str, Any], execution: Shown) -> bool:
        """Whether the peer may end the execution: it has created it, or is the platform."""
        caller = caller_of(scope)
        return caller.id.path[0] == "platform" or caller.uri == execution.right.caller

    def _shown(self, caller: Caller, headers: RequestHeaders) -> tuple[bytes, Ticket]:
        kind = caller.id.path[0]
        token = headers.get(_TICKET)
        if kind not in _HOLDERS:
            self._refuse(caller, "not-a-holder", f"{caller.uri} may not run steps here")
        if not token:
            self._refuse(caller, "missing", slug="ticket-missing")
        read = self._tickets.from_signer if kind == "platform" else self._tickets.from_holder
        try:
            return token, read(token)
        except TicketRefusedError as error:
            self._refused.step(caller.uri, error.reason, error.detail)
            raise

    def _in_time(self, caller: Caller, ticket: Ticket) -> Ticket:
        try:
            return self._tickets.timely(ticket)
        except TicketRefusedError as error:
            self._refused.step(caller.uri, error.reason, error.detail)
            raise

    def _not_from_platform(
        self, ticket: Ticket, key: str, capability: str
    ) -> tuple[str, str] | None:
        """Why the platform may not use the ticket for this: reason and sentence, or None."""
        own = self._own
        if own.worker not in ticket.aud:
            return "other-audience", f"the ticket is for {', '.join(ticket.aud)}"
        if ticket.azp != own.identity():
            return "other-holder", "the ticket names another instance"
        if ticket.step != key:
            return "other-step", f"the ticket is one of {ticket.step!r}"
        if ticket.cap != capability:
            return "other-capability", f"the ticket is for {ticket.cap}"
        return None

    def _not_from_worker(
        self, caller: Caller, ticket: Ticket, key: str, capability: str
    ) -> tuple[str, str] | None:
        """Why another worker may not use the ticket for this: reason and sentence, or None."""
        if self._own.worker not in ticket.aud:
            return "other-audience", f"the ticket is for {', '.join(ticket.aud)}"
        if ticket.azp != caller.uri:
            return "other-holder", "the ticket was given to another caller"
        problem = _not_below(ticket, key)
        if problem:
            return problem
        if capability not in ticket.calls:
            return "other-capability", f"the ticket allows {', '.join(ticket.calls) or 'no calls'}"
        return None

    def _check_class(self, caller: Caller, ticket: Ticket, capability: str) -> None:
        clearance = self._own.clearances.get(capability)
        if clearance is not None and ticket.data_class.exceeds(clearance):
            message = f"data class {ticket.data_class} exceeds {clearance} of {capability}"
            self._refuse(caller, "data-class", message, slug="data-class-exceeded")

    def _ask_policy(self, caller: Caller, ticket: Ticket, capability: str) -> None:
        own = self._own
        facts = Facts(
            ticket=True,
            roles=ticket.roles,
            data_class=ticket.data_class,
            other_roles=ticket.other_roles,
        )
        decision = own.policies.current().decide(caller.uri, own.worker, capability, facts)
        if not decision.allowed:
            _log.debug("policy_denied", rule=decision.rule, reason=decision.reason.value)
            self._refuse(caller, "policy", f"the policy does not allow {capability} here")

    def _refuse(
        self, caller: Caller, reason: str, detail: str = "", *, slug: str = "not-authorized"
    ) -> NoReturn:
        self._refused.step(caller.uri, reason, detail)
        raise TicketRefusedError(detail, reason=reason, slug=slug)


def _not_below(ticket: Ticket, key: str) -> tuple[str, str] | None:
    """Why the key is none of the calls that the ticket's step may make, or None."""
    step, _, name = key.rpartition(".")
    if step == ticket.step and CALL_NAME.fullmatch(name):
        return None
    return "other-step", f"the ticket allows calls below {ticket.step!r}"


def caller_of(scope: Mapping[str, Any]) -> Caller:
    """The verified peer.

    Raises:
        NotAuthorizedError: `no-peer-identity`: the connection has none.
    """
    state = scope.get("state")
    caller: Caller | None = state.get("peer") if state else None
    if caller is None:
        message = "no client certificate"
        raise NotAuthorizedError(message, slug="no-peer-identity")
    return caller
