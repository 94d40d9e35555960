"""Sets the nodes of a run going and waits for their end: what the engine's steps do.

Everything is read from the ledger, so a drain that runs again goes on where the last one was.
"""

import msgspec
from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.pipeline import Pipeline
from hivemesh_sdk.errors import HivemeshError, NotFoundError
from pydantic import JsonValue

from hivemesh_platform.artifacts.ports import ArtifactStore
from hivemesh_platform.execution import store
from hivemesh_platform.execution.counters import ExecutionCounters
from hivemesh_platform.execution.ledger import Ledger
from hivemesh_platform.execution.model import Output
from hivemesh_platform.execution.parts import milliseconds
from hivemesh_platform.execution.references import PARAMETERS, find_references, resolve
from hivemesh_platform.execution.signals import RunSignals, Signal, ends_of
from hivemesh_platform.storage.database import Database
from hivemesh_platform.storage.transaction import Row, Transaction

WAIT_S = 30.0  # a change is signalled; this only guards against a lost signal


class NodeRunner:
    """The steps of a run's workflow."""

    def __init__(  # noqa: PLR0913, PLR0917 - what it is made of
        self,
        database: Database,
        ledger: Ledger,
        answers: "Answers",
        work: Signal,
        runs: RunSignals,
        counters: ExecutionCounters,
        clock: Clock,
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._answers = answers
        self._work = work
        self._runs = runs
        self._counters = counters
        self._clock = clock

    async def drain(self, run: str, node: str) -> str:
        """Set the node going, wait until it has ended, and return its state. Repeatable."""
        going = False
        with self._runs.listen(ends_of(run)) as changed:
            while True:
                row = await self._database.read(lambda tx: store.node(tx, run, node))
                if row is None:
                    message = f"{run} has no node {node!r}"
                    raise NotFoundError(message)
                if row["ended_at"] is not None:
                    return str(row["state"])
                going = going or await self._set_going(row)
                await changed.wait(WAIT_S)

    async def close(self, run: str) -> str:
        """Return the run's state once all of its nodes have ended. Repeatable."""
        with self._runs.listen(ends_of(run)) as changed:
            while True:
                row = await self._database.read(lambda tx: store.run(tx, run))
                if row is None or row["ended_at"] is not None:
                    return "" if row is None else str(row["state"])
                await changed.wait(WAIT_S)

    async def _set_going(self, node: Row) -> bool:
        """Give the node its options if what they refer to is known; say whether it has them."""
        run, name = node["run"], node["name"]
        options = node["options"]
        if options is None:
            try:
                resolved = await self._resolve(run, name)
            except HivemeshError as error:
                await self._fail(run, name, error)
                return True
            if resolved is None:
                return False
            options = msgspec.json.encode(resolved).decode()
        now = milliseconds(self._clock)
        await self._database.write(lambda tx: self._ledger.activate(tx, run, name, options, now))
        self._work.give()
        return True

    async def _resolve(self, run: str, name: str) -> JsonValue | None:
        """Return the node's options, or None while a step it refers to has not ended."""
        row, nodes = await self._database.read(lambda tx: _run_and_nodes(tx, run))
        step = Pipeline.model_validate_json(row["document"]).steps[name]
        roots = {text.partition(".")[0].strip() for _, text in find_references(step.with_)}
        scope: dict[str, JsonValue] = {PARAMETERS: msgspec.json.decode(row["parameters"])}
        for other in nodes:
            if other["name"] in roots:
                if other["ended_at"] is None:
                    return None
                scope[other["name"]] = await self._answers.value(other["output"])
        return resolve(step.with_, scope)

    async def _fail(self, run: str, name: str, error: HivemeshError) -> None:
        now = milliseconds(self._clock)
        problem = error.problem()
        effects = await self._database.write(
            lambda tx: self._ledger.fail_node(tx, run, name, problem, now)
        )
        self._counters.open_runs.difference_update(effects.ended_runs)
        self._runs.give_end(run)


class Answers:
    """Reads the answers of unary steps, wherever they are kept."""

    def __init__(self, artifacts: ArtifactStore) -> None:
        self._artifacts = artifacts

    async def value(self, output: str | None) -> JsonValue:
        """Return the answer as a JSON value; null where there is none."""
        data = await self.data(output)
        answer: JsonValue = msgspec.json.decode(data)
        return answer

    async def data(self, output: str | None) -> bytes:
        """Return the answer as JSON."""
        if output is None:
            return b"null"
        kept = msgspec.json.decode(output, type=Output)
        if kept.artifact is not None:
            return await self._artifacts.read(kept.artifact.sha256)
        return bytes(kept.value)


def _run_and_nodes(tx: Transaction, run: str) -> tuple[Row, list[Row]]:
    row = store.run(tx, run)
    if row is None:
        message = f"there is no run {run!r}"
        raise NotFoundError(message)
    return row, store.nodes(tx, run)
