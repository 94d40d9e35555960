"""Who asks, and whether they may: the one place where a route of the API decides.

The principal was found before the routes by `api.fronts`, from the certificate of the connection or
from an API token, and from nowhere else. What the caller may not even see is answered as if it were
not there.
"""

from collections.abc import Callable
from typing import TypeVar

from fastapi import Request
from hivemesh_sdk.errors import NotAuthorizedError, NotFoundError
from hivemesh_sdk.trust.identity import Kind, Peer

from hivemesh_platform.access import policy
from hivemesh_platform.access.model import KINDS, VERBS, Principal, Verdict, decide
from hivemesh_platform.access.service import OPERATOR
from hivemesh_platform.audit.model import AuditEvent

_ACTION = "hivemesh_action"
# What belongs to the installation as a whole: people of other tenants see at most its workers.
_OF_INSTALLATION = frozenset({"ca", "config", "enrolment", "log", "metrics", "package", "policy"})
_SEEN_BY_TENANTS = frozenset({("read", "worker"), ("read", "capability"), ("run", "capability")})

# Work that somebody starts or stores; what changes rights or trust is recorded by its service.
_NOTED = frozenset(
    {
        "run:pipeline",
        "run:capability",
        "write:run",
        "create:pipeline",
        "write:pipeline",
        "create:artifact",
        "write:worker",
    }
)

F = TypeVar("F", bound=Callable[..., object])


class NoPeerIdentityError(NotAuthorizedError):
    """The connection has no verified identity."""

    slug = "no-peer-identity"


def peer_of(request: Request) -> Peer:
    """The verified peer of the connection.

    Raises:
        NoPeerIdentityError: there is none.
    """
    peer = request.scope.get("state", {}).get("peer")
    if not isinstance(peer, Peer):
        message = "the connection shows no client certificate"
        raise NoPeerIdentityError(message)
    return peer


def principal_of(request: Request) -> Principal:
    """Who acts.

    Raises:
        NoPeerIdentityError: nobody that is known.
    """
    principal = request.scope.get("state", {}).get("principal")
    return principal if isinstance(principal, Principal) else _without_front(peer_of(request))


def require(request: Request, action: str, target: str = "") -> Principal:
    """The principal, if it may do the action `<verb>:<kind>` on the object.

    Without a target it must be allowed on every object of the kind. Actions that begin with no
    verb of people (`instances:self`) are those of processes, see `access.policy`.

    Raises:
        NoPeerIdentityError: the request has no identity.
        NotAuthorizedError: no rule allows it.
        NotFoundError: nor may the principal see the object; the answer is that to absence.
    """
    principal = principal_of(request)
    verb, _, kind = action.partition(":")
    if verb not in VERBS or kind not in KINDS:
        return _member(request, principal, action)
    verdict = verdict_of(principal, verb, kind, target or "*")
    if verdict.allowed:
        if action in _NOTED:
            noted(request, principal, action, target, rule=verdict.rule)
        return principal
    if target and principal.kind == "user" and not sees(principal, kind, target):
        noted(request, principal, action, target, denied="invisible")
        raise absent(kind, target)
    raise _denied(request, principal, action, target, verdict.reason)


def verdict_of(principal: Principal, verb: str, kind: str, name: str) -> Verdict:
    """Decide on one object, with the reason."""
    if not _of_tenant(principal, verb, kind):
        reason = f"{kind} belongs to the whole installation, not to the tenant {principal.tenant}"
        return Verdict(allowed=False, reason=reason)
    return decide(principal, verb, kind, name)


def person_of(request: Request) -> Principal:
    """The principal, if it is a person or acts for one; for objects that are looked up first.

    Raises:
        NoPeerIdentityError: the request has no identity.
        NotAuthorizedError: a process asks.
    """
    principal = principal_of(request)
    if principal.kind != "user":
        reason = f"{principal.id} is no person"
        raise _denied(request, principal, "read:run", "", reason)
    return principal


