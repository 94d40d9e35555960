"""The composition root: reads settings, builds every adapter and service, injects them.

Nothing is opened at import. `open_platform` opens, in order, what the rest stands on, and closes
it in reverse.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import structlog
from fastapi import APIRouter, FastAPI
from hivemesh_sdk.clock import Clock
from hivemesh_sdk.heap import give_back_regularly
from hivemesh_sdk.transport.client import MeshClient
from hivemesh_sdk.trust.denials import Denials
from hivemesh_sdk.trust.identity import SpiffeId
from hivemesh_sdk.trust.source import IdentitySource
from hivemesh_sdk.trust.tickets import TicketReader, announced_keys
from starlette.types import ASGIApp

from hivemesh_platform import __version__, consent, crash, enforcement, figures
from hivemesh_platform.access.people import PeopleService
from hivemesh_platform.access.policy_service import PolicyService
from hivemesh_platform.access.policy_store import PolicyStore
from hivemesh_platform.access.service import AccessService
from hivemesh_platform.api import (
    again,
    artifacts,
    audit,
    ca,
    capabilities,
    config,
    datasets,
    dead_letters,
    denials,
    enrolment,
    errors,
    instances,
    job_batches,
    jobs,
    limits,
    pipelines,
    policy,
    roles,
    runs,
    status,
    tickets,
    tokens,
    whoami,
    workers,
)
from hivemesh_platform.api import replicas as replicas_api
from hivemesh_platform.api import retention as retention_api
from hivemesh_platform.api.requests import RequestIds
from hivemesh_platform.api.work import Work
from hivemesh_platform.artifacts.local import LocalArtifactStore
from hivemesh_platform.artifacts.service import ArtifactService
from hivemesh_platform.audit.ports import AuditTrail
from hivemesh_platform.audit.service import AuditOptions, AuditService, open_audit
from hivemesh_platform.configuration import Loaded
from hivemesh_platform.credentials.lending import Lending
from hivemesh_platform.execution.ledger.counters import ExecutionCounters
from hivemesh_platform.execution.ledger.store import active_of
from hivemesh_platform.execution.plans.catalogue import InstalledCatalogue
from hivemesh_platform.execution.retention import Removed, Retention
from hivemesh_platform.execution.runs.engine import DbosEngine
from hivemesh_platform.execution.runtime import Execution, ExecutionPorts, open_execution
from hivemesh_platform.execution.steps.mesh_transport import MeshStepTransport
from hivemesh_platform.identity import Sources, open_sources
from hivemesh_platform.overview import Overview
from hivemesh_platform.people import People, names_of
from hivemesh_platform.registry.embedded import EmbeddedDirectory
from hivemesh_platform.registry.model import InstanceState
from hivemesh_platform.registry.service import RegistryService
from hivemesh_platform.registry.shared import SharedDirectory
from hivemesh_platform.registry.types import WorkerTypes
from hivemesh_platform.replicas.service import Own, Replicas, folder_id
from hivemesh_platform.routing.model import Weights
from hivemesh_platform.routing.outliers import LONGEST_S, Rule
from hivemesh_platform.routing.service import RoutingService
from hivemesh_platform.secret_parts import open_secrets
from hivemesh_platform.settings import Settings
from hivemesh_platform.storage.database import Database
from hivemesh_platform.storage.errors import PASSING
from hivemesh_platform.storage.opening import (
    Place,
    open_database,
    place_of,
    wait_until_reachable,
)
from hivemesh_platform.supervisor import indexes
from hivemesh_platform.supervisor.environment import BuilderSettings, EnvironmentBuilder
from hivemesh_platform.supervisor.model import Limits as SupervisorLimits
from hivemesh_platform.supervisor.service import Supervisor, SupervisorSettings
from hivemesh_platform.telemetry.metrics import Metrics
from hivemesh_platform.telemetry.placement import MeasuredPlacement
from hivemesh_platform.trust.authority import Authority, open_authority
from hivemesh_platform.trust.profile import lifetimes_of
from hivemesh_platform.trust.revocation import Revocation
from hivemesh_platform.trust.rotation import Rotation
from hivemesh_platform.trust.sealing import check_passphrase
from hivemesh_platform.trust.service import EnrolmentService
from hivemesh_platform.trust.store import SqlEnrolmentStore
from hivemesh_platform.trust.web import WebIssuer

OPERATOR = "operator"
ENGINE = "engine.db"
ARTIFACTS = "artifacts"
COUNT_EVERY_S = 3600.0
IN_STEP_S = 1.0
SINGLETONS = ("trust", "artifacts", "policy", "secrets")  # what one replica alone does

_log = structlog.get_logger("hivemesh.platform")

Background = Callable[[], Coroutine[None, None, None]]


@dataclass(kw_only=True)
class Platform:
    """Everything that one running platform consists of."""

    loaded: Loaded
    clock: Clock
    authority: Authority
    source: IdentitySource
    sources: Sources
    denials: Denials
    audit: AuditTrail
    audit_service: AuditService
    replicas: Replicas
    revocation: Revocation
    rotation: Rotation
    policy: PolicyService
    enrolment: EnrolmentService
    types: WorkerTypes
    registry: RegistryService
    routing: RoutingService
    metrics: Metrics
    started_at: datetime
    overview: Overview
    supervisor: Supervisor | None
    mesh_app: ASGIApp
    enrolment_app: ASGIApp
    people: People
    people_app: ASGIApp
    served: list[FastAPI]  # behind the fronts: newcomers' routes, then members'
    counters: ExecutionCounters = field(default_factory=ExecutionCounters)
    background: list[tuple[str, Background]] = field(default_factory=list)
    mesh_url: str = ""
    enrolment_url: str = ""
    people_url: str = ""
    ready: bool = False
    removed: Removed = field(default_factory=Removed)  # by retention
    secrets_sealed: Callable[[], str] = lambda: ""
    answer_waiting: Callable[[], None] = lambda: None  # those who follow a run

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self.loaded.settings

    @property
    def state_folder(self) -> Path:
        """Where everything is written."""
        return self.loaded.state_folder


@dataclass(frozen=True, slots=True)
class _Base:
    """What is open before the services are built."""

    authority: Authority
    sources: Sources
    database: Database
    directory: EmbeddedDirectory
    audit: AuditTrail
    records: AuditService
    replicas: Replicas

    @property
    def source(self) -> IdentitySource:
        """The identity that peers see."""
        return self.sources.mesh


@asynccontextmanager
async def open_platform(loaded: Loaded, clock: Clock) -> AsyncIterator[Platform]:
    """Build the platform on its state folder; the caller holds the folder's lock."""
    settings, folder = loaded.settings, loaded.state_folder
    authority = open_trust(settings, loaded.shared_folder, clock)
    own = SpiffeId.platform(authority.trust_domain, settings.replica.id)
    sources = open_sources(settings.trust, own, authority, clock)
    place = place_of(settings.database, folder, settings.replica.id)
    await wait_until_reachable(place, settings.database.start_timeout_s)
    await asyncio.to_thread(place.ensure_schema)
    crash.arm(loaded.environment.get(crash.VARIABLE), production=settings.mode == "production")
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(settings.database, place))
        replicas = await stack.enter_async_context(open_replicas(loaded, database, place, clock))
        directory = open_directory(clock, database, replicas)
        await directory.load()
        records = await stack.enter_async_context(open_records(loaded, database, clock, authority))
        base = _Base(authority, sources, database, directory, records.trail, records, replicas)
        platform = _assemble(loaded, clock, base)
        await platform.revocation.announce()
        await platform.policy.open()
        quota = settings.storage.quota_bytes
        store = await stack.enter_async_context(open_artifacts(loaded, replicas, quota))
        mesh = MeshClient(sources.mesh, clock=clock, denials=platform.denials)
        client = await stack.enter_async_context(mesh)
        secrets = await stack.enter_async_context(open_secrets(platform, database))
        ports = _execution_ports(platform, database, place, store, client)
        ports = replace(ports, secrets=secrets.service, leases=secrets.lending)
        execution = await stack.enter_async_context(open_execution(ports))
        platform.counters = execution.counters
        platform.answer_waiting = lambda: _answer_waiting(platform, execution)
        files = ArtifactService(
            database,
            store,
            execution.held,
            clock,
            clearance=InstalledCatalogue(platform.types).clearance,
        )
        retention = Retention(
            database,
            files,
            execution.engine,
            settings.retention,
            clock,
            lambda: replicas.leads("artifacts"),
        )
        platform.removed = retention.removed
        routers = [  # they are tried in this order: first what workers ask for again and again
            *_work_routers(platform, execution, files),
            *_mesh_routers(platform, database),
            retention_api.router(retention, platform.audit),
            secrets.router(execution, InstalledCatalogue(platform.types)),
            tickets.router(execution.tickets, execution.submits, clock),
            *_access_routers(platform),
        ]
        members = _routes("mesh", routers)
        platform.served.append(members)
        platform.mesh_app, platform.people_app = platform.people.fronts(members)
        platform.background += [
            ("artifacts", lambda: _count_again(store, replicas)),
            ("retention", retention.run),
            ("step", lambda: _keep_in_step(platform, secrets.lending)),
            ("memory", give_back_regularly),
            ("secrets", lambda: secrets.service.watch(execution.work.give)),
        ]
        yield platform


