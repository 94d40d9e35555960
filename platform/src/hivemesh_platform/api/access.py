"""Who asks, and whether they may. The identity comes from the connection and from nowhere else."""

from collections.abc import Callable
from typing import TypeVar

from fastapi import Request
from hivemesh_sdk.errors import NotAuthorizedError
from hivemesh_sdk.trust.identity import Peer

from hivemesh_platform.access import policy

_ACTION = "hivemesh_action"

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


def require(request: Request, action: str) -> Peer:
    """The verified peer, if it may do the action.

    Raises:
        NoPeerIdentityError: the connection has no identity.
        NotAuthorizedError: no rule allows it.
    """
    peer = peer_of(request)
    policy.check(peer, action)
    return peer


def before_body(action: str) -> Callable[[F], F]:
    """Name the action of an endpoint whose declared body FastAPI reads before the endpoint runs."""

    def mark(endpoint: F) -> F:
        setattr(endpoint, _ACTION, action)
        return endpoint

    return mark


def action_before_body(endpoint: Callable[..., object]) -> str:
    """The action that `before_body` has named, or an empty text."""
    return str(getattr(endpoint, _ACTION, ""))
