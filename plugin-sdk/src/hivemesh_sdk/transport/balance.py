"""Chooses which live instance of a capability is called, and goes on while the platform is away.

Power of two choices on calls in flight and reported load. An instance that fails again and again,
or is much slower than the others, is left out for a while, but never more than half of them; then
one call at a time tries it until one is as quick as those of the others.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from hivemesh_sdk.clock import Clock, SystemClock
from hivemesh_sdk.contracts.instances import Discovery, Endpoint
from hivemesh_sdk.errors import HivemeshError
from hivemesh_sdk.pauses import around
from hivemesh_sdk.transport.client import MeshClient
from hivemesh_sdk.transport.connection import MAX_BODY, Chunk, Response, Target
from hivemesh_sdk.transport.errors import TransportError, WorkerUnreachableError
from hivemesh_sdk.transport.latency import SAMPLES, Latencies
from hivemesh_sdk.trust.identity import SpiffeId

ERRORS = 5  # in a row, as common proxies count
EJECTED_S = 30.0  # times the number of ejections in a row
SLOW_S = 10.0  # the same for one that is slow
LONGEST_EJECTION_S = 300.0
TRIES = 3  # other instances are tried only while no byte of the request was sent
WAIT_S = 20.0  # of the discovery's long poll
PAUSE_S = 1.0

Fetch = Callable[[int, float], Awaitable[Discovery]]


@dataclass(slots=True)
class _Record:
    """How an instance behaved lately."""

    errors: int = 0
    ejections: int = 0
    until: float = 0.0
    on_probation: bool = False  # no answer has shown yet that it is well again


class Balancer:
    """Chooses among endpoints; knows load and failures, not transport."""

    def __init__(
        self,
        in_flight: Callable[[Endpoint], int],
        *,
        clock: Clock | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._in_flight = in_flight
        self._clock = clock or SystemClock()
        self._chance = chance
        self._records: dict[str, _Record] = {}
        self._latencies = Latencies()

    def choose(self, endpoints: Sequence[Endpoint]) -> Endpoint:
        """Pick the better of two endpoints taken at random; there must be one."""
        candidates = self._healthy(endpoints)
        count = len(candidates)
        if count == 1:
            return candidates[0]
        first = int(self._chance() * count)
        second = (first + 1 + int(self._chance() * (count - 1))) % count
        one, other = candidates[first], candidates[second]
        return one if self._cost(one) <= self._cost(other) else other

    def now(self) -> float:
        """The time by which answers are taken."""
        return self._clock.monotonic()

    def succeeded(self, endpoint: Endpoint, capability: str = "", seconds: float = 0.0) -> None:
        """Forget earlier failures, unless its answers are slow."""
        instance = endpoint.instance
        if capability:
            now, record = self._clock.monotonic(), self._records.get(instance)
            if record is not None and record.until > now:  # it was asked before it was left out
                return
            least = 1 if record is not None and record.on_probation else SAMPLES
            if self._latencies.took(capability, instance, seconds, now, least):
                self._eject(instance, SLOW_S)
                return
        self._records.pop(instance, None)

    def failed(self, endpoint: Endpoint) -> None:
        """Count a failure; after several in a row, or one probe, it is left out for a while."""
        record = self._records.setdefault(endpoint.instance, _Record())
        record.errors += 1
        probe = record.on_probation and record.until <= self._clock.monotonic()
        if record.errors >= ERRORS or probe:
            self._eject(endpoint.instance, EJECTED_S)

    def keep(self, endpoints: Sequence[Endpoint]) -> None:
        """Forget instances that are gone."""
        present = {endpoint.instance for endpoint in endpoints}
        for instance in self._records.keys() - present:
            del self._records[instance]
        self._latencies.keep(present)

    def _eject(self, instance: str, seconds: float) -> None:
        record = self._records.setdefault(instance, _Record())
        record.errors = 0
        record.ejections += 1
        record.on_probation = True
        self._latencies.forget(instance)
        left_out = min(seconds * record.ejections, LONGEST_EJECTION_S)
        record.until = self._clock.monotonic() + left_out

    def _healthy(self, endpoints: Sequence[Endpoint]) -> Sequence[Endpoint]:
        if not self._records:
            return endpoints
        now = self._clock.monotonic()
        by_ejection = sorted(endpoints, key=lambda endpoint: self._until(endpoint, now))
        healthy = sum(self._until(endpoint, now) == 0 for endpoint in endpoints)
        return by_ejection[: max(healthy, (len(endpoints) + 1) // 2)]

    def _until(self, endpoint: Endpoint, now: float) -> float:
        """Until when it is left out, 0 where it is not; one on probation is while it has a call."""
        record = self._records.get(endpoint.instance)
        if record is None:
            return 0.0
        if record.on_probation and record.until <= now and self._in_flight(endpoint):
            return record.until
        return record.until if record.until > now else 0.0

    def _cost(self, endpoint: Endpoint) -> float:
        return (1 + self._in_flight(endpoint)) * (1 + endpoint.load)


class Discoverer:
    """The live endpoints as the platform last told them."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._version = 0
        self._endpoints: tuple[Endpoint, ...] = ()
        self._by_capability: dict[str, list[Endpoint]] = {}
        self._log = structlog.get_logger("hivemesh.transport")
        self.away = False

    @property
    def version(self) -> int:
        """Grows with each change."""
        return self._version

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        """All of them."""
        return self._endpoints

    def of(self, capability: str) -> Sequence[Endpoint]:
        """Those that serve a capability."""
        return self._by_capability.get(capability, ())

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await self.refresh(WAIT_S)
            if self.away:
                await asyncio.sleep(around(PAUSE_S))

    async def refresh(self, wait_s: float = 0.0) -> None:
        """Ask once; while the platform is away, what it said last stays valid."""
        try:
            discovery = await self._fetch(self._version, wait_s)
        except HivemeshError as error:
            if not self.away:
                self._log.warning("discovery_away", detail=str(error), known=len(self._endpoints))
            self.away = True
            return
        self.away = False
        self._take(discovery)

    def _take(self, discovery: Discovery) -> None:
        self._version = discovery.version
        self._endpoints = tuple(discovery.endpoints)
        self._by_capability = {}
        for endpoint in self._endpoints:
            for capability in endpoint.capabilities:
                self._by_capability.setdefault(capability, []).append(endpoint)