def _execution_ports(
    platform: Platform,
    database: Database,
    place: Place,
    store: LocalArtifactStore,
    client: MeshClient,
) -> ExecutionPorts:
    project = platform.loaded.project
    engine_place = place.direct or platform.state_folder / ENGINE
    return ExecutionPorts(
        database=database,
        artifacts=store,
        placement=MeasuredPlacement(platform.routing, platform.metrics),
        transport=MeshStepTransport(client),
        catalogue=InstalledCatalogue(platform.types),
        engine=lambda steps: DbosEngine(engine_place, platform.replicas.own.id, steps),
        pipelines=() if project is None else (project / "pipelines",),
        settings=platform.settings.execution,
        clock=platform.clock,
        issuer=str(SpiffeId.platform(platform.authority.trust_domain, platform.replicas.own.id)),
        signer=platform.authority.signing,
        policies=platform.policy,
        reader=TicketReader(announced_keys(platform.source), platform.clock),
        replicas=platform.replicas,
    )


def _work_routers(
    platform: Platform, execution: Execution, files: ArtifactService
) -> list[APIRouter]:
    trail = platform.audit
    return [
        artifacts.router(files, execution.runs, trail, execution.tickets),
        again.router(
            execution.again,
            execution.runs,
            files,
            lambda: capabilities.views(platform.registry, platform.routing.free_slots()),
            trail,
            local=platform.settings.mode == "local",
        ),
        runs.router(execution.runs, files, trail),
        job_batches.router(execution.batches, execution.runs, files, trail),
        limits.router(execution.limits, trail),
        jobs.router(execution.jobs, execution.runs, files),
        dead_letters.router(execution, Work(execution.runs, files), trail),
        pipelines.router(execution.pipelines, execution.runs, files),
        datasets.router(execution.datasets, trail),
    ]


