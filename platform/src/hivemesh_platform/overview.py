"""The installation as people see it: workers and instances with everything known of them."""

from collections.abc import Iterable

from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.api import HealthView, InstanceView, WorkerView
from hivemesh_sdk.errors import NotFoundError

from hivemesh_platform.registry.model import InstanceState
from hivemesh_platform.registry.service import Listing, RegistryService
from hivemesh_platform.registry.types import BrokenWorker, InstalledWorker, WorkerTypes
from hivemesh_platform.routing.model import Load, Weights, load_parts, load_score
from hivemesh_platform.routing.outliers import SILENT, Circuit
from hivemesh_platform.routing.service import RoutingService
from hivemesh_platform.supervisor.service import Standing, Supervisor

FULL = 0.95  # of the memory that an instance may have
_STATUS = {
    InstanceState.OFFLINE: "offline",
    InstanceState.UNHEALTHY: "failed",
    InstanceState.INCOMPATIBLE: "failed",
}


class Overview:
    """Joins what registry, supervisor and routing know; changes nothing."""

    def __init__(
        self,
        registry: RegistryService,
        types: WorkerTypes,
        supervisor: Supervisor | None,
        weights: Weights,
        clock: Clock,
        routing: RoutingService | None = None,
    ) -> None:
        self._clock = clock
        self._routing = routing
        self._registry = registry
        self._types = types
        self._supervisor = supervisor
        self._weights = weights

    def workers(self) -> list[WorkerView]:
        """Every installed worker, and the folders that hold none because of a mistake."""
        views = [self._worker(installed) for installed in self._types.all()]
        views += [_broken(broken) for broken in self._types.broken()]
        return sorted(views, key=lambda view: view.name)

    def worker(self, name: str) -> WorkerView:
        """One worker.

        Raises:
            NotFoundError: no such worker.
        """
        for view in self.workers():
            if view.name == name:
                return view
        message = f"there is no worker {name!r}"
        raise NotFoundError(message)

    def live(self, worker: str) -> int:
        """Live instances of a worker."""
        return sum(one.state is InstanceState.LIVE for one in self._listings(worker))

    def wanted(self, worker: str) -> int:
        """Instances that should run; without a supervisor, those that do."""
        return self._standing(worker).wanted

    def restarts(self, worker: str) -> int:
        """Processes that had to be started again since the platform's start."""
        return self._standing(worker).restarts

    def _worker(self, installed: InstalledWorker) -> WorkerView:
        manifest, name = installed.type.manifest, installed.type.name
        listings, standing = self._listings(name), self._standing(name)
        incompatible = [one for one in listings if one.state is InstanceState.INCOMPATIBLE]
        off = [
            one.instance
            for one in listings
            if one.state is InstanceState.DRAINING and one.instance.clock_off
        ]
        live = self.live(name)
        state, reason = standing.state, standing.reason
        if incompatible and live < standing.wanted:
            state, reason = "incompatible", incompatible[0].instance.incompatible
        elif off and live < max(standing.wanted, 1):
            reason = f"{off[0].id}: {off[0].clock_off}"
        return WorkerView(
            name=name,
            version=installed.type.version,
            publisher=manifest.metadata.publisher,
            description=manifest.metadata.description,
            kinds=sorted({capability.kind for capability in manifest.capabilities}),
            capabilities=[capability.id for capability in manifest.capabilities],
            permissions=manifest.permissions.model_dump(mode="json"),
            wanted=standing.wanted,
            live=live,
            state=state,
            reason=reason,
            instances=[self._instance(one, standing) for one in listings],
            manifest_digest=installed.type.digest,
        )

    def _instance(self, listing: Listing, standing: Standing) -> InstanceView:
        one = listing.instance
        load = Load(one.cpu, one.memory, one.active_steps)
        running = "running" if one.active_steps else "idle"
        circuits = self._circuits(one.id, one.slots)
        return InstanceView(
            id=one.id,
            worker=one.worker,
            version=one.version,
            state=listing.state.value,
            status=_STATUS.get(listing.state, running),
            reason=one.incompatible or one.clock_off,
            address=f"{one.host}:{one.port}",
            identity=one.identity,
            heartbeat_age_s=round(listing.heartbeat_age_s, 3),
            started_at=one.registered_at.isoformat(),
            certificate_expires_at=one.certificate_expires_at.isoformat(),
            slots=one.slots,
            active=one.active,
            cpu=one.cpu,
            memory=one.memory,
            load_score=round(load_score(load, self._weights), 4),
            load_parts={k: round(v, 4) for k, v in load_parts(load, self._weights).items()},
            pid=one.pid,
            restarts=standing.restarts,
            circuits=circuits,
            health=self._health(listing, circuits),
        )

    def _health(self, listing: Listing, circuits: dict[str, str]) -> HealthView:
        one = listing.instance
        wrong = dict.fromkeys(("heartbeat", "connection", "resources", "errors"), "ok")
        if listing.state in {InstanceState.UNHEALTHY, InstanceState.OFFLINE}:
            wrong["heartbeat"] = f"none for {listing.heartbeat_age_s:.0f} s"
        silent = {name: circuit for name, circuit in circuits.items() if SILENT in circuit}
        if silent:
            wrong["connection"] = SILENT
        elif self._routing is not None and one.id in self._routing.unanswered():
            wrong["connection"] = "it did not answer the last request"
        if one.memory >= FULL:
            wrong["resources"] = f"{one.memory:.0%} of its memory is in use"
        if failing := [f"{name} {circuits[name]}" for name in circuits if name not in silent]:
            wrong["errors"] = "; ".join(failing)
        return HealthView(
            overall=set(wrong.values()) == {"ok"},
            details=wrong,
            last_checked=self._clock.now().isoformat(),
        )

    def _circuits(self, instance: str, capabilities: Iterable[str]) -> dict[str, str]:
        """What the instance takes no steps of at the moment, and why."""
        if self._routing is None:
            return {}
        standings = {name: self._routing.standing(instance, name) for name in capabilities}
        return {
            name: str(standing)
            for name, standing in standings.items()
            if standing.circuit is not Circuit.CLOSED
        }

    def _listings(self, worker: str) -> list[Listing]:
        return [one for one in self._registry.instances() if one.instance.worker == worker]

    def _standing(self, worker: str) -> Standing:
        live = self.live(worker)
        if self._supervisor is None or not self._supervisor.knows(worker):
            return Standing("live" if live else "stopped", "", live, 0)
        return self._supervisor.standing(worker, live)


def _broken(broken: BrokenWorker) -> WorkerView:
    return WorkerView(
        name=broken.name,
        version="",
        publisher="",
        description="",
        kinds=[],
        capabilities=[],
        permissions={},
        wanted=0,
        live=0,
        state="invalid",
        reason=broken.reason,
    )
