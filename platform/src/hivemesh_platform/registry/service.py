"""Registers instances, renews their leases, and answers who is live. Knows no transport."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import structlog
from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.instances import (
    Discovery,
    Heartbeat,
    HeartbeatReply,
    Registration,
    RegistrationReply,
)
from hivemesh_sdk.contracts.manifest import Manifest
from hivemesh_sdk.errors import InvalidError, NotAuthorizedError
from hivemesh_sdk.safeio.documents import field_problems
from hivemesh_sdk.trust.identity import Kind, Peer
from pydantic import ValidationError

from hivemesh_platform.registry.model import (
    ClockOffError,
    Instance,
    InstanceState,
    InstanceUnknownError,
    ManifestMismatchError,
    WorkerType,
    check_incarnation,
    check_registration,
    clock_error,
    incompatibility,
)
from hivemesh_platform.registry.ports import InstanceDirectory
from hivemesh_platform.registry.types import WorkerTypes

MAX_SLOTS = 256


@dataclass(frozen=True, slots=True)
class Listing:
    """An instance and its state at the moment of asking."""

    instance: Instance
    state: InstanceState
    heartbeat_age_s: float


class RegistryService:
    """The registry of one platform."""

    def __init__(
        self, directory: InstanceDirectory, types: WorkerTypes, clock: Clock, platform_version: str
    ) -> None:
        self._directory = directory
        self._types = types
        self._clock = clock
        self._platform_version = platform_version
        self._banned: frozenset[str] = frozenset()
        self._off: set[str] = set()  # instances whose clocks are off
        self._log = structlog.get_logger("hivemesh.registry")

    async def register(
        self, peer: Peer, instance_id: str, registration: Registration
    ) -> RegistrationReply:
        """Take an instance into the directory; one whose clock is off takes nothing and is told so.

        Raises:
            NotAuthorizedError: the peer is not that very instance.
            ClockOffError: its clock differs too much from ours.
            CapabilityNotConsentedError, ManifestMismatchError, InstanceDuplicateError, InvalidError.
        """
        _check_owner(peer, instance_id, registration.worker)
        if registration.manifest_digest in self._banned:
            message = f"the package {registration.manifest_digest[:12]}… is banned here"
            raise NotAuthorizedError(message)
        manifest = _manifest(registration)
        reason = incompatibility(manifest, registration.protocol, self._platform_version)
        if not reason:
            check_registration(registration, manifest, self._installed(registration))
        now = self._directory.now()
        known = await self._directory.find(instance_id)
        check_incarnation(known, registration.incarnation, now)
        instance = self._instance(peer, instance_id, registration, manifest, reason)
        off = self._look_at_clock(instance_id, registration.clock)
        if off is not None:
            await self._keep_aside(instance, known, off, registration.clock)
            raise off
        await self._directory.put(instance)
        self._log.info(
            "instance_registered",
            instance=instance_id,
            worker=instance.worker,
            version=instance.version,
            incompatible=reason,
        )
        return RegistrationReply(state="incompatible" if reason else "live", reason=reason)

    async def heartbeat(
        self, peer: Peer, instance_id: str, heartbeat: Heartbeat, bundle_sequence: int
    ) -> HeartbeatReply:
        """Renew the lease.

        Raises:
            NotAuthorizedError: the peer is not that very instance.
            InstanceUnknownError: it has to register again.
            ClockOffError: its clock differs too much from ours; it takes nothing new.
        """
        await self._check_known(peer, instance_id)
        off = self._look_at_clock(instance_id, heartbeat.clock)
        told = off.told if off is not None else ""
        await self._directory.beat(instance_id, heartbeat, peer.not_after, told)
        if off is not None:
            raise off
        return HeartbeatReply(bundle_sequence=bundle_sequence)

    async def deregister(self, peer: Peer, instance_id: str) -> None:
        """Forget an instance that ends.

        Raises:
            NotAuthorizedError: the peer is not that very instance.
            InstanceUnknownError: it is not registered.
        """
        await self._check_known(peer, instance_id)
        self._off.discard(instance_id)
        await self._directory.remove(instance_id)
        self._log.info("instance_deregistered", instance=instance_id)

    async def discover(self, after: int, wait_s: float) -> Discovery:
        """The live endpoints; waits for a change where the caller knows this version already."""
        version = await self._directory.changed(after, wait_s)
        endpoints = [
            listing.instance.endpoint()
            for listing in self.instances()
            if listing.state is InstanceState.LIVE
        ]
        return Discovery(version=version, endpoints=endpoints)

    def instances(self) -> Sequence[Listing]:
        """Every known instance with its state, by worker and id."""
        now = self._directory.now()
        known = sorted(self._directory.all(), key=lambda one: (one.worker, one.id))
        return [Listing(one, one.state(now), max(0.0, now - one.heartbeat_at)) for one in known]

    def instance(self, instance_id: str) -> Listing | None:
        """One known instance with its state."""
        return next((one for one in self.instances() if one.instance.id == instance_id), None)

    def installed(self, worker: str) -> WorkerType | None:
        """The installed type of this name."""
        found = self._types.get(worker)
        return found.type if found is not None else None

    def types(self) -> Sequence[WorkerType]:
        """All installed types."""
        return [worker.type for worker in self._types.all()]

    def ban(self, packages: frozenset[str]) -> None:
        """Register no instance of these manifests (by digest), whoever certifies it."""
        self._banned = packages

    async def expel(self, identities: Collection[str]) -> list[str]:
        """Drop the instances of these identities; returns their ids."""
        gone = [one.id for one in self._directory.all() if one.identity in identities]
        for instance_id in gone:
            await self._directory.remove(instance_id)
        return gone

    async def forget(self, instance_id: str) -> None:
        """Drop an instance whose process is known to have ended."""
        await self._directory.remove(instance_id)

    async def changed(self, after: int, timeout_s: float) -> int:
        """Wait for a change of the directory; returns its version."""
        return await self._directory.changed(after, timeout_s)

    async def _check_known(self, peer: Peer, instance_id: str) -> None:
        known = await self._directory.find(instance_id)
        if known is None:
            if peer.id.kind is not Kind.WORKER or peer.id.instance != instance_id:
                raise _not_yours(peer, instance_id)
            message = f"instance {instance_id!r} is not registered"
            raise InstanceUnknownError(message)
        if peer.uri != known.identity:
            raise _not_yours(peer, instance_id)

    def _look_at_clock(self, instance_id: str, clock: float) -> ClockOffError | None:
        """Whether the clock of an instance is off; the log names each once until it is right."""
        error = clock_error(instance_id, clock, self._clock.now())
        if error is None:
            self._off.discard(instance_id)
        elif instance_id not in self._off:
            self._off.add(instance_id)
            self._log.warning("clock_off", instance=instance_id, detail=error.detail)
        return error

    async def _keep_aside(
        self, instance: Instance, known: Instance | None, off: ClockOffError, clock: float
    ) -> None:
        """Have people and what waits see who would serve if its clock were right.

        It asks again every two seconds: from the second time on that only renews its lease.
        """
        if known is None or known.incarnation != instance.incarnation:
            await self._directory.put(replace(instance, clock_off=off.told))
            return
        load = Heartbeat(
            slots=instance.slots,
            active=known.active,
            cpu=known.cpu,
            memory=known.memory,
            clock=clock,
        )
        await self._directory.beat(instance.id, load, instance.certificate_expires_at, off.told)

    def _installed(self, registration: Registration) -> WorkerType:
        installed = self.installed(registration.worker)
        if installed is None or installed.digest != registration.manifest_digest:
            self._types.refresh()  # the operator may have changed the file a moment ago
            installed = self.installed(registration.worker)
        if installed is None:
            message = f"worker {registration.worker!r} is not installed here"
            raise ManifestMismatchError(message)
        return installed

    def _instance(
        self,
        peer: Peer,
        instance_id: str,
        registration: Registration,
        manifest: Manifest,
        reason: str,
    ) -> Instance:
        capabilities = frozenset(capability.id for capability in manifest.capabilities)
        return Instance(
            id=instance_id,
            worker=registration.worker,
            version=manifest.metadata.version,
            identity=peer.uri,
            host=registration.host,
            port=registration.port,
            incarnation=registration.incarnation,
            manifest_digest=registration.manifest_digest,
            capabilities=capabilities,
            slots={
                name: min(max(0, count), MAX_SLOTS)
                for name, count in registration.slots.items()
                if name in capabilities
            },
            labels={**manifest.labels, **registration.labels},
            pid=registration.pid,
            tells_time=bool(registration.clock),
            incompatible=reason,
            registered_at=self._clock.now(),
            certificate_expires_at=peer.not_after,
            heartbeat_at=self._clock.monotonic(),
        )


def _manifest(registration: Registration) -> Manifest:
    try:
        return Manifest.model_validate(registration.manifest)
    except ValidationError as error:
        message = "the manifest of the registration is not valid"
        raise InvalidError(message, errors=field_problems(error, Manifest)) from error


def _check_owner(peer: Peer, instance_id: str, worker: str) -> None:
    if peer.id.path != ("worker", worker, instance_id):
        raise _not_yours(peer, instance_id)


def _not_yours(peer: Peer, instance_id: str) -> NotAuthorizedError:
    return NotAuthorizedError(f"{peer.uri} may not speak for instance {instance_id!r}")
