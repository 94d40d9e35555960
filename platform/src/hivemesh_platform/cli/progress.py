"""Shows how far a run or job is: stage, records, records per second, time left, why it waits.

A terminal gets one moving line, anything else one line each time a step changes its state; what the
next look finds over gets no line but that of its end.
"""

import math
import sys
import time
from typing import TYPE_CHECKING

from hivemesh_platform.cli.output import colour_allowed, printable
from hivemesh_platform.cli.session import here

if TYPE_CHECKING:
    from hivemesh_sdk.client import Client
    from hivemesh_sdk.contracts.api import NodeView, RunView

CLEAR = "\r\x1b[K"
LOOK_S = 2.0  # at the latest; changes are told at once


def follow(client: "Client", run_id: str, *, for_s: float = math.inf) -> "RunView":
    """Watch a run or job to its end, or so long, and answer with it.

    Where it goes on without us, as it does after Ctrl-C, that is said with the commands for it.
    """
    screen = _Screen(moving=colour_allowed())
    until = time.monotonic() + for_s
    try:
        for run in client.watch(run_id, wait_s=min(LOOK_S, for_s)):
            screen.show(run)
            if time.monotonic() >= until:
                break
    except KeyboardInterrupt:
        screen.end()
        _say_goes_on(run_id)
        raise
    screen.end()
    found = client.run(run_id)
    if not found.state.ended:
        _say_goes_on(run_id)
    return found


def _say_goes_on(run_id: str) -> None:
    kind = "job" if _is_job(run_id) else "run"
    sys.stderr.write(
        f"stopped watching; the {kind} goes on: {here(f'hivemesh {kind} watch {run_id}')}"
        f" (to end it: {here(f'hivemesh {kind} cancel {run_id}')})\n"
    )


def _is_job(run_id: str) -> bool:
    return run_id.startswith("job_")


def _line_of(run: "RunView", node: "NodeView") -> str:
    """One step as a line; a job has one step, which has no name of its own."""
    name = run.id if _is_job(run.id) else node.name
    if node.state == "waiting":
        return f"{name}: waiting: {printable(node.reason)}"
    done = "" if _is_job(run.id) else f", {node.records_out} records"
    return f"{name}: {node.state.value}{done}"


def _has_not_begun(node: "NodeView") -> bool:
    """Whether there is nothing to say of it yet: it is queued, or waits for the steps before it."""
    return node.state == "queued" or (node.state == "waiting" and not node.reason)


class _Screen:
    """What was shown last, and since when."""

    def __init__(self, *, moving: bool) -> None:
        self._moving = moving
        self._started = time.monotonic()
        self._seen: set[tuple[str, str]] = set()
        self._said: set[tuple[str, str]] = set()

    def show(self, run: "RunView") -> None:
        if self._moving:
            sys.stderr.write(CLEAR + (_job_line(run) if _is_job(run.id) else self._line(run)))
            sys.stderr.flush()
            return
        for node in run.nodes:
            fact = (node.name, node.state.value)
            if _has_not_begun(node) or fact in self._said:
                continue
            if not (run.state.ended or node.state.ended or fact in self._seen):
                self._seen.add(fact)  # it may be over before anybody reads it
                continue
            self._said.add(fact)
            sys.stderr.write(_line_of(run, node) + "\n")

    def end(self) -> None:
        if self._moving:
            sys.stderr.write(CLEAR)
            sys.stderr.flush()

    def _line(self, run: "RunView") -> str:
        seconds = max(time.monotonic() - self._started, 0.001)
        parts = [
            f"{node.name} {node.records_out or node.batches_done}"
            f"{'' if node.state == 'running' else ' ' + node.state.value}"
            f"{': ' + printable(node.reason) if node.state == 'waiting' else ''}"
            for node in run.nodes
            if not _has_not_begun(node)
        ]
        records = max((node.records_out for node in run.nodes), default=0)
        return (
            f"{run.state.value} · {' · '.join(parts)} · {records / seconds:,.0f} records/s"
            f"{_left(run.nodes, seconds)}"
        )[:120]


def _job_line(run: "RunView") -> str:
    return " · ".join(_line_of(run, node) for node in run.nodes)[:120]


def _left(nodes: "list[NodeView]", seconds: float) -> str:
    source = next((node for node in nodes if node.total > 0 and node.done > 0), None)
    if source is None or source.done >= source.total:
        return ""
    left = seconds * (source.total - source.done) / source.done
    return f" · {100 * source.done / source.total:.0f} % · {left:.0f} s left"
