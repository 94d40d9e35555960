"""One worker process from its start to its end: enrol, serve, register, beat, renew, drain, leave."""

import asyncio
import faulthandler
import os
import signal
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import structlog
import uvloop

from hivemesh_sdk import __version__, heap
from hivemesh_sdk.clock import Clock, SystemClock
from hivemesh_sdk.contracts.instances import Heartbeat, Registration
from hivemesh_sdk.contracts.names import PROTOCOL
from hivemesh_sdk.errors import ConfigurationError, HivemeshError, RemoteError
from hivemesh_sdk.lifecycle.artifacts import GrantedArtifacts
from hivemesh_sdk.lifecycle.environment import Environment, address_of
from hivemesh_sdk.lifecycle.health import Health, HealthFile
from hivemesh_sdk.lifecycle.load import Load, LoadMeter, limits
from hivemesh_sdk.lifecycle.location import Location
from hivemesh_sdk.lifecycle.logs import configure_logs
from hivemesh_sdk.lifecycle.membership import Membership
from hivemesh_sdk.lifecycle.platform import PlatformClient
from hivemesh_sdk.lifecycle.platforms import Platforms
from hivemesh_sdk.lifecycle.policy import PolicyFetcher, PolicyStore
from hivemesh_sdk.lifecycle.private import own_path
from hivemesh_sdk.lifecycle.remembered import Remembered
from hivemesh_sdk.lifecycle.tokens import FileCredential, SupervisorTokens, Tokens
from hivemesh_sdk.pauses import around, no_sooner
from hivemesh_sdk.transport.balance import Caller, Discoverer
from hivemesh_sdk.transport.client import MeshClient
from hivemesh_sdk.transport.connection import Target
from hivemesh_sdk.transport.errors import PeerRefusedError, TransportError
from hivemesh_sdk.transport.server import Listener, serve
from hivemesh_sdk.trust.bundle import Bundle
from hivemesh_sdk.trust.denials import Denials
from hivemesh_sdk.trust.enrolment import Identity, Newcomer, enrol, fetch_bundle, renewal_by
from hivemesh_sdk.trust.files import FileIdentitySource, IdentityPaths
from hivemesh_sdk.trust.identity import SpiffeId
from hivemesh_sdk.trust.renewal import Renewer
from hivemesh_sdk.trust.source import IdentitySource
from hivemesh_sdk.trust.tickets import announced_keys, own_identity
from hivemesh_sdk.trust.tokens import Token
from hivemesh_sdk.worker.access import Own
from hivemesh_sdk.worker.server import ServerSettings, WorkerServer

DRAIN_S = 30.0
STOP_S = 10.0
LONGEST_PAUSE_S = 10.0
# exit codes: drained; the platform was away for too long; code is left
ENDED, ALONE, STUCK = 0, 7, 8

T = TypeVar("T")

_log = structlog.get_logger("hivemesh.lifecycle")


def run_worker(location: Location, environment: Environment) -> int:
    """Run the worker until it is told to end; returns the exit code."""
    configure_logs(environment.log_level, worker=location.manifest.metadata.name)
    heap.set_up_allocator()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            code = runner.run(_until_signal(WorkerProcess(location, environment)))
            # closing the loop waits for its threads, and one of them may hang
            faulthandler.dump_traceback_later(STOP_S, exit=True)
    finally:
        faulthandler.cancel_dump_traceback_later()
    return code


async def _until_signal(process: "WorkerProcess") -> int:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, process.stop)
    return await process.run()