def _answer_waiting(platform: Platform, execution: Execution) -> None:
    execution.runs.answer_waiting()
    platform.policy.close()


async def _count_again(store: LocalArtifactStore, replicas: Replicas) -> None:
    """Measure once an hour what artifacts take, where other replicas store them too."""
    while True:
        await asyncio.sleep(COUNT_EVERY_S)
        if not replicas.alone:
            await store.count_again()


async def _keep_in_step(platform: Platform, lending: Lending) -> None:
    """Take over, once a second, what people have decided at other replicas."""
    while True:
        await asyncio.sleep(IN_STEP_S)
        if platform.replicas.alone:
            continue
        try:
            platform.people.access.changed()
            await platform.revocation.follow()
            await platform.policy.refresh()
            await lending.follow(leads=platform.replicas.leads("secrets"))
        except PASSING as error:
            _log.warning("not_in_step", detail=error.detail)


def _assemble(loaded: Loaded, clock: Clock, base: _Base) -> Platform:
    settings = loaded.settings
    types = WorkerTypes(loaded.worker_folders)
    types.refresh()
    registry = RegistryService(base.directory, types, clock, __version__)
    routing = RoutingService(
        base.directory,
        clock,
        _weights(settings),
        kept=settings.routing.explanations,
        rule=_rule(settings),
        clearance=InstalledCatalogue(types).clearance,
    )
    enrolments = SqlEnrolmentStore(base.database)
    revocation = Revocation(
        enrolments,
        clock,
        base.audit,
        trust_domain=base.authority.trust_domain,
        installed=lambda worker: registry.installed(worker) is not None,
        own=lambda serial: base.authority.is_own(serial) or serial == base.source.svid().serial,
    )
    enroller = EnrolmentService(
        base.authority,
        enrolments,
        clock,
        is_live=lambda identity: _is_live(registry, identity),
        revocation=revocation,
        audit=base.audit,
    )
    policies = PolicyService(
        PolicyStore(base.database),
        base.audit,
        clock,
        trust_domain=base.authority.trust_domain,
        sign=base.authority.signing.sign,
        workers=lambda: consent.installed_workers(registry),
    )
    revocation.subscribe(lambda denials: policies.deny(consent.signed_denials(denials)))
    supervisor = _supervisor(loaded, clock, types, registry, routing, enroller)
    metrics = Metrics()
    base.source.refusals.subscribe(
        lambda reason, _: metrics.peers_refused.labels(reason.value).inc()
    )
    replicas = base.replicas
    tell = tuple if replicas.alone else replicas.urls
    newcomers = _routes("enrolment", [enrolment.newcomers(enroller, tell)])
    platform = Platform(
        loaded=loaded,
        clock=clock,
        authority=base.authority,
        source=base.source,
        sources=base.sources,
        denials=Denials(),
        audit=base.audit,
        audit_service=base.records,
        replicas=base.replicas,
        revocation=revocation,
        rotation=Rotation(
            base.authority,
            lambda: _present(registry),
            clock,
            base.audit,
            leads=lambda: base.replicas.leads("trust"),
        ),
        policy=policies,
        enrolment=enroller,
        types=types,
        registry=registry,
        routing=routing,
        metrics=metrics,
        started_at=clock.now(),
        overview=Overview(registry, types, supervisor, _weights(settings), clock, routing),
        supervisor=supervisor,
        mesh_app=_nothing,
        enrolment_app=RequestIds(newcomers),
        people=_people(loaded, clock, base),
        people_app=_nothing,
        served=[newcomers],
    )
    platform.background += [("directory", base.directory.watch), ("routing", routing.run)]
    if isinstance(base.directory, SharedDirectory):
        base.directory.on_beat(platform.rotation.hear)
        platform.background.append(("exchange", base.directory.keep_exchanging))
    platform.background.append(("audit", base.records.run))
    platform.background.append(("rotation", platform.rotation.run))
    platform.background.append(("denials", lambda: enforcement.keep(revocation, enroller, clock)))
    platform.background += [
        ("policy", policies.run),
        ("consent", lambda: consent.keep(policies, lambda: base.replicas.leads("policy"))),
    ]
    platform.rotation.on_start_over(policies.sign_again)
    enforcement.note_signatures(base.authority, base.audit)
    enforcement.enforce(revocation, platform.denials, registry, supervisor)
    return platform


