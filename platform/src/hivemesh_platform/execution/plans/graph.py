"""Rules of the graph: why nodes depend on each other, what becomes of them, how a run ends. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from hivemesh_sdk.contracts.api import RunState

EdgeKind = Literal["stream", "value", "order", "any", "look"]


@dataclass(frozen=True, slots=True)
class Edge:
    """Why a node depends on another one.

    `stream`: it takes its batches, from the first one on; `value`: it refers to its answer;
    `order`: `needs`; `any`: `needs_any`; `look`: its condition asks how the other has ended.
    """

    upstream: str
    kind: EdgeKind


@dataclass(frozen=True, slots=True)
class NodeEnd:
    """What others need to know of a node: its state, and whether that harms them."""

    state: RunState
    tolerated: bool = False  # its failure does not fail the run
    missing: bool = False  # the run goes on without what it gives

    @property
    def well(self) -> bool:
        """Whether it gave what it should."""
        return self.state in {RunState.COMPLETED, RunState.PARTIAL}


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of a node that has not begun, or takes batches: `state` None lets it be."""

    state: RunState | None = None
    reason: str = ""
    waits: bool = False  # for the end of another node
    missing: bool = False  # it is left out for want of something that was optional


def fate(edges: Iterable[tuple[Edge, NodeEnd | None]]) -> Fate:
    """Decide by those that a node depends on; None where one has not ended.

    What has failed for good blocks, and outweighs what was skipped.
    """
    known = list(edges)
    found = [_fate_of(edge, end) for edge, end in known if edge.kind != "any"]
    choice = [(edge, end) for edge, end in known if edge.kind == "any"]
    if choice:
        found.append(_fate_of_any(choice))
    for state in (RunState.BLOCKED, RunState.SKIPPED):
        for one in found:
            if one.state is state:
                return one
    return Fate(waits=any(one.waits for one in found))


def _fate_of(edge: Edge, end: NodeEnd | None) -> Fate:
    if end is None:
        return Fate(waits=edge.kind != "stream")
    if end.well or edge.kind == "look":
        return Fate()
    if edge.kind == "order" and (end.tolerated or end.missing):
        return Fate()
    if end.tolerated or end.state is RunState.SKIPPED:
        return Fate(RunState.SKIPPED, _because(edge, end), missing=end.missing)
    return Fate(RunState.BLOCKED, _because(edge, end))


def _fate_of_any(choice: list[tuple[Edge, NodeEnd | None]]) -> Fate:
    ends = [end for _, end in choice if end is not None]
    if len(ends) < len(choice):
        return Fate(waits=True)
    if any(end.well for end in ends):
        return Fate()
    names = ", ".join(edge.upstream for edge, _ in choice)
    harmed = any(end.state is not RunState.SKIPPED and not end.tolerated for end in ends)
    state = RunState.BLOCKED if harmed else RunState.SKIPPED
    return Fate(state, f"none of {names} has ended well")


def _because(edge: Edge, end: NodeEnd) -> str:
    return f"{edge.upstream} {'was ' if end.state is not RunState.FAILED else ''}{end.state}"


def run_state(ends: Iterable[NodeEnd]) -> RunState:
    """The state of a run whose nodes have all ended.

    A step that its condition has left out takes nothing away.
    """
    found = list(ends)
    if any(one.state is RunState.FAILED and not one.tolerated for one in found):
        return RunState.FAILED
    if any(one.state is RunState.CANCELLED for one in found):
        return RunState.CANCELLED
    if any(one.tolerated or one.missing or one.state is RunState.PARTIAL for one in found):
        return RunState.PARTIAL
    return RunState.COMPLETED
