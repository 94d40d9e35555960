"""Keeps an identity alive: renews before half of its life, enrols again where it has expired.

Before half means between 35 and 45 %: an authority may be away for half a life, and a twentieth is
left to renew when it is back.

Each tick looks at the wall clock. Monotonic timers stand still while a laptop sleeps, so a timer
set for half an hour would fire long after the certificate has expired. Where the clock was set back
so far that the certificate is not valid yet, it is renewed as well.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import structlog

from hivemesh_sdk.clock import Clock, SystemClock
from hivemesh_sdk.errors import HivemeshError
from hivemesh_sdk.trust.enrolment import Identity, Renewal, identity
from hivemesh_sdk.trust.identity import PeerIdentityError
from hivemesh_sdk.trust.keys import PrivateKey, certificate_request, new_key
from hivemesh_sdk.trust.source import IdentitySource

TICK_S = 1.0
LONGEST_RETRY = timedelta(seconds=30)
LONGEST_SPREAD = timedelta(seconds=60)  # of renewals that a leaving root or issuer asks for
Enrolment = Callable[[], Awaitable[Identity]]


class Renewer:
    """Renews the identity of one source for as long as `run` runs."""

    def __init__(
        self,
        source: IdentitySource,
        renew: Renewal,
        *,
        re_enrol: Enrolment | None = None,
        clock: Clock | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._source = source
        self._renew = renew
        self._re_enrol = re_enrol
        self._clock = clock or SystemClock()
        self._chance = chance
        self._log = structlog.get_logger("hivemesh.trust")
        self._pending: PrivateKey | None = None
        self._serial = 0
        self._tainted = 0  # serial that is being renewed early
        self._begun = True  # it was valid when it came
        self._life = timedelta()
        self._due = self._clock.now()
        self._plan()
        self.renewals = 0
        self.failures = 0

    @property
    def due(self) -> datetime:
        """When the next renewal is tried."""
        return self._due

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            await self.tick()
            await asyncio.sleep(TICK_S)

    async def tick(self) -> None:
        """Renew if it is time; an error is logged, counted and tried again later."""
        if self._source.svid().serial != self._serial:
            self._plan()
        if self._source.tainted and self._tainted != self._serial:
            self._tainted = self._serial
            spread = min(self._life / 5, LONGEST_SPREAD) * self._chance()
            self._due = min(self._due, self._clock.now() + spread)
        now = self._clock.now()
        if self._begun and self._is_ahead():  # the clock was set back
            self._begun, self._due = False, now
        if now < self._due:
            return
        try:
            await self._replace()
        except (HivemeshError, PeerIdentityError) as error:
            self.failures += 1
            self._due = self._clock.now() + self._pause()
            self._report(error)
        else:
            self.renewals += 1
            self._plan()

    async def _replace(self) -> None:
        if self._clock.now() >= self._source.svid().not_after and self._re_enrol is not None:
            fresh = await self._re_enrol()
        elif self._is_ahead() and self._re_enrol is not None:
            try:
                fresh = await self._next()  # where only the clock here is wrong
            except HivemeshError:
                fresh = await self._re_enrol()
        else:
            fresh = await self._next()
        self._pending = None
        self._source.update(svid=fresh.svid, bundle=fresh.bundle)

    async def _next(self) -> Identity:
        # The same key until it is answered: two keys from one certificate look like theft.
        self._pending = self._pending or new_key()
        answer = await self._renew(certificate_request(self._pending))
        return identity(answer, self._pending, self._source.svid().id)

    def _is_ahead(self) -> bool:
        return self._clock.now() < self._source.svid().not_before

    def _plan(self) -> None:
        svid, now = self._source.svid(), self._clock.now()
        self._serial, self._begun = svid.serial, not self._is_ahead()
        self._life = max(svid.not_after - now, timedelta())
        self._due = now + self._life * (0.35 + 0.1 * self._chance())

    def _pause(self) -> timedelta:
        """A part of the time that is left, so that nobody is overrun when it is back."""
        left = self._source.svid().not_after - self._clock.now()
        least = min(self._life / 20, LONGEST_RETRY) * (0.5 + self._chance())
        if left <= timedelta() or self._is_ahead():
            return least
        return min(max(least, left * (0.1 + 0.6 * self._chance())), left * 0.7)

    def _report(self, error: Exception) -> None:
        left = self._source.svid().not_after - self._clock.now()
        report = self._log.info if left > self._life / 4 else self._log.warning
        report(
            "identity_renewal_failed",
            detail=str(error),
            seconds_left=round(left.total_seconds()),
            supervised=self._re_enrol is not None,
        )
