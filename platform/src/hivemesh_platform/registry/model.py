"""What the registry knows of worker types and instances, and what follows from it. Pure."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from hivemesh_sdk.contracts.instances import (
    HEARTBEAT_S,
    LEASE_S,
    Endpoint,
    Heartbeat,
    Registration,
)
from hivemesh_sdk.contracts.manifest import Manifest
from hivemesh_sdk.contracts.names import PROTOCOLS
from hivemesh_sdk.contracts.tickets import SKEW_S
from hivemesh_sdk.errors import ConflictError, FatalError

UNHEALTHY_AFTER_S = 2 * HEARTBEAT_S
UNDERWAY_S = 5.0  # a message may take: a clock looks so much less ahead, or more behind, than it is


class InstanceState(StrEnum):
    """What an instance is good for."""

    LIVE = "live"
    DRAINING = "draining"  # finishes what it has and takes nothing new
    UNHEALTHY = "unhealthy"  # two heartbeats are missing
    OFFLINE = "offline"  # the lease has run out: its steps are placed elsewhere
    INCOMPATIBLE = "incompatible"  # registered, but never chosen


class CapabilityNotConsentedError(FatalError):
    """The instance offers what its installed manifest does not declare."""

    slug = "capability-not-consented"


class ManifestMismatchError(FatalError):
    """The instance runs another manifest than the installed one."""

    slug = "manifest-mismatch"


class InstanceUnknownError(FatalError):
    """The instance is not registered; it has to register again."""

    slug = "instance-unknown"


class ClockOffError(ConflictError):
    """The clocks differ by so much that certificates and tickets would be refused."""

    slug = "clock-off"

    def __init__(self, instance_id: str, difference: str, now: datetime) -> None:
        super().__init__(
            f"the clock of {instance_id} is {difference}, where it is {now:%Y-%m-%dT%H:%M:%SZ}"
        )
        self.told = f"its clock is {difference} ({self.problem().code})"


class InstanceDuplicateError(ConflictError):
    """Another live process uses this instance name."""

    slug = "instance-duplicate"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerType:
    """One installed, consented manifest."""

    manifest: Manifest
    digest: str

    @property
    def name(self) -> str:
        """The worker's name, the same everywhere."""
        return self.manifest.metadata.name

    @property
    def version(self) -> str:
        """The installed version."""
        return self.manifest.metadata.version


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One registered process."""

    id: str
    worker: str
    version: str
    identity: str
    host: str
    port: int
    incarnation: str
    manifest_digest: str
    capabilities: frozenset[str]
    slots: dict[str, int]
    active: dict[str, int] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    cpu: float = 0.0
    memory: float = 0.0
    pid: int = 0
    draining: bool = False
    tells_time: bool = False  # whether it says what its clock shows
    clock_off: str = ""  # by how much, or "" where it is right: it takes nothing new meanwhile
    incompatible: str = ""  # why, or "" where it is compatible
    registered_at: datetime
    certificate_expires_at: datetime
    heartbeat_at: float  # monotonic

    def state(self, now: float) -> InstanceState:
        """The state at a monotonic time."""
        age = now - self.heartbeat_at
        if age > LEASE_S:
            return InstanceState.OFFLINE
        if self.incompatible:
            return InstanceState.INCOMPATIBLE
        if age > UNHEALTHY_AFTER_S:
            return InstanceState.UNHEALTHY
        return InstanceState.DRAINING if self.draining or self.clock_off else InstanceState.LIVE

    def changes_at(self) -> tuple[float, float]:
        """The monotonic times at which silence changes the state."""
        return self.heartbeat_at + UNHEALTHY_AFTER_S, self.heartbeat_at + LEASE_S

    @property
    def active_steps(self) -> int:
        """Steps that the instance runs now, as it says."""
        return sum(self.active.values())

    def free(self, capability: str) -> int:
        """Slots of a capability that the instance says are free."""
        return max(0, self.slots.get(capability, 0) - self.active.get(capability, 0))

    def endpoint(self) -> Endpoint:
        """How others call the instance."""
        return Endpoint(
            instance=self.id,
            worker=self.worker,
            version=self.version,
            identity=self.identity,
            host=self.host,
            port=self.port,
            capabilities=sorted(self.capabilities),
            labels=self.labels,
            load=max(self.cpu, self.memory),
        )

    def beaten(
        self,
        heartbeat: Heartbeat,
        now: float,
        expires_at: datetime | None = None,
        clock_off: str = "",
    ) -> "Instance":
        """The instance after a heartbeat. Slots beyond the registered capabilities are ignored."""
        known = {
            name: count for name, count in heartbeat.slots.items() if name in self.capabilities
        }
        return replace(
            self,
            slots=known or self.slots,
            active={name: max(0, count) for name, count in heartbeat.active.items()},
            cpu=_fraction(heartbeat.cpu),
            memory=_fraction(heartbeat.memory),
            draining=heartbeat.draining,
            tells_time=bool(heartbeat.clock),
            clock_off=clock_off,
            certificate_expires_at=expires_at or self.certificate_expires_at,
            heartbeat_at=now,
        )

    def seen_at(self, now: float) -> "Instance":
        """The instance with a sign of life of this monotonic time."""
        return replace(self, heartbeat_at=now)


def _fraction(value: float) -> float:
    """A figure that came over the wire, forced into 0..1; NaN counts as fully loaded."""
    return min(max(value, 0.0), 1.0) if value == value else 1.0  # noqa: PLR0124 - NaN


def incompatibility(manifest: Manifest, protocol: int, platform_version: str) -> str:
    """Why an instance cannot work with this platform, or "" where it can."""
    if protocol not in PROTOCOLS:
        return f"it speaks protocol {protocol}, this platform {', '.join(map(str, PROTOCOLS))}"
    if not manifest.accepts_platform(platform_version):
        return f"it asks for platform {manifest.platform}, this is {platform_version}"
    return ""


def check_registration(
    registration: Registration, manifest: Manifest, installed: WorkerType
) -> None:
    """Refuse what the installed manifest does not cover.

    Raises:
        CapabilityNotConsentedError: a capability is offered that is not declared.
        ManifestMismatchError: the manifest or version is another one.
    """
    consented = {capability.id for capability in installed.manifest.capabilities}
    offered = {capability.id for capability in manifest.capabilities} | set(registration.slots)
    surplus = sorted(offered - consented)
    if surplus:
        message = f"{installed.name!r} offers {', '.join(surplus)}, which is not in its manifest"
        raise CapabilityNotConsentedError(message)
    if manifest.digest() != installed.digest or registration.manifest_digest != installed.digest:
        message = (
            f"{installed.name!r} runs manifest {registration.manifest_digest[:12]}, "
            f"installed is {installed.digest[:12]}"
        )
        raise ManifestMismatchError(message)


def clock_error(instance_id: str, clock: float, now: datetime) -> ClockOffError | None:
    """Say who is ahead and by how much, of an instance that would refuse what it is given."""
    off_s = clock - now.timestamp()
    if not clock or -SKEW_S <= off_s <= SKEW_S - UNDERWAY_S:
        return None
    where = "ahead of" if off_s > 0 else "behind"
    difference = f"{abs(off_s):.0f} s {where} the platform's"
    return ClockOffError(instance_id, difference, now)


def check_incarnation(known: Instance | None, incarnation: str, now: float) -> None:
    """Refuse a second living process under one name.

    Raises:
        InstanceDuplicateError: another incarnation has a lease.
    """
    if known is None or known.incarnation == incarnation:
        return
    if known.state(now) is not InstanceState.OFFLINE:
        message = f"instance {known.id!r} is held by another process until its lease ends"
        raise InstanceDuplicateError(message)