class Renews(Protocol):
    """Keeps an identity fresh until it is cancelled."""

    async def run(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Running:
    """What exists while the worker serves."""

    source: IdentitySource
    platforms: Platforms
    server: WorkerServer
    membership: Membership
    renewer: "Renews"
    policy: PolicyFetcher
    discoverer: Discoverer | None


class WorkerProcess:
    """The states of one process; `stop` may be called at any time, twice to end at once."""

    def __init__(
        self, location: Location, environment: Environment, *, clock: Clock | None = None
    ) -> None:
        self._manifest = location.manifest
        self._search_path = () if location.source is None else (str(location.source),)
        self._environment = environment
        self._clock = clock or SystemClock()
        self._incarnation = os.urandom(8).hex()
        self._meter = LoadMeter(limits(self._manifest.resources), self._clock)
        self._load = Load(0.0, 0.0, 0)
        self._remembered = Remembered.of(self._manifest.metadata.name, environment.enrolments)
        self._stopping = asyncio.Event()
        self._hurried = asyncio.Event()

    def stop(self) -> None:
        """Drain and end; the second call ends without waiting for steps."""
        if self._stopping.is_set():
            self._hurried.set()
        self._stopping.set()

    async def run(self) -> int:
        """Live until stopped, or alone for too long."""
        if self._environment.identity is not None:
            return await self._run_by_files(self._environment.identity)
        tokens = _tokens(self._environment)
        try:
            identity = await self._unless_stopped(self._join(tokens))
            if identity is None:
                return ENDED
            return await self._serve(identity.source(), tokens)
        finally:
            tokens.close()

    async def _run_by_files(self, paths: IdentityPaths) -> int:
        """Live on an identity that others keep fresh; the platform tells whom to trust beside."""
        source = FileIdentitySource(paths, clock=self._clock, expected=self._expect)
        platforms = _platforms(self._environment, source.trust_domain)
        told = await self._unless_stopped(_bundle_of(source, platforms))
        if told is None:
            return ENDED
        source.update(bundle=told)
        return await self._serve(source, None)

    def _expect(self, found: SpiffeId) -> None:
        name = self._manifest.metadata.name
        if found.path[:2] != ("worker", name) or len(found.path) != 3:
            message = f"the files hold {str(found)!r}; this worker is worker/{name}/<instance>"
            raise ConfigurationError(message)

    async def _join(self, tokens: Tokens) -> Identity:
        """Enrol; a platform that is not there yet is waited for."""
        since, pause_s = self._clock.monotonic(), 0.5
        token = await tokens.next()
        while True:
            try:
                return await self._enrol(token, self._newcomer())
            except PeerRefusedError:
                raise
            except TransportError as error:
                waited = self._clock.monotonic() - since
                if self._gives_up_after(waited):
                    raise
                wait_s = around(pause_s)
                _log.info("platform_not_reached", detail=error.detail, again_in_s=round(wait_s, 1))
            except RemoteError as error:
                if not error.document.retryable:
                    raise
                wait_s = no_sooner(max(pause_s, error.document.retry_after_s or 0.0))
                _log.info("enrolment_postponed", detail=error.detail, again_in_s=round(wait_s, 1))
            await asyncio.sleep(wait_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _enrol_again(self, tokens: Tokens, instance: str) -> Identity:
        """Get a new identity where the old one is not valid now: a laptop slept, a clock went back."""
        _log.info("identity_not_valid_now", instance=instance)
        newcomer = self._newcomer(instance)
        return await self._enrol(await tokens.next(), newcomer)

    async def _enrol(self, token: Token, newcomer: Newcomer) -> Identity:
        """Enrol at the first replica that can be reached, and learn of the others."""
        identity = await self._enrolled(token, newcomer)
        self._remembered.learn(identity.platforms, identity.enrolments)
        return identity

    async def _enrolled(self, token: Token, newcomer: Newcomer) -> Identity:
        environment = self._environment
        for address in environment.more_enrolments:
            try:
                return await enrol(address.host, address.port, token, newcomer)
            except PeerRefusedError:
                raise
            except TransportError as error:
                _log.info("replica_not_reached", detail=error.detail)
        host, port = environment.enrolment.host, environment.enrolment.port
        try:
            return await enrol(host, port, token, newcomer)
        except PeerRefusedError:
            raise
        except TransportError:
            found = await self._enrolled_elsewhere(token, newcomer)
            if found is None:
                raise
            return found

    async def _enrolled_elsewhere(self, token: Token, newcomer: Newcomer) -> Identity | None:
        """Enrol at a replica that an earlier one has told of."""
        given = self._environment.enrolments
        for address in map(address_of, self._remembered.replicas.enrolments):
            if address is None or address in given:
                continue
            try:
                return await enrol(address.host, address.port, token, newcomer)
            except TransportError as error:
                _log.info("replica_not_reached", detail=error.detail)
        return None

    async def _serve(self, source: IdentitySource, tokens: Tokens | None) -> int:
        environment = self._environment
        instance = source.svid().id.instance
        platforms = _platforms(environment, source.trust_domain)
        denials = Denials()
        policies = PolicyStore(source, denials, self._clock)
        async with MeshClient(source, clock=self._clock, denials=denials) as mesh:
            platforms.learn(self._remembered.replicas.platforms)
            platform = PlatformClient(
                mesh,
                platforms,
                told=lambda reply: self._remembered.learn(reply.platforms, reply.enrolments),
            )
            fetcher = PolicyFetcher(policies, platform.policy)
            if not await self._has_policy(fetcher):
                return ENDED
            discoverer = None
            if self._manifest.permissions.call:
                discoverer = Discoverer(platform.discovery)
            server = WorkerServer(
                self._manifest,
                GrantedArtifacts(mesh, platforms),
                ServerSettings(
                    own=Own.of(
                        self._manifest, own_identity(source), announced_keys(source), policies
                    ),
                    scratch=own_path(self._manifest.metadata.name, ".scratch"),
                    instance=instance,
                    caller=None if discoverer is None else Caller(mesh, discoverer),
                    search_path=self._search_path,
                    log_class_max=environment.log_class_max,
                    internal=lambda: policies.current().egress(self._manifest.metadata.name),
                ),
                clock=self._clock,
                usage=lambda: self._load,
            )
            source.refusals.subscribe(lambda reason, peer: server.refused.add(peer, reason.value))
            await server.start()
            heap.quiet_collector()
            try:
                async with serve(
                    server.app,  # type: ignore[arg-type]  # ASGI, typed without uvicorn
                    source,
                    environment.host,
                    environment.port,
                    clock=self._clock,
                    denials=denials,
                ) as listener:
                    renewer = self._renewer(source, platforms, tokens)
                    membership = self._membership(platform, source, server, listener)
                    return await self._live(
                        _Running(
                            source, platforms, server, membership, renewer, fetcher, discoverer
                        )
                    )
            finally:
                await _stop(server)

    def _renewer(
        self, source: IdentitySource, platforms: Platforms, tokens: Tokens | None
    ) -> "Renews":
        if tokens is None:
            if not isinstance(source, FileIdentitySource):
                message = "without tokens an identity comes from files"
                raise AssertionError(message)
            return source
        return Renewer(
            source,
            lambda csr: platforms.ask(lambda target: renewal_by(source, target)(csr)),
            re_enrol=lambda: self._enrol_again(tokens, source.svid().id.instance),
            clock=self._clock,
        )

    async def _has_policy(self, fetcher: PolicyFetcher) -> bool:
        """Wait for the first policy; False where the worker is told to end meanwhile."""
        since = self._clock.monotonic()
        first = fetcher.first(
            gives_up=lambda: self._gives_up_after(self._clock.monotonic() - since)
        )
        return await self._unless_stopped(_true_after(first)) is not None

    async def _live(self, running: _Running) -> int:
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(running.renewer.run()),
                tasks.create_task(running.policy.run()),
                tasks.create_task(self._beat_on(running)),
                tasks.create_task(heap.give_back_regularly()),
            ]
            if running.discoverer is not None:
                background.append(tasks.create_task(running.discoverer.run()))
            await self._stopping.wait()
            alone = self._is_alone(running)
            if not alone:
                await self._drain(running)
            for task in background:
                task.cancel()
        if alone:
            return ALONE
        await running.membership.leave()
        _log.info("worker_ended", instance=running.source.svid().id.instance)
        return STUCK if running.server.stuck else ENDED

    async def _beat_on(self, running: _Running) -> None:
        """Measure and beat until cancelled; a lone worker stops itself here."""
        health = HealthFile.of(self._manifest.metadata.name)
        try:
            while True:
                self._load = self._meter.measure()
                await running.membership.beat()
                health.beat(self._health(running))
                await self._refresh_bundle(running)
                if running.server.stuck:
                    _log.warning("stuck", reason="inline code does not stop, or has ended its loop")
                    self.stop()
                if self._is_alone(running):
                    _log.warning("alone", seconds=round(running.membership.alone_s))
                    self.stop()
                    return
                await asyncio.sleep(running.membership.pause_s)
        finally:
            health.remove()

    async def _refresh_bundle(self, running: _Running) -> None:
        if running.membership.bundle_sequence <= running.source.bundle().sequence:
            return
        try:
            source, platforms = running.source, running.platforms
            source.update(bundle=await platforms.ask(lambda target: fetch_bundle(source, target)))
        except HivemeshError as error:
            _log.info("bundle_not_fetched", detail=error.detail)

    async def _drain(self, running: _Running) -> None:
        running.server.begin_drain()
        _log.info("draining", active=running.server.active())
        await running.membership.beat()
        drained = asyncio.ensure_future(running.server.drain(DRAIN_S))
        hurried = asyncio.ensure_future(self._hurried.wait())
        await asyncio.wait((drained, hurried), return_when=asyncio.FIRST_COMPLETED)
        for one in (drained, hurried):
            one.cancel()
        await asyncio.gather(drained, hurried, return_exceptions=True)

    def _is_alone(self, running: _Running) -> bool:
        return self._gives_up_after(running.membership.alone_s)

    def _gives_up_after(self, seconds: float) -> bool:
        """Only a supervised worker gives up: its supervisor starts another one."""
        environment = self._environment
        return environment.supervised and 0 < environment.alone_s <= seconds

    def _membership(
        self,
        platform: PlatformClient,
        source: IdentitySource,
        server: WorkerServer,
        listener: Listener,
    ) -> Membership:
        return Membership(
            platform,
            lambda: source.svid().id.instance,
            registration=lambda: self._registration(server, listener.port),
            heartbeat=lambda: self._heartbeat(server, source),
            heard=lambda heartbeat: server.refused.heard(heartbeat.refusals),
            clock=self._clock,
        )

    def _registration(self, server: WorkerServer, port: int) -> Registration:
        metadata = self._manifest.metadata
        return Registration(
            worker=metadata.name,
            version=metadata.version,
            manifest_digest=self._manifest.digest(),
            manifest={**self._manifest.document()},
            sdk_version=__version__,
            protocol=PROTOCOL,
            host=self._environment.advertise_host,
            port=port,
            incarnation=self._incarnation,
            slots=server.slots(),
            labels=self._manifest.labels,
            pid=os.getpid(),
            clock=self._clock.now().timestamp(),
        )

    def _heartbeat(self, server: WorkerServer, source: IdentitySource) -> Heartbeat:
        return Heartbeat(
            slots=server.slots(),
            active=server.active(),
            cpu=self._load.cpu,
            memory=self._load.memory,
            draining=server.draining,
            incarnation=self._incarnation,
            bundle_sequence=source.bundle().sequence,
            issuer=source.issuer,
            refusals=server.refused.due(everything=server.draining),
            clock=self._clock.now().timestamp(),
        )

    def _health(self, running: _Running) -> Health:
        state = "draining" if running.server.draining else running.membership.standing.value
        return Health(
            worker=self._manifest.metadata.name,
            instance=running.source.svid().id.instance,
            pid=os.getpid(),
            state=state,
        )

    def _newcomer(self, instance: str | None = None) -> Newcomer:
        return Newcomer(
            worker=self._manifest.metadata.name,
            version=self._manifest.metadata.version,
            manifest_digest=self._manifest.digest(),
            instance=instance or self._environment.instance or None,
        )

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T | None:
        task = asyncio.ensure_future(work)
        stopped = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))
            return None
        return task.result()