class Caller:
    """Calls a capability wherever it is served."""

    def __init__(
        self, client: MeshClient, discoverer: Discoverer, *, clock: Clock | None = None
    ) -> None:
        self._client = client
        self._discoverer = discoverer
        self._targets: dict[tuple[str, str, int], Target] = {}
        self._seen = 0
        self._balancer = Balancer(
            lambda endpoint: client.in_flight(self._target(endpoint)), clock=clock
        )

    async def call(
        self,
        capability: str,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Sequence[Chunk] = b"",
        deadline_s: float,
    ) -> Response:
        """Send one request to one instance that serves the capability.

        Raises:
            WorkerUnreachableError: nobody serves it, or the connection broke.
            TransportError: as `MeshClient.request`.
        """
        _, response = await self.reach(
            capability, method, path, headers=headers, body=body, deadline_s=deadline_s
        )
        return response

    async def reach(  # noqa: PLR0913 - the parts of one request
        self,
        capability: str,
        method: str,
        path: str,
        *,
        at: Target | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | Sequence[Chunk] = b"",
        deadline_s: float,
        max_body: int = MAX_BODY,
        shared: bool = False,
        asking: Callable[[Target], None] | None = None,
    ) -> tuple[Target, Response]:
        """Send one request, to a known instance where `at` names one; says who answered.

        `asking` is told of each instance before it is asked.

        Raises:
            WorkerUnreachableError: nobody serves it, or the connection broke.
            TransportError: as `MeshClient.request`.
        """
        if at is not None:
            response = await self._client.request(
                at,
                method,
                path,
                headers=headers,
                body=body,
                deadline_s=deadline_s,
                max_body=max_body,
                shared=shared,
            )
            return at, response
        self._forget_gone()
        untried = list(self._discoverer.of(capability))
        loop = asyncio.get_running_loop()
        until = loop.time() + deadline_s
        problem = WorkerUnreachableError(f"no live instance serves {capability!r}", sent=False)
        for _ in range(min(TRIES, len(untried))):
            endpoint = self._balancer.choose(untried)
            if asking is not None:
                asking(self._target(endpoint))
            began = self._balancer.now()
            try:
                response = await self._client.request(
                    self._target(endpoint),
                    method,
                    path,
                    headers=headers,
                    body=body,
                    deadline_s=until - loop.time(),
                    max_body=max_body,
                    shared=shared,
                )
            except TransportError as error:
                self._balancer.failed(endpoint)
                if error.sent or loop.time() >= until:
                    raise
                untried.remove(endpoint)
                problem = WorkerUnreachableError(error.detail, sent=False)
            else:
                self._note(endpoint, capability, response.status, began)
                return self._target(endpoint), response
        raise problem

    def _forget_gone(self) -> None:
        if self._seen != self._discoverer.version:
            self._seen = self._discoverer.version
            self._targets.clear()
            self._balancer.keep(self._discoverer.endpoints)

    def _note(self, endpoint: Endpoint, capability: str, status: int, began: float) -> None:
        if status >= 500:
            self._balancer.failed(endpoint)
        elif status < 300:
            seconds = self._balancer.now() - began
            self._balancer.succeeded(endpoint, capability, seconds)
        else:  # how long a refusal takes says nothing
            self._balancer.succeeded(endpoint)

    def _target(self, endpoint: Endpoint) -> Target:
        key = (endpoint.instance, endpoint.host, endpoint.port)
        target = self._targets.get(key)
        if target is None:
            identity = SpiffeId.parse(endpoint.identity)
            target = Target.instance(endpoint.host, endpoint.port, identity)
            self._targets[key] = target
        return target
