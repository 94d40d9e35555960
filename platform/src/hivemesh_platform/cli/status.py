"""`hivemesh status` and `hivemesh health`: the installation at a glance."""

from typing import TYPE_CHECKING, TypeVar

import typer
from hivemesh_sdk.errors import RemoteError

from hivemesh_platform.cli import output, session

if TYPE_CHECKING:
    from collections.abc import Callable

    from hivemesh_sdk.contracts.api import RunView

RUNNING = 10  # of the runs and jobs that are shown
_T = TypeVar("_T")


def status(fmt: output.Format = "table", state: session.State = None) -> None:
    """Show the installation, its workers and what runs.

    Examples:  hivemesh status  ·  hivemesh status -o json
    """
    with session.client(state) as client:
        seen = client.status()
        workers, queue = client.workers(), _told(client.queue)
        running = _told(lambda: client.runs({"state": "running"}, limit=RUNNING))
    if fmt in {"json", "yaml"}:
        document = seen.model_dump(mode="json")
        document["workers"] = [one.model_dump(mode="json") for one in workers]
        document["queue"] = [one.model_dump(mode="json") for one in queue]
        document["running"] = [
            {"id": one.id, "of": _of(one), "started_at": one.started_at} for one in running
        ]
        output.show_document(document, fmt)
        return
    typer.echo(
        f"hivemesh {seen.version} · {'ready' if seen.ready else 'starting'} · {seen.mode} · "
        f"{seen.mesh_url} (mutual TLS) · pid {seen.pid} · up {output.age(seen.started_at)}"
    )
    typer.echo(
        f"{seen.live_instances} of {seen.wanted_instances} instances live · "
        f"{seen.runs_active} runs active · {seen.active_steps} steps running · "
        f"CPU {seen.cpu_percent:.0f} %, memory {seen.memory_percent:.0f} % of their limits"
    )
    typer.echo(
        f"trust domain {seen.trust_domain} · "
        f"issuer until {output.local_time(seen.issuer_expires_at)}"
    )
    if len(seen.replicas) > 1:
        typer.echo(f"replicas {', '.join(seen.replicas)} · this is {seen.replica}")
    if seen.ejected:
        typer.echo(f"slower or failing more than the others: {', '.join(seen.ejected)}")
    if seen.quarantined:
        typer.echo(f"quarantined, two keys claim it: {', '.join(seen.quarantined)}")
    if seen.audit_problem:
        typer.echo(f"audit trail: {seen.audit_problem}")
    if seen.secrets_sealed:
        typer.echo(f"secrets sealed: {seen.secrets_sealed}")
    rows = [
        [one.name, one.version, one.state, f"{one.live}/{one.wanted}", one.reason or "-"]
        for one in workers
    ]
    if rows:
        typer.echo("\n" + output.table(["worker", "version", "state", "live", "reason"], rows))
    runs = [[one.id, _of(one), output.age(one.started_at)] for one in running]
    if runs:
        typer.echo("\n" + output.table(["running", "of", "for"], runs))
    waits = [
        [one.capability, str(one.high), str(one.background), f"{one.oldest_s:.0f}s"]
        for one in queue
    ]
    if waits:
        typer.echo("\n" + output.table(["queue", "high", "background", "oldest waits"], waits))


def _told(ask: "Callable[[], list[_T]]") -> list[_T]:
    """What the database knows; nothing where it is away, since the rest can be told without it."""
    try:
        return ask()
    except RemoteError:
        return []


def _of(one: "RunView") -> str:
    """The pipeline of a run, the capability of a job."""
    return one.pipeline or one.nodes[0].use


def health(state: session.State = None, fmt: output.Format = "table") -> int:
    """Exit 0 when the platform is ready, 7 when it is not; for container health checks.

    Example:  hivemesh health && echo ready
    """
    with session.client(state, timeout_s=5) as client:
        ready = client.status().ready
    if fmt in {"json", "yaml"}:
        output.show_document({"ready": ready}, fmt)
    else:
        typer.echo("ready" if ready else "not ready")
    return 0 if ready else 7