async def _true_after(work: Coroutine[Any, Any, None]) -> bool:
    await work
    return True


async def _stop(server: WorkerServer) -> None:
    """End what the server started; what does not end goes down with this process."""
    try:
        async with asyncio.timeout(STOP_S):
            await server.stop()
    except TimeoutError:
        _log.error("stop_timed_out", seconds=STOP_S)


async def _bundle_of(source: IdentitySource, platforms: Platforms) -> Bundle:
    """Ask the platform for its bundle; one that is not there yet is waited for."""
    pause_s = 0.5
    while True:
        try:
            return await platforms.ask(lambda target: fetch_bundle(source, target))
        except PeerRefusedError:
            raise
        except TransportError as error:
            wait_s = around(pause_s)
            _log.info("platform_not_reached", detail=error.detail, again_in_s=round(wait_s, 1))
        await asyncio.sleep(wait_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _tokens(environment: Environment) -> Tokens:
    if environment.token_fd is not None:
        return SupervisorTokens(environment.token_fd)
    if environment.credential_file is None:
        message = "an environment has a token descriptor or a credential file"
        raise AssertionError(message)
    return FileCredential(environment.credential_file)


def _platforms(environment: Environment, trust_domain: str) -> Platforms:
    rule = environment.platform_id or f"spiffe://{trust_domain}/platform/*"
    targets = [
        Target(address.host, address.port, rule, f"platform.{trust_domain}")
        for address in (environment.platform, *environment.more_platforms)
    ]
    return Platforms.spread(targets)
