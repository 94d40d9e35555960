"""Keeps one instance known to the platform: registers, beats, registers again where it must.

It decides when an instance is alone, and never ends the process itself.
"""

import random
from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

import structlog

from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.instances import (
    HEARTBEAT_S,
    Heartbeat,
    HeartbeatReply,
    Registration,
    RegistrationReply,
)
from hivemesh_sdk.contracts.problems import slug_of
from hivemesh_sdk.errors import HivemeshError, RemoteError
from hivemesh_sdk.transport.errors import TransportError

AGAIN_S = (
    0.25  # between heartbeats while nobody answers: a platform that starts gives out work by them
)
SOON_S = 60.0  # so long; who is away for longer is not waited for so eagerly
JITTER = 0.25  # of the pause of one that is alone: not all ask in the same moment


class Standing(StrEnum):
    """How the instance stands with its platform."""

    STARTING = "starting"
    LIVE = "live"
    INCOMPATIBLE = "incompatible"
    REFUSED = "refused"
    ALONE = "alone"


class Instances(Protocol):
    """The platform's instance API; raises `TransportError` and `RemoteError`."""

    async def register(self, instance: str, registration: Registration) -> RegistrationReply: ...

    async def heartbeat(self, instance: str, heartbeat: Heartbeat) -> HeartbeatReply: ...

    async def deregister(self, instance: str) -> None: ...


class Membership:
    """One instance at its platform."""

    def __init__(
        self,
        platform: Instances,
        instance: Callable[[], str],
        *,
        registration: Callable[[], Registration],
        heartbeat: Callable[[], Heartbeat],
        heard: Callable[[Heartbeat], None],
        clock: Clock,
    ) -> None:
        self._platform = platform
        self._instance = instance
        self._registration = registration
        self._heartbeat = heartbeat
        self._heard = heard
        self._clock = clock
        self._registered_as: str | None = None
        self._heard_at = clock.monotonic()
        self._log = structlog.get_logger("hivemesh.lifecycle")
        self.standing = Standing.STARTING
        self.interval_s = HEARTBEAT_S
        self.bundle_sequence = 0

    @property
    def alone_s(self) -> float:
        """Seconds since the platform last answered."""
        return self._clock.monotonic() - self._heard_at

    @property
    def pause_s(self) -> float:
        """Seconds until the next heartbeat."""
        eager = self.standing is Standing.ALONE and self.alone_s < SOON_S
        pause_s = min(AGAIN_S, self.interval_s) if eager else self.interval_s
        if self.standing is not Standing.ALONE:
            return pause_s
        return pause_s * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - spreads load

    async def beat(self) -> None:
        """Register if need be, and send one heartbeat; failures change `standing` alone."""
        try:
            await self._beat()
        except TransportError as error:
            self._change(Standing.ALONE, detail=error.detail)
        except RemoteError as error:
            self._heard_at = self._clock.monotonic()
            self._refused(error)

    async def leave(self) -> None:
        """Give the lease back, so that nobody waits for it to run out."""
        if self._registered_as is None:
            return
        try:
            await self._platform.deregister(self._registered_as)
        except HivemeshError as error:
            self._log.info("deregistration_failed", detail=error.detail)
        self._registered_as = None

    async def _beat(self) -> None:
        instance = self._instance()
        if self._registered_as != instance:  # a new enrolment may bring another name
            await self._register(instance)
        reply = await self._send(instance)
        self._heard_at = self._clock.monotonic()
        self.bundle_sequence = max(self.bundle_sequence, reply.bundle_sequence)
        if self.standing is not Standing.INCOMPATIBLE:
            self._change(Standing.LIVE)

    async def _send(self, instance: str) -> HeartbeatReply:
        try:
            return await self._send_once(instance)
        except RemoteError as error:
            if slug_of(error.document) != "instance-unknown":
                raise
        self._log.info("instance_unknown", instance=instance)
        await self._register(instance)
        return await self._send_once(instance)

    async def _send_once(self, instance: str) -> HeartbeatReply:
        heartbeat = self._heartbeat()
        reply = await self._platform.heartbeat(instance, heartbeat)
        self._heard(heartbeat)
        return reply

    async def _register(self, instance: str) -> None:
        self._registered_as = None
        reply = await self._platform.register(instance, self._registration())
        self._registered_as = instance
        self.interval_s = reply.heartbeat_s
        if reply.state == "incompatible":
            self._change(Standing.INCOMPATIBLE, detail=reply.reason)
        else:
            self._change(Standing.LIVE)

    def _refused(self, error: RemoteError) -> None:
        if error.document.status < 500:
            self._registered_as = None
        self._change(Standing.REFUSED, detail=f"{error.document.code}: {error.detail}")

    def _change(self, standing: Standing, *, detail: str = "") -> None:
        if standing is self.standing:
            return
        before, self.standing = self.standing, standing
        quiet = standing is Standing.LIVE
        report = self._log.info if quiet else self._log.warning
        report("standing_changed", before=before.value, now=standing.value, detail=detail)
