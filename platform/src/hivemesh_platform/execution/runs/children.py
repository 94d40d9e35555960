"""Runs that are steps of other runs: started with what their parent may hand on, and answered for.

A child is a run of its own, with its own events. It is started once for its step, in the
transaction that writes its name there, so a drain that runs again finds it.
"""

import msgspec
import structlog
from hivemesh_sdk.contracts.api import RunState
from hivemesh_sdk.contracts.artifacts import DataClass, highest
from hivemesh_sdk.contracts.pipeline import Pipeline
from hivemesh_sdk.contracts.problems import Problem, problem
from hivemesh_sdk.errors import InvalidError, NotAuthorizedError
from pydantic import JsonValue

from hivemesh_platform.artifacts import store as store_of_artifacts
from hivemesh_platform.execution.behalf import Behalf, effective
from hivemesh_platform.execution.ledger import store
from hivemesh_platform.execution.ledger.graph_sql import lock_run
from hivemesh_platform.execution.ledger.port import Effects, milliseconds
from hivemesh_platform.execution.plans.given import Given, given_by
from hivemesh_platform.execution.plans.plan import bind_parameters, secret_uses
from hivemesh_platform.execution.plans.references import BrokenReferenceError, look_up, parse_path
from hivemesh_platform.execution.plans.spec import artifact_digests
from hivemesh_platform.execution.runs.nodes import UNREADABLE_ANSWER
from hivemesh_platform.execution.runs.service import Accepted, Demands, RunParts, RunService
from hivemesh_platform.ids import new_run_id
from hivemesh_platform.storage.transaction import Row, Transaction

_log = structlog.get_logger("hivemesh.execution")


class NotHandedOnError(NotAuthorizedError):
    """A step would hand on an artifact to which its run has no right."""

    slug = "not-authorized"


