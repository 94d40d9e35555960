"""Shows how far a run is: stage, records, records per second, time left.

A terminal gets one moving line, anything else one line each time a step changes its state.
"""

import sys
import time
from typing import TYPE_CHECKING

from hivemesh_platform.cli.output import colour_allowed

if TYPE_CHECKING:
    from hivemesh_sdk.client import Client
    from hivemesh_sdk.contracts.api import NodeView, RunView

CLEAR = "\r\x1b[K"


def follow(client: "Client", run_id: str) -> "RunView":
    """Watch a run to its end and answer with it; Ctrl-C says that the run goes on."""
    screen = _Screen(moving=colour_allowed())
    try:
        for run in client.watch(run_id):
            screen.show(run)
    except KeyboardInterrupt:
        screen.end()
        sys.stderr.write(
            f"stopped watching; the run goes on: hivemesh run watch {run_id}"
            f" (to end it: hivemesh run cancel {run_id})\n"
        )
        raise
    screen.end()
    return client.run(run_id)


class _Screen:
    """What was shown last, and since when."""

    def __init__(self, *, moving: bool) -> None:
        self._moving = moving
        self._started = time.monotonic()
        self._said: set[tuple[str, str]] = set()

    def show(self, run: "RunView") -> None:
        if self._moving:
            sys.stderr.write(CLEAR + self._line(run))
            sys.stderr.flush()
            return
        for node in run.nodes:
            fact = (node.name, node.state.value)
            if node.state != "queued" and fact not in self._said:
                self._said.add(fact)
                sys.stderr.write(f"{node.name}: {node.state.value}, {node.records_out} records\n")

    def end(self) -> None:
        if self._moving:
            sys.stderr.write(CLEAR)
            sys.stderr.flush()

    def _line(self, run: "RunView") -> str:
        seconds = max(time.monotonic() - self._started, 0.001)
        parts = [
            f"{node.name} {node.records_out or node.batches_done}"
            f"{'' if node.state == 'running' else ' ' + node.state.value}"
            for node in run.nodes
            if node.state != "queued"
        ]
        records = max((node.records_out for node in run.nodes), default=0)
        return (
            f"{run.state.value} · {' · '.join(parts)} · {records / seconds:,.0f} records/s"
            f"{_left(run.nodes, seconds)}"
        )[:120]


def _left(nodes: "list[NodeView]", seconds: float) -> str:
    source = next((node for node in nodes if node.total > 0 and node.done > 0), None)
    if source is None or source.done >= source.total:
        return ""
    left = seconds * (source.total - source.done) / source.done
    return f" · {100 * source.done / source.total:.0f} % · {left:.0f} s left"
