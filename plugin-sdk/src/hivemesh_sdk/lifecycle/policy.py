"""The policy at a worker: fetched by long polls, verified, the last good one kept in memory.

The deny list inside it is put into force as soon as it arrives, at the listener and at the client.
"""

import asyncio
from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

import structlog

from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.policy import STALE_S, DenyList
from hivemesh_sdk.errors import HivemeshError, RemoteError
from hivemesh_sdk.pauses import around
from hivemesh_sdk.trust.denials import Denials
from hivemesh_sdk.trust.jws import SignatureInvalidError
from hivemesh_sdk.trust.policy import CompiledPolicy, nothing_allowed, open_policy
from hivemesh_sdk.trust.source import IdentitySource

WAIT_S = 20.0
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 5.0

_log = structlog.get_logger("hivemesh.policy")


class Taken(StrEnum):
    """What became of a document that came."""

    NEW = "new"
    SAME = "same"
    OLDER = "older"  # refused
    INVALID = "invalid"  # refused: changed on the way, or signed by nobody that counts


class PolicyStore:
    """The last good policy of this process: the `Policies` that decisions ask."""

    def __init__(self, source: IdentitySource, denials: Denials, clock: Clock) -> None:
        self._source = source
        self._denials = denials
        self._clock = clock
        self._current = nothing_allowed(source.trust_domain)
        self._denied = DenyList()
        self._taken_at = clock.monotonic()
        self.outcomes = dict.fromkeys(Taken, 0)

    def current(self) -> CompiledPolicy:
        """The last good policy; before there is one, nothing is allowed."""
        return self._current

    @property
    def age_s(self) -> float:
        """Seconds since the platform signed it; a computer that slept or a clock that is wrong counts against it."""
        if self._current.issued_at == 0:
            return float("inf")
        signed = self._clock.now().timestamp() - self._current.issued_at / 1000
        return max(signed, self._clock.monotonic() - self._taken_at)

    @property
    def stale(self) -> bool:
        """Whether it is so old that only work that has begun, and the platform's own, goes on."""
        return self.age_s > STALE_S

    @property
    def refused(self) -> int:
        """How many documents were refused: changed on the way, or older."""
        return self.outcomes[Taken.OLDER] + self.outcomes[Taken.INVALID]

    def take(self, token: str) -> Taken:
        """Verify a signed document and use it from now on, unless it is refused."""
        outcome = self._take(token)
        self.outcomes[outcome] += 1
        return outcome

    def _take(self, token: str) -> Taken:
        try:
            policy = open_policy(
                token, self._source.bundle().verify_keys, self._source.trust_domain
            )
            serials = [int(serial, 16) for serial in policy.denials.serials]
            compiled = CompiledPolicy(policy)
        except (SignatureInvalidError, ValueError) as error:
            _log.error("policy_refused", detail=str(error), kept=self._current.version)
            return Taken.INVALID
        before = self._current
        if (policy.version, policy.issued_at) == (before.version, before.issued_at):
            return Taken.SAME
        if policy.version < before.version or policy.issued_at <= before.issued_at:
            _log.error("policy_refused", detail="it is older", kept=before.version)
            return Taken.OLDER
        self._current, self._taken_at = compiled, self._clock.monotonic()
        if policy.denials != self._denied:
            self._denied = policy.denials
            self._denials.replace(serials=serials, identities=policy.denials.identities)
        if policy.version != before.version:
            _log.info("policy_taken", version=policy.version, unreadable=compiled.unreadable)
        return Taken.NEW


class Poll(Protocol):
    """Asks for a document signed after `after`; None where there is none within `wait_s`."""

    async def __call__(self, after: int, wait_s: float) -> str | None: ...


class PolicyFetcher:
    """Keeps a store up to date for as long as `run` runs."""

    def __init__(self, store: PolicyStore, poll: Poll) -> None:
        self._store = store
        self._poll = poll
        self._failing = False

    async def first(self, *, gives_up: Callable[[], bool] = lambda: False) -> None:
        """Wait for the first policy, before anything is served.

        Raises:
            HivemeshError: the platform refuses to give one, or `gives_up` says so.
        """
        pause_s = SHORTEST_PAUSE_S
        while True:
            try:
                await self._fetch(wait_s=0.0)
            except HivemeshError as error:
                if gives_up() or _is_lasting(error):
                    raise
                self._report(error)
            if self._store.current().version > 0:
                return
            if gives_up():
                message = "the platform has no policy that its trust bundle confirms"
                raise SignatureInvalidError(message)
            await asyncio.sleep(around(pause_s))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def run(self) -> None:
        """Ask again and again until cancelled; failures are told once until it works again."""
        pause_s = SHORTEST_PAUSE_S
        while True:
            try:
                outcome = await self._fetch(wait_s=WAIT_S)
            except HivemeshError as error:
                self._report(error)
                outcome = Taken.INVALID
            if outcome in {Taken.NEW, None}:
                pause_s, self._failing = SHORTEST_PAUSE_S, False
            await asyncio.sleep(0 if outcome is Taken.NEW else around(pause_s))
            if outcome in {Taken.INVALID, Taken.OLDER}:
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _fetch(self, wait_s: float) -> Taken | None:
        token = await self._poll(self._store.current().issued_at, wait_s)
        return None if token is None else self._store.take(token)

    def _report(self, error: HivemeshError) -> None:
        if not self._failing:
            _log.warning("policy_not_fetched", detail=error.detail, age_s=round(self._age(), 1))
        self._failing = True

    def _age(self) -> float:
        return min(self._store.age_s, 1e9)


def _is_lasting(error: HivemeshError) -> bool:
    return isinstance(error, RemoteError) and not error.document.retryable
