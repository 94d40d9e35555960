"""How one run and one worker look to people, on 80 columns; the other formats are `output`'s."""

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

import typer

from hivemesh_platform.cli import output

if TYPE_CHECKING:
    from hivemesh_sdk.contracts.api import NodeView, RunView, WorkerView

LONGEST = 100  # characters of a reason in a list
_NODES = ["step", "capability", "state", "in", "out", "rejected", "attempts", "took"]
_INSTANCES = ["instance", "state", "load", "pid", "restarts", "certificate until"]
_RUN_TABLES = {"nodes", "problem"}  # the problem is told once, at its step
_WORKER_TABLES = {"instances", "permissions", "manifest_digest"}  # the last one is in `-o wide`


def show_run(run: "RunView", fmt: str) -> None:
    """Print a run: its facts, a line a step, and what went wrong where."""
    if fmt != "table":
        output.show_one(run, fmt)
        return
    output.show_one(run, fmt, without=_RUN_TABLES)
    if run.nodes:
        typer.echo("\n" + output.table(_NODES, [_node_cells(node) for node in run.nodes]))
    for line in (*_troubles(run.nodes), *_way_out(run)):
        typer.echo(line)


def why(run: "RunView") -> str:
    """Why a run or job waits or has not ended well, short enough for a line of a list."""
    if run.state == "completed":
        return "-"
    problem = run.problem or next((node.problem for node in run.nodes if node.problem), None) or {}
    words = [run.reason, problem.get("code"), problem.get("detail") or problem.get("title")]
    said = ": ".join(dict.fromkeys(str(word) for word in words if word))
    return output.cell(said if len(said) <= LONGEST else f"{said[:LONGEST]}…")


def show_worker(worker: "WorkerView", fmt: str) -> None:
    """Print a worker: its facts, what it asks for, and a line an instance."""
    if fmt != "table":
        output.show_one(worker, fmt, name="name")
        return
    output.show_one(worker, fmt, name="name", without=_WORKER_TABLES)
    asked = ", ".join(
        f"{key} {output.brief(one)}" for key, one in worker.permissions.items() if one
    )
    typer.echo(f"permissions: {asked or 'none'}")
    rows = [
        [
            output.cell(value)
            for value in (
                one.id,
                one.state,
                one.load_score,
                one.pid,
                one.restarts,
                one.certificate_expires_at,
            )
        ]
        for one in worker.instances
    ]
    if rows:
        typer.echo("\n" + output.table(_INSTANCES, rows))
    for one in worker.instances:
        if one.reason:
            typer.echo(f"{one.id}: {one.reason}")
        for capability, circuit in one.circuits.items():
            typer.echo(f"{one.id}: {capability} {circuit}")
        for part, wrong in (one.health.details if one.health else {}).items():
            if wrong != "ok" and part != "errors":  # these are the circuits
                typer.echo(f"{one.id}: {part}: {wrong}")


def _node_cells(node: "NodeView") -> list[str]:
    return [
        node.name,
        node.use,
        node.state.value,
        str(node.records_in),
        str(node.records_out),
        str(node.rejected),
        str(node.attempts),
        _took(node.started_at, node.ended_at),
    ]


def _took(start: str | None, end: str | None) -> str:
    if start is None or end is None:
        return "-"
    seconds = (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    return f"{seconds:.1f}s"


def _troubles(nodes: "list[NodeView]") -> Iterator[str]:
    """A line for each step that has a reason or a problem."""
    for node in nodes:
        problem = node.problem or {}
        words = [problem.get("code"), node.reason, problem.get("title"), problem.get("detail")]
        said = list(dict.fromkeys(str(word) for word in words if word))
        if said:
            yield output.printable(f"{node.name}: {': '.join(said)}")


def _way_out(run: "RunView") -> Iterator[str]:
    """What is wrong where no step has it, and what to do."""
    problem = run.problem or {}
    if problem and not any(node.problem for node in run.nodes):
        words = [problem.get("code"), problem.get("title"), problem.get("detail")]
        yield output.printable(": ".join(str(word) for word in words if word))
    if problem.get("remedy"):
        yield f"fix: {output.printable(str(problem['remedy']))}"
