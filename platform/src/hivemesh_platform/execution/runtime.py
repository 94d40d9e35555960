"""Execution as a whole: builds its parts from the ports and keeps its background tasks."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
from hivemesh_sdk.clock import Clock
from hivemesh_sdk.trust.policy import Policies
from hivemesh_sdk.trust.tickets import TicketReader

from hivemesh_platform.artifacts.ports import ArtifactStore
from hivemesh_platform.artifacts.trees import Trees
from hivemesh_platform.execution.held import HeldSteps
from hivemesh_platform.execution.jobs.batches import JobBatches
from hivemesh_platform.execution.jobs.letters import DeadLetters
from hivemesh_platform.execution.jobs.limits import LimitService
from hivemesh_platform.execution.jobs.service import JobService
from hivemesh_platform.execution.jobs.step_submits import StepSubmits
from hivemesh_platform.execution.ledger.counters import ExecutionCounters
from hivemesh_platform.execution.ledger.port import milliseconds
from hivemesh_platform.execution.ledger.row_sql import SqlLedger
from hivemesh_platform.execution.ledger.signals import RunSignals, Signal
from hivemesh_platform.execution.ledger.submits import Submits
from hivemesh_platform.execution.losses.elsewhere import StepsElsewhere
from hivemesh_platform.execution.losses.lost_steps import LostStepWatch
from hivemesh_platform.execution.losses.others import Others
from hivemesh_platform.execution.losses.unheld import UnheldRows
from hivemesh_platform.execution.ports import Catalogue, Placement, StepTransport
from hivemesh_platform.execution.rights.secrets import (
    NO_SECRETS,
    SecretGate,
    SecretNames,
    StepLeases,
)
from hivemesh_platform.execution.rights.shown import StepTickets
from hivemesh_platform.execution.rights.tickets import Signer, TicketMint
from hivemesh_platform.execution.runs.again import RunsAgain
from hivemesh_platform.execution.runs.cancels import Cancels
from hivemesh_platform.execution.runs.children import ChildRuns
from hivemesh_platform.execution.runs.engine import RunEngine, RunSteps
from hivemesh_platform.execution.runs.explanations import Explanations
from hivemesh_platform.execution.runs.history import History
from hivemesh_platform.execution.runs.nodes import Answers, Children, NodeRunner
from hivemesh_platform.execution.runs.optional import OptionalSteps
from hivemesh_platform.execution.runs.pipelines import PipelineService
from hivemesh_platform.execution.runs.service import RunParts, RunService
from hivemesh_platform.execution.steps.claims import Claimer
from hivemesh_platform.execution.steps.dispatch import Dispatcher
from hivemesh_platform.execution.steps.ends import Ends
from hivemesh_platform.execution.steps.parts import Parts
from hivemesh_platform.execution.wakes import Wakes
from hivemesh_platform.knowledge.service import DatasetService, DatasetWriter
from hivemesh_platform.loops import forever
from hivemesh_platform.replicas.service import Replicas
from hivemesh_platform.settings import ExecutionSettings
from hivemesh_platform.storage.database import Database

_log = structlog.get_logger("hivemesh.execution")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionPorts:
    """What `app.py` gives to execution; `engine` makes the engine from the steps it calls."""

    database: Database
    artifacts: ArtifactStore
    placement: Placement
    transport: StepTransport
    catalogue: Catalogue
    engine: Callable[[RunSteps], RunEngine]
    pipelines: tuple[Path, ...]  # folders of shipped pipelines
    settings: ExecutionSettings
    clock: Clock
    issuer: str  # SPIFFE ID of this replica
    signer: Signer
    reader: TicketReader
    policies: Policies
    replicas: Replicas
    secrets: SecretNames = NO_SECRETS
    leases: StepLeases = NO_SECRETS


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """What execution gives to the API, the artifacts' grants and telemetry."""

    runs: RunService
    jobs: JobService
    batches: JobBatches
    limits: LimitService
    again: RunsAgain
    letters: DeadLetters
    history: History
    cancels: Cancels
    pipelines: PipelineService
    datasets: DatasetService
    held: HeldSteps
    tickets: StepTickets
    submits: StepSubmits
    engine: RunEngine
    work: Signal  # to be given when something that rows waited for has changed
    counters: ExecutionCounters


