"""The replicas of the platform as a worker knows them: which one is asked, and which one next.

One is asked until it fails; then the others are, at once, and who answers is asked from then on.
A question ends within a lease, and not all workers ask the same former replicas at once.
Everything that a worker says to its platform may be said twice.
"""

import random
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from itertools import pairwise
from typing import TypeVar
from urllib.parse import urlsplit

import structlog

from hivemesh_sdk.clock import Clock, SystemClock
from hivemesh_sdk.errors import RemoteError
from hivemesh_sdk.transport.connection import Target
from hivemesh_sdk.transport.errors import TransportError

T = TypeVar("T")

MOST = 16  # replicas that are remembered
FORMER = 2  # of those that lived once, in one question
LONGEST_S = 4.0  # of a question until its last try begins; the lease is 8 s

_log = structlog.get_logger("hivemesh.lifecycle")


class Platforms:
    """All replicas; at least one was given, the others are told by those that answer."""

    def __init__(
        self, targets: Sequence[Target], first: int = 0, *, clock: Clock | None = None
    ) -> None:
        self._clock = clock or SystemClock()
        self._given = tuple(dict.fromkeys(targets))
        self._known = [*self._given[first:], *self._given[:first]]  # the one to ask comes first
        self._former: list[Target] = []  # known before; they are asked when nobody else answers

    @classmethod
    def spread(cls, targets: Sequence[Target]) -> "Platforms":
        """Begin with any of them, so that not all workers ask the same one."""
        return cls(targets, random.randrange(len(targets)))  # noqa: S311 - spreads load, guards nothing

    @property
    def current(self) -> Target:
        """The one that is asked first."""
        return self._known[0]

    @property
    def several(self) -> bool:
        """Whether there is another one to ask."""
        return len(self._known) > 1

    def learn(self, addresses: Sequence[str]) -> None:
        """Take over which replicas live, as one of them says; given ones are always kept."""
        told = [target for target in map(self._target, addresses) if target is not None]
        kept = [one for one in self._known if one in self._given or one in told]
        if self.current not in kept:
            kept.insert(0, self.current)
        new = [one for one in told if one not in kept]
        gone = [one for one in (*self._known, *self._former) if one not in (*kept, *new)]
        self._known, self._former = [*kept, *new][:MOST], gone[:MOST]

    async def ask(self, call: Callable[[Target], Awaitable[T]]) -> T:
        """Ask one after the other until one answers, or it has taken long; then the last one.

        Raises:
            TransportError, RemoteError: what the last one said or did not say.
        """
        until = self._clock.monotonic() + LONGEST_S
        former = random.sample(self._former, min(FORMER, len(self._former)))
        targets = (*self._known, *former)
        for target, following in pairwise(targets):
            try:
                return await call(target)
            except TransportError as error:
                self._pass_over(target, error.detail)
            except RemoteError as error:
                if error.document.status != HTTPStatus.SERVICE_UNAVAILABLE:
                    raise
                self._pass_over(target, error.detail)
            if self._clock.monotonic() >= until:
                return await call(following)
        return await call(targets[-1])

    def _pass_over(self, target: Target, detail: str) -> None:
        """Ask it last from now on."""
        if self._known[0] != target or not self.several:  # or another task has done so meanwhile
            return
        self._known = [*self._known[1:], target]
        _log.warning(
            "replica_passed_over",
            replica=f"{target.host}:{target.port}",
            next=f"{self.current.host}:{self.current.port}",
            detail=detail,
        )

    def _target(self, address: str) -> Target | None:
        try:
            parts = urlsplit(address)
            host, port = parts.hostname, parts.port
        except ValueError:
            return None
        if parts.scheme != "https" or not host or port is None:
            return None
        model = self._given[0]
        return Target(host, port, model.identity, model.server_name)


def platforms_of(platform: Target | Platforms) -> Platforms:
    """One replica, or several, as those who ask them take it."""
    return platform if isinstance(platform, Platforms) else Platforms([platform])
