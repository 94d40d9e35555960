"""The figures of a running platform: its status and its metrics, read at the moment of asking."""

import asyncio
import os
from typing import TYPE_CHECKING

from hivemesh_sdk.contracts.api import QueueView, RunState, SystemStatus
from hivemesh_sdk.contracts.names import PROTOCOL

from hivemesh_platform import __version__
from hivemesh_platform.execution.ledger.port import milliseconds
from hivemesh_platform.execution.ledger.store import pending, queued, totals
from hivemesh_platform.registry.model import InstanceState
from hivemesh_platform.storage.database import Database
from hivemesh_platform.telemetry.metrics import Metrics, Totals
from hivemesh_platform.trust.model import DenialKind

if TYPE_CHECKING:
    from hivemesh_platform.app import Platform


def system_status(platform: "Platform") -> SystemStatus:
    """The installation at a glance."""
    listings = platform.registry.instances()
    live = [one.instance for one in listings if one.state is InstanceState.LIVE]
    return SystemStatus(
        version=__version__,
        api_version=PROTOCOL,
        replica=platform.source.svid().id.name,
        trust_domain=platform.authority.trust_domain,
        mode=platform.settings.mode,
        started_at=platform.started_at.isoformat(),
        ready=platform.ready,
        live_instances=len(live),
        wanted_instances=sum(
            platform.overview.wanted(worker.name) for worker in platform.registry.types()
        ),
        runs_active=len(platform.counters.open_runs),
        mesh_url=platform.mesh_url,
        people_url=platform.people_url,
        state_folder=str(platform.state_folder),
        pid=os.getpid(),
        issuer_expires_at=platform.authority.issuer_expires_at.isoformat(),
        quarantined=_quarantined(platform),
        audit_problem=platform.audit_service.trail.problem,
        secrets_sealed=platform.secrets_sealed(),
        ejected=sorted({one for some in platform.routing.ejected().values() for one in some}),
        cpu_percent=_percent([one.cpu for one in live]),
        memory_percent=_percent([one.memory for one in live]),
        active_steps=sum(one.active_steps for one in live),
        replicas=sorted([platform.replicas.own.id, *(one.id for one in platform.replicas.others)]),
    )


def _percent(fractions: list[float]) -> float:
    return round(100 * sum(fractions) / max(1, len(fractions)), 1)


def _quarantined(platform: "Platform") -> list[str]:
    denials = platform.revocation.current.denials
    return sorted(one.rule for one in denials if one.kind is DenialKind.QUARANTINE)


async def queue(platform: "Platform", database: Database, tenant: str) -> list[QueueView]:
    """What waits to be placed."""
    now = milliseconds(platform.clock)
    return [
        QueueView(
            capability=row["capability"],
            high=row["high"],
            background=row["background"],
            oldest_s=max(0, now - row["oldest"]) / 1000,
        )
        for row in await database.read(lambda tx: queued(tx, tenant))
    ]


async def metrics(platform: "Platform", database: Database) -> Metrics:
    """The metrics with the totals of the moment."""
    overview, counters = platform.overview, platform.counters
    trail = platform.audit_service.trail.counters
    names = [worker.name for worker in platform.registry.types()]
    for name in names:
        platform.metrics.worker(name, live=overview.live(name), wanted=overview.wanted(name))
    platform.metrics.denials(one.kind.value for one in platform.revocation.current.denials)
    ended, queues = await database.read(
        lambda tx: ([tuple(row) for row in totals(tx)], pending(tx))
    )
    platform.metrics.totals = Totals(
        jobs_completed=_ended(ended, {RunState.COMPLETED, RunState.PARTIAL}),
        jobs_failed=_ended(ended, {RunState.FAILED}),
        jobs={state: number for kind, state, number in ended if kind == "job"},
        jobs_pending=queues,
        processed_bytes={name: counters.bytes_by_worker[name] for name in names},
        processed_records={name: counters.records_by_worker[name] for name in names},
        repeated={"lost": counters.attempts_lost, "failed": counters.attempts_failed},
        restarts={name: overview.restarts(name) for name in names},
        tickets_refused=counters.tickets_refused,
        stale=counters.stale_results,
        fenced=counters.commits_fenced + platform.replicas.standing.refused,
        taken_over=counters.replicas_taken_over,
        audit_records=trail.records,
        audit_refused=trail.refused,
        audit_dropped=trail.dropped,
        audit_checkpoint_failures=trail.checkpoint_failures,
        ejected={name: len(some) for name, some in platform.routing.ejected().items()},
        ejections=platform.routing.ejections,
        removed=dict(platform.removed.counts),
        writer_cpu_s=database.writer_cpu_s,
        transactions_repeated=database.repeated,
        tasks=len(asyncio.all_tasks()),
    )
    return platform.metrics


def _ended(rows: list[tuple[str, str, int]], states: set[RunState]) -> dict[str, int]:
    return {
        kind: sum(number for one, state, number in rows if one == kind and state in states)
        for kind in ("run", "job")
    }
