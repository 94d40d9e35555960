"""Makes the views of runs and jobs from rows. Pure."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from hivemesh_sdk.contracts.api import (
    ExplainView,
    NodeView,
    RejectedView,
    RunState,
    RunView,
    View,
)
from hivemesh_sdk.contracts.artifacts import DataClass
from hivemesh_sdk.contracts.names import step_key
from hivemesh_sdk.contracts.problems import Problem
from pydantic import Field, JsonValue

from hivemesh_platform.execution.model import JOB_NODE
from hivemesh_platform.execution.plans.spec import told
from hivemesh_platform.storage.transaction import Row


class RunEvent(View):
    """An entry of a run's log: `no` is the offset to go on from."""

    no: int
    at: str
    type: str
    node: str = ""
    data: dict[str, JsonValue] = Field(default_factory=dict)


def event(row: Row) -> RunEvent:
    """Make the view of an entry of the log."""
    return RunEvent(
        no=row["no"],
        at=iso(row["at"]) or "",
        type=row["type"],
        node=row["node"],
        data=json_of(row["data"]),
    )


def iso(at: int | None) -> str | None:
    """Write milliseconds since 1970 as ISO 8601 in UTC."""
    return None if at is None else datetime.fromtimestamp(at / 1000, UTC).isoformat()


def run_view(run: Row, nodes: list[Row], outputs: dict[str, JsonValue]) -> RunView:
    """Make the view of a run."""
    views = [node_view(node) for node in nodes]
    state, reason = _run_state(RunState(run["state"]), views)
    return RunView(
        id=run["id"],
        pipeline=run["pipeline"],
        version=run["version"],
        state=state,
        reason=reason or run["reason"],
        created_at=iso(run["created_at"]) or "",
        started_at=iso(run["started_at"]),
        ended_at=iso(run["ended_at"]),
        parameters=json_of(run["parameters"]),
        nodes=views,
        outputs=outputs,
        rejected=sum(view.rejected for view in views),
        submitter=run["submitter"],
        problem=json_of(run["problem"]),
        labels=json_of(run["labels"]),
        missing=json_of(run["missing"]),
        parent=run["parent"],
        parent_step=run["parent_node"],
        backfill_of=run["backfill_of"],
    )


def node_view(node: Row) -> NodeView:
    """Make the view of a node.

    One that has a reason and does not run is waiting, and so is one whose options or order depend on
    others that have not ended: its row is blocked until then, which to people means for good.
    """
    state = RunState(node["state"])
    if state in {RunState.QUEUED, RunState.RUNNING} and node["reason"]:
        state = RunState.WAITING
    if state is RunState.BLOCKED and node["ended_at"] is None:
        state = RunState.WAITING
    return NodeView(
        name=node["name"],
        use=node["capability"],
        kind=node["kind"],
        state=state,
        reason=node["reason"],
        batches_done=node["batches_done"],
        batches_known=node["batches_known"],
        records_in=node["records_in"],
        records_out=node["records_out"],
        rejected=node["rejected"],
        attempts=node["attempts"],
        started_at=iso(node["started_at"]),
        ended_at=iso(node["ended_at"]),
        done=node["done"],
        total=node["total"],
        unit=node["unit"],
        condition=node["condition"],
        on_error=node["on_error"],
        optional=bool(node["optional"]),
        missing=bool(node["missing"]),
        child=node["child"],
        problem=json_of(node["problem"]),
    )


def job_view(row: Row, outputs: dict[str, JsonValue], *, listed: bool = False) -> RunView:
    """Make the view of a job: a run with one node. Its options are left out of lists."""
    state = RunState(row["state"])
    if state is RunState.QUEUED and row["reason"]:
        state = RunState.WAITING
    problem = json_of(row["problem"]) if state is not RunState.COMPLETED else None
    waits = state is RunState.WAITING and not row["instance"]  # it was looked at, and never placed
    node = NodeView(
        name=JOB_NODE,
        use=row["capability"],
        kind="call",
        state=state,
        reason=row["reason"],
        attempts=0 if waits else row["attempt"],
        started_at=None if waits else iso(row["started_at"]),
        ended_at=iso(row["ended_at"]),
        problem=problem,
    )
    said = told(row["spec"])
    return RunView(
        id=row["run"],
        pipeline="",
        version=0,
        state=state,
        reason=row["reason"],
        created_at=iso(row["created_at"]) or "",
        started_at=node.started_at,
        ended_at=node.ended_at,
        parameters={} if listed else said.options,
        nodes=[node],
        outputs=outputs if state is RunState.COMPLETED else {},
        submitter=row["submitter"],
        problem=problem,
        labels=said.tags,
        batch=batch_of(row["run"]),
        submitted_by=said.submitted_by,
    )


def unreadable_view(row: Row, problem: Problem) -> RunView:
    """Make the view of a job whose answer cannot be read: the job itself can."""
    said: dict[str, JsonValue] = msgspec.to_builtins(problem)
    return job_view(row, {}).model_copy(update={"problem": said})


def batch_of(job: str) -> str:
    """The batch with which a job was submitted, or an empty text."""
    stem, dash, _ = job.removeprefix("job_").partition("-")
    return f"batch_{stem}" if dash else ""


def rejected_view(row: Row) -> RejectedView:
    """Make the view of a rejected record."""
    return RejectedView(
        node=row["node"],
        seq=row["seq"],
        reason=row["reason"],
        detail=row["detail"],
        position=json_of(row["position"]),
        data_class=DataClass(row["data_class"]),
    )


def explain_view(row: Row) -> ExplainView:
    """Make the view of an attempt's placement."""
    explanation = json_of(row["explanation"])
    return ExplainView(
        key=step_key(row["run"], row["node"], row["seq"]),
        attempt=row["attempt"],
        chosen=row["instance"] or None,
        reason=explanation.get("reason", ""),
        candidates=explanation.get("candidates", []),
        not_listed=explanation.get("not_listed", 0),
    )


def waiting_view(
    row: Row, *, reason: str, candidates: list[dict[str, JsonValue]], not_listed: int
) -> ExplainView:
    """Make the view of a row that waits, with who could take it."""
    return ExplainView(
        key=step_key(row["run"], row["node"], row["seq"]),
        attempt=row["placed"],
        chosen=None,
        reason=reason,
        candidates=candidates,
        not_listed=not_listed,
    )


def _run_state(state: RunState, nodes: list[NodeView]) -> tuple[RunState, str]:
    """A run waits where none of its nodes runs and one of them has a reason to wait."""
    if state.ended or any(node.state is RunState.RUNNING for node in nodes):
        return state, ""
    waiting = next((one for one in nodes if one.state is RunState.WAITING and one.reason), None)
    return (state, "") if waiting is None else (RunState.WAITING, waiting.reason)


def json_of(text: str | None) -> Any:
    """Decode JSON of a row; None where there is none."""
    return None if text is None else msgspec.json.decode(text)