def _mesh_routers(platform: Platform, database: Database) -> list[APIRouter]:
    return [
        status.router(
            lambda: figures.system_status(platform),
            lambda: figures.metrics(platform, database),
            lambda tenant: database.read(lambda tx: active_of(tx, tenant)),
            lambda tenant: figures.queue(platform, database, tenant),
        ),
        instances.router(
            platform.registry,
            platform.authority,
            platform.rotation.hear,
            platform.policy,
            platform.replicas.told,
            platform.audit,
        ),
        enrolment.members(platform.enrolment, platform.authority),
        capabilities.router(platform.registry, platform.routing),
        config.router(platform.loaded),
        workers.router(platform.overview, platform.supervisor),
        denials.router(platform.revocation),
        ca.router(platform.authority, platform.rotation),
        replicas_api.router(platform.replicas),
        policy.router(platform.policy),
        audit.router(platform.audit_service),
    ]


def _people(loaded: Loaded, clock: Clock, base: _Base) -> People:
    access = AccessService(base.database, clock, base.authority.trust_domain)
    names = names_of(loaded.settings.api)
    folder = loaded.shared_folder / "trust"
    return People(
        access=access,
        service=PeopleService(access, base.audit),
        web=WebIssuer(folder, clock, names, base.authority.trust_domain),
        names=names,
        audit=base.audit,
        clock=clock,
        replicas=base.replicas.urls,
    )


def _access_routers(platform: Platform) -> list[APIRouter]:
    people = platform.people
    platform.background += [("access", people.access.run), ("web", people.keep_certificate)]
    return [
        whoami.router(people.access),
        roles.router(people.access, people.service),
        tokens.router(people.access, people.service),
    ]


def _routes(name: str, routers: list[APIRouter]) -> FastAPI:
    app = FastAPI(
        title=f"Hivemesh {name} API",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,  # FastAPI would tell it to everybody, newcomers included
    )
    for router in routers:
        app.include_router(router)
    errors.install(app)
    return app


def open_trust(settings: Settings, folder: Path, clock: Clock) -> Authority:
    """The certificate authority of a state folder."""
    trust = settings.trust
    lifetimes = lifetimes_of(trust, local=settings.mode == "local")
    passphrase = check_passphrase(
        trust.passphrase.get_secret_value(), production=settings.mode == "production"
    )
    return open_authority(
        folder / "trust",
        clock,
        lifetimes,
        trust_domain=trust.trust_domain,
        passphrase=passphrase,
    )


