"""Who may do what at this worker: default-deny, decided here on every request."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from hivemesh_sdk.errors import NotAuthorizedError

_READERS = frozenset({"platform", "user"})


class Identity(Protocol):
    """A verified SPIFFE ID; its path begins with what it is: platform, worker or user."""

    @property
    def path(self) -> tuple[str, ...]: ...


class Caller(Protocol):
    """The peer of a connection, as the transport verified it."""

    @property
    def id(self) -> Identity: ...

    def matches(self, rule: str) -> bool: ...


class Access:
    """Steps and commands: the platform, and callers that a rule names. Reading: people too.

    A worker may not call another one by itself: its calls come with tickets of the platform.
    """

    def __init__(self, rules: Sequence[str] = ()) -> None:
        self._rules = tuple(rules)

    def require_platform(self, scope: Mapping[str, Any]) -> None:
        """Let through who may create, read, end and command.

        Raises:
            NotAuthorizedError: anybody else.
        """
        caller = caller_of(scope)
        if caller.id.path[0] == "platform":
            return
        if not any(caller.matches(rule) for rule in self._rules):
            message = f"{caller.id} may not run steps here"
            raise NotAuthorizedError(message)

    def require_reader(self, scope: Mapping[str, Any]) -> None:
        """Let through who may see status, manifest and metrics.

        Raises:
            NotAuthorizedError: anybody else.
        """
        caller = caller_of(scope)
        if caller.id.path[0] not in _READERS:
            message = f"{caller.id} may not look at this worker"
            raise NotAuthorizedError(message)


def caller_of(scope: Mapping[str, Any]) -> Caller:
    """The verified peer.

    Raises:
        NotAuthorizedError: `no-peer-identity`: the connection has none.
    """
    caller: Caller | None = scope.get("state", {}).get("peer")
    if caller is None:
        message = "no client certificate"
        raise NotAuthorizedError(message, slug="no-peer-identity")
    return caller