@asynccontextmanager
async def open_execution(ports: ExecutionPorts) -> AsyncIterator[Execution]:
    """Recover what was interrupted and run until the block ends.

    Held steps are let go at the end: their rows stay as they are and are gone on with at the
    next start.
    """
    writer = DatasetWriter()
    ledger = SqlLedger(writer, ports.replicas.standing)
    counters, answers = ExecutionCounters(), Answers(ports.artifacts)
    tickets = TicketMint(ports.issuer, ports.signer, ports.catalogue, ports.clock, ports.policies)
    secrets = SecretGate(ports.secrets, ports.leases, ports.catalogue)
    work, signals, held = Signal(), RunSignals(milliseconds(ports.clock)), HeldSteps(counters)
    wakes = Wakes(work, signals, held, counters)
    trees = Trees(ports.artifacts)
    parts = Parts(
        database=ports.database,
        ledger=ledger,
        artifacts=ports.artifacts,
        trees=trees,
        placement=ports.placement,
        transport=ports.transport,
        tickets=tickets,
        secrets=secrets,
        settings=ports.settings,
        clock=ports.clock,
        held=held,
        wakes=wakes,
        work=work,
        runs=signals,
        ends=Ends(ports.database, ledger, lambda: milliseconds(ports.clock)),
        counters=counters,
        has_others=lambda: bool(ports.replicas.others),
    )
    children: asyncio.Future[Children] = asyncio.get_running_loop().create_future()
    nodes = NodeRunner(ports.database, ledger, answers, wakes, ports.clock, children)
    pipelines = PipelineService(
        ports.database, ports.catalogue, ports.pipelines, ports.clock, secrets
    )
    datasets = DatasetService(ports.database, ports.artifacts)
    async with ports.engine(nodes) as engine:
        run_parts = RunParts(
            database=ports.database,
            trees=trees,
            ledger=ledger,
            engine=engine,
            pipelines=pipelines,
            datasets=datasets,
            writer=writer,
            answers=answers,
            secrets=secrets,
            held=held,
            wakes=wakes,
            work=work,
            runs=signals,
            counters=counters,
            settings=ports.settings,
            clock=ports.clock,
            submits=Submits(ports.database, ports.settings, ports.clock),
            explanations=Explanations(
                ports.database, ports.placement, secrets, tickets, ports.clock
            ),
        )
        runs = RunService(run_parts)
        children.set_result(ChildRuns(run_parts, runs))
        dispatcher = Dispatcher(parts)
        claimer = Claimer(parts, dispatcher)
        others = Others(parts, ports.replicas, claimer, engine, runs)
        if not ports.replicas.alone:
            held.follow(StepsElsewhere(parts, dispatcher).look_up)
        watch = LostStepWatch(held, ports.transport, ports.settings, ports.clock)
        jobs = JobService(run_parts, runs, ports.catalogue)
        optional = OptionalSteps(
            ports.database,
            ledger,
            ports.placement,
            wakes,
            ports.settings.optional_wait_s,
            ports.clock,
        )
        unheld = UnheldRows(parts, ports.replicas.standing)
        limits = LimitService(ports.database, ports.settings, ports.clock, work)
        shown = StepTickets(ports.reader, held, tickets, ports.catalogue, counters)
        await limits.apply_settings()
        await runs.reconcile()
        await claimer.recover(None if ports.replicas.alone else ports.replicas.own.id)
        loops = (
            watch.run,
            dispatcher.survivors.run,
            unheld.run,
            runs.keep_submitting,
            optional.run,
            *others.loops(),
        )
        async with _background(claimer, *loops):
            yield Execution(
                runs=runs,
                jobs=jobs,
                batches=JobBatches(run_parts, jobs),
                limits=limits,
                again=RunsAgain(run_parts, runs),
                letters=DeadLetters(run_parts, jobs, ports.catalogue, ports.artifacts),
                history=History(ports.database, ports.clock),
                cancels=Cancels(run_parts),
                pipelines=pipelines,
                datasets=datasets,
                held=held,
                tickets=shown,
                submits=StepSubmits(run_parts, jobs, shown, runs, ports.catalogue, ports.policies),
                engine=engine,
                work=work,
                counters=counters,
            )


@asynccontextmanager
async def _background(
    claimer: Claimer, *more: Callable[[], Awaitable[None]]
) -> AsyncIterator[None]:
    """Run the loops beside the block; none of them ends before it."""
    loops = (claimer.run, claimer.follow_directory, *more)
    tasks = [asyncio.create_task(forever(loop.__qualname__, loop)) for loop in loops]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await claimer.stop()