def open_artifacts(loaded: Loaded, replicas: Replicas, quota: int) -> LocalArtifactStore:
    """The artifacts of a folder that one replica uses, or several."""
    folder = loaded.shared_folder / ARTIFACTS
    return LocalArtifactStore(folder, quota, replica="" if replicas.alone else replicas.own.id)


def open_directory(clock: Clock, database: Database, replicas: Replicas) -> EmbeddedDirectory:
    """The directory of one replica, or of several."""
    if replicas.alone:
        return EmbeddedDirectory(clock, database)
    return SharedDirectory(clock, database)


@asynccontextmanager
async def open_replicas(
    loaded: Loaded, database: Database, place: Place, clock: Clock
) -> AsyncIterator[Replicas]:
    """This process among the replicas, from its joining to its leaving.

    Heartbeats have connections of their own: the others may all wait for what a replica that was
    stopped has locked.
    """
    own = Own(
        id=loaded.settings.replica.id,
        folder=folder_id(loaded.state_folder),
        shared=folder_id(loaded.shared_folder / "trust"),
        version=__version__,
    )
    alone = database.dialect == "sqlite"
    few = loaded.settings.database.model_copy(update={"connections": 1})
    async with AsyncExitStack() as stack:
        if not alone:
            database = await stack.enter_async_context(open_database(few, place))
        replicas = Replicas(database, own, clock, alone=alone, singletons=SINGLETONS)
        await replicas.join()
        beating = asyncio.create_task(replicas.run(), name="replica")
        try:
            yield replicas
        finally:
            beating.cancel()
            await asyncio.wait([beating])
            await replicas.leave()


def open_records(
    loaded: Loaded, database: Database, clock: Clock, authority: Authority
) -> AbstractAsyncContextManager[AuditService]:
    """The audit trail of a state folder."""
    settings = loaded.settings.audit
    options = AuditOptions(
        trust_domain=authority.trust_domain,
        checkpoint_file=settings.checkpoint_file,
        keep_days=settings.keep_days,
        chain="" if loaded.homes is None else loaded.settings.replica.id,
        chains=loaded.homes,
    )
    return open_audit(loaded.state_folder, database, clock, options)


def _weights(settings: Settings) -> Weights:
    routing = settings.routing
    return Weights(
        cpu=routing.cpu_weight, memory=routing.memory_weight, active=routing.active_weight
    )


def _rule(settings: Settings) -> Rule:
    routing = settings.routing
    return Rule(
        factor=routing.slow_factor,
        failures=routing.failures,
        first_s=routing.ejected_s,
        longest_s=max(LONGEST_S, routing.ejected_s),
    )


def _present(registry: RegistryService) -> set[str]:
    """The identities that a change of keys waits for."""
    return {
        listing.instance.identity
        for listing in registry.instances()
        if listing.state is not InstanceState.OFFLINE
    }


def _is_live(registry: RegistryService, identity: str) -> bool:
    return any(
        listing.instance.identity == identity and listing.state is not InstanceState.OFFLINE
        for listing in registry.instances()
    )


def _supervisor(
    loaded: Loaded,
    clock: Clock,
    types: WorkerTypes,
    registry: RegistryService,
    routing: RoutingService,
    tokens: EnrolmentService,
) -> Supervisor | None:
    settings, folder = loaded.settings.workers, loaded.state_folder
    if not settings.supervise:
        return None
    environment = loaded.environment
    builder = BuilderSettings(
        folder=folder / "environments",
        cache=folder / "cache",
        indexes=indexes.read(environment, Path.home(), Path(sys.prefix)),
        environment=environment,
        builder=settings.builder,
    )
    return Supervisor(
        SupervisorSettings(
            state_folder=folder,
            project=loaded.project,
            default_instances=settings.default_instances,
            instances=settings.instances,
            host=settings.host,
            alone_s=settings.alone_s,
            limits=SupervisorLimits(
                start_s=settings.start_timeout_s, grace_s=settings.stop_grace_s
            ),
            log_bytes=loaded.settings.storage.log_bytes,
            log_files=loaded.settings.storage.log_files,
            environment=environment,
            log_level=loaded.settings.telemetry.log_level,
            log_class_max=loaded.settings.execution.log_class_max,
        ),
        types=types,
        registry=registry,
        routing=routing,
        tokens=tokens,
        builder=EnvironmentBuilder(builder),
        clock=clock,
    )


async def _nothing(_scope: object, _receive: object, _send: object) -> None:
    """Stands for the application until its routers are made."""