def require_some(request: Request, *actions: str) -> Principal:
    """The principal, if one of the actions is allowed on some object; for lists and before bodies.

    Raises:
        NoPeerIdentityError: the request has no identity.
        NotAuthorizedError: none is allowed on any object.
    """
    principal = principal_of(request)
    for action in actions:
        verb, _, kind = action.partition(":")
        if verb not in VERBS or kind not in KINDS:
            return _member(request, principal, action)
        if _of_tenant(principal, verb, kind) and principal.rights.any(verb, kind):
            return principal
    reason = f"no role or grant of {principal.id} has {actions[0]}"
    raise _denied(request, principal, actions[0], "", reason)


def may(principal: Principal, action: str, target: str) -> bool:
    """Say whether the principal may do the action on the object."""
    verb, _, kind = action.partition(":")
    return _of_tenant(principal, verb, kind) and principal.rights.allows(verb, kind, target)


def sees(principal: Principal, kind: str, name: str) -> bool:
    """Say whether the principal may know that the object exists."""
    return _of_tenant(principal, "read", kind) and principal.rights.allows("read", kind, name)


def absent(kind: str, name: str) -> NotFoundError:
    """What is answered where there is no such object, or none that the caller may see."""
    return NotFoundError(f"there is no {kind} {name!r}")


def before_body(*actions: str) -> Callable[[F], F]:
    """Name the actions of an endpoint whose body is read before the endpoint runs.

    Who may do none of them on any object has nothing read from him.
    """

    def mark(endpoint: F) -> F:
        setattr(endpoint, _ACTION, actions)
        return endpoint

    return mark


def actions_before_body(endpoint: Callable[..., object]) -> tuple[str, ...]:
    """The actions that `before_body` has named."""
    found: tuple[str, ...] = getattr(endpoint, _ACTION, ())
    return found


def _member(request: Request, principal: Principal, action: str) -> Principal:
    """An action of processes: by kind of peer; on the people listener there is no such thing."""
    if principal.token_id or request.scope.get("state", {}).get("peer") is None:
        raise NotFoundError
    peer = peer_of(request)
    if not policy.allows(peer, action):
        message = f"{peer.uri} has no rule that allows {action}"
        raise _denied(request, principal, action, "", message)
    return principal


def _of_tenant(principal: Principal, verb: str, kind: str) -> bool:
    if principal.tenant == "default":
        return True
    if (verb, kind) in _SEEN_BY_TENANTS:
        return True
    return kind not in _OF_INSTALLATION and kind != "worker"


def _without_front(peer: Peer) -> Principal:
    """Who acts where no front stands before the routes: the operator, and processes."""
    serial, identity = f"{peer.serial:x}", peer.uri or str(peer.id)
    if peer.id.kind is Kind.USER and peer.id.name == OPERATOR:
        return Principal(id=identity, roles=("admin",), grants=("admin:*",), serial=serial)
    grants = policy.GRANTS.get(peer.id.kind, ())
    return Principal(id=identity, kind=peer.id.kind.value, grants=grants, serial=serial)


def _denied(
    request: Request, principal: Principal, action: str, target: str, reason: str
) -> NotAuthorizedError:
    noted(request, principal, action, target, denied=reason)
    return NotAuthorizedError(reason)


def noted(
    request: Request,
    principal: Principal,
    action: str,
    target: str,
    *,
    rule: str = "",
    denied: str = "",
) -> None:
    """Write a decision of the data plane down within a second."""
    note = request.scope.get("state", {}).get("note")
    if note is None:
        return
    address = request.client.host if request.client is not None else ""
    note(
        AuditEvent(
            actor=principal.actor,
            on_behalf_of=principal.id if principal.token_id else "",
            action=action,
            target=target,
            decision="deny" if denied else "allow",
            reason=denied,
            rule=rule,
            serial=principal.serial,
            address=address,
            tenant=principal.tenant,
        )
    )