class ChildRuns:
    """Starts the runs of steps that are pipelines, and ends those steps."""

    def __init__(self, parts: RunParts, runs: RunService) -> None:
        self._parts = parts
        self._runs = runs

    async def start(self, run: str, name: str, options: str) -> str:
        """Start the run of a step, once; returns its id.

        Nothing is returned where the step has ended, or no longer has these options.

        Raises:
            InvalidError: the pipeline is not valid, or its parameters are not.
            NotFoundError: there is no such pipeline.
            NotHandedOnError: an artifact would be handed on that is not the run's.
        """
        parent, node = await self._parts.database.read(lambda tx: _step(tx, run, name))
        if node["child"] or node["ended_at"] is not None:
            return str(node["child"])
        given = msgspec.json.decode(options)
        await self._check_handed(parent, given)
        nested = await self._parts.pipelines.nested(node["capability"], parent["tenant"])
        behalf = msgspec.json.decode(node["behalf"], type=Behalf)
        if not isinstance(given, dict):
            message = "the parameters of a pipeline are an object"
            raise InvalidError(message)
        demands = Demands(nested.plan, nested.author, bind_parameters(nested.plan.pipeline, given))
        await self._parts.secrets.refuse(secret_uses(nested.plan), effective(behalf, nested.author))
        accepted = Accepted(
            run=new_run_id(),
            plan=nested.plan,
            parameters=demands.parameters,
            labels=msgspec.json.decode(parent["labels"]),
            submitter=behalf,
            author=nested.author,
            data_class=DataClass(node["data_class"]),
            folders=await self._runs.folders(demands.given()),
            now=milliseconds(self._parts.clock),
            parent=(run, name, int(parent["depth"]) + 1),
        )
        child = await self._parts.database.write(
            lambda tx: self._accept(tx, accepted, run, name, options)
        )
        if child == accepted.run:
            _log.info("child_accepted", run_id=child, parent=run, node=name)
            self._parts.runs.give(run)
            await self._runs.submit(child, [one.name for one in nested.plan.nodes])
        return child

    def _accept(
        self, tx: Transaction, accepted: Accepted, run: str, name: str, options: str
    ) -> str:
        lock_run(tx, run)  # a cancel either finds the child or is found here
        _, node = _step(tx, run, name)
        if node["child"] or node["ended_at"] is not None or node["options"] != options:
            return str(node["child"])
        self._runs.accept(tx, accepted)
        tx.execute(
            """UPDATE node SET child = ?, state = 'running', attempts = attempts + 1,
                      started_at = coalesce(started_at, ?) WHERE run = ? AND name = ?""",
            (accepted.run, accepted.now, run, name),
        )
        tx.execute(
            """UPDATE run SET state = 'running', started_at = coalesce(started_at, ?)
                WHERE id = ? AND state = 'queued'""",
            (accepted.now, run),
        )
        return accepted.run

    async def finish(self, run: str, name: str, child: str) -> None:
        """End a step whose run has ended: with its outputs, or with its problem.

        A run that is no longer the step's says nothing: the step is done afresh.
        """
        row, nodes = await self._parts.database.read(
            lambda tx: (store.run(tx, child), store.nodes(tx, child))
        )
        if row is None or row["ended_at"] is None:
            return
        _, node = await self._parts.database.read(lambda tx: _step(tx, run, name))
        state = RunState(row["state"])
        now, ledger = milliseconds(self._parts.clock), self._parts.ledger
        wrong = _problem_of(row, nodes, DataClass(node["output_class"]))
        outputs = b""
        try:
            if wrong is None:
                outputs = await self._outputs(row, nodes)
        except UNREADABLE_ANSWER as error:
            wrong = error.problem()
        output = "" if wrong is not None else await self._parts.answers.keep(outputs)

        def end(tx: Transaction) -> Effects:
            lock_run(tx, run)
            if _step(tx, run, name)[1]["child"] != child:
                return Effects()
            if wrong is not None:
                return ledger.fail_node(tx, run, name, wrong, now)
            return ledger.answer_node(tx, run, name, output, state, now)

        self._wake(run, await self._parts.database.write(end))

    async def _outputs(self, row: Row, nodes: list[Row]) -> bytes:
        """What the child gives: values as they are, datasets by name and version."""
        by_name = {node["name"]: node for node in nodes}
        found: dict[str, JsonValue] = {}
        for output, path in Pipeline.model_validate_json(row["document"]).outputs.items():
            reference = parse_path(path)
            node = by_name[reference.root]
            if node["dataset"]:
                found[output] = {"dataset": node["dataset"], "version": node["dataset_version"]}
            elif node["output"] is not None:
                value = await self._parts.answers.value(node["output"])
                try:
                    found[output] = look_up(reference, {reference.root: value})
                except BrokenReferenceError:  # as for the outputs of any run: it is not there
                    continue
        return msgspec.json.encode(found)

    async def _check_handed(self, parent: Row, options: JsonValue) -> None:
        """Hand on only what the parent was given or has made; a folder with all that is in it."""
        named, trees = artifact_digests(options)
        digests = set(named)
        for tree in trees:
            digests |= await self._parts.trees.entries(tree)
        if not digests:
            return
        given = _given(parent)
        had = set(given.digests)
        for tree in given.trees:
            had |= await self._parts.trees.entries(tree)
        foreign = await self._parts.database.read(
            lambda tx: [
                one
                for one in sorted(digests)
                if one not in had and not store_of_artifacts.stored_by_run(tx, parent["id"], one)
            ]
        )
        if foreign:
            message = (
                f"the artifact {foreign[0]} was neither given to {parent['id']} nor made by it"
            )
            raise NotHandedOnError(message)

    def _wake(self, run: str, effects: Effects) -> None:
        self._parts.wakes.tell(run, effects)
        self._parts.work.give()


def _step(tx: Transaction, run: str, name: str) -> tuple[Row, Row]:
    row, node = store.run(tx, run), store.node(tx, run, name)
    if row is None or node is None:
        message = f"{run} has no step {name!r}"
        raise AssertionError(message)
    return row, node


def _given(parent: Row) -> Given:
    steps = Pipeline.model_validate_json(parent["document"]).steps
    options: dict[str, JsonValue] = {name: one.with_ for name, one in steps.items()}
    return given_by(options, msgspec.json.decode(parent["parameters"]))


def _problem_of(row: Row, nodes: list[Row], limit: DataClass) -> Problem | None:
    if row["state"] in {"failed", "cancelled"}:
        if row["problem"] is not None:
            return msgspec.json.decode(row["problem"], type=Problem)
        return problem("cancelled", f"{row['id']} was {row['state']}")
    found = highest(DataClass(node["output_class"]) for node in nodes)
    if found.exceeds(limit):
        return problem("data-class-exceeded", f"{row['id']} gives {found} data, not {limit}")
    return None
