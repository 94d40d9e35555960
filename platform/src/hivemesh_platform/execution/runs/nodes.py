"""Sets the nodes of a run going and waits for their end: what the engine's steps do.

Everything is read from the ledger, so a drain that runs again goes on where the last one was.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import msgspec
import structlog
from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.pipeline import Pipeline
from hivemesh_sdk.contracts.unreadable import UNREADABLE
from hivemesh_sdk.errors import FatalError, HivemeshError, NotFoundError
from hivemesh_sdk.safeio.json import parse_json_fast
from hivemesh_sdk.safeio.problems import MalformedError
from pydantic import JsonValue

from hivemesh_platform.artifacts.errors import ArtifactDamagedError, ArtifactMissingError
from hivemesh_platform.artifacts.model import BatchRef
from hivemesh_platform.artifacts.ports import ArtifactStore
from hivemesh_platform.execution.ledger import store
from hivemesh_platform.execution.ledger.graph_sql import edges_of, lock_run
from hivemesh_platform.execution.ledger.port import Effects, Ledger, milliseconds
from hivemesh_platform.execution.ledger.signals import ends_of
from hivemesh_platform.execution.model import Output, lines_of
from hivemesh_platform.execution.plans.condition import decide, parse_condition
from hivemesh_platform.execution.plans.graph import fate
from hivemesh_platform.execution.plans.references import PARAMETERS, Room, find_references, resolve
from hivemesh_platform.execution.wakes import Wakes
from hivemesh_platform.storage.database import Database
from hivemesh_platform.storage.errors import PASSING
from hivemesh_platform.storage.transaction import Row, Transaction

INLINE_BYTES = 64 * 1024  # of an answer that is kept in its row
MAX_VALUE_BYTES = 16 * 1024 * 1024  # of an answer that is taken apart; beyond it is only handed on
WAIT_S = 30.0  # a change is signalled; this only guards against a lost signal
PASSING_S = 5.0  # before a run goes on whose database or disk could take nothing
CHILD_WAIT_S = 5.0  # its end is signalled where it happens in this process

_log = structlog.get_logger("hivemesh.execution")


class Children(Protocol):
    """Starts runs for steps, and ends those steps with what the runs gave."""

    async def start(self, run: str, name: str, options: str) -> str:
        """Start the run of a step, once; returns its id."""
        ...

    async def finish(self, run: str, name: str, child: str) -> None:
        """End a step whose run has ended."""
        ...


class NodeRunner:
    """The steps of a run's workflow."""

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        answers: "Answers",
        wakes: Wakes,
        clock: Clock,
        children: "asyncio.Future[Children]",  # known once the engine is open
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._answers = answers
        self._wakes = wakes
        self._runs = wakes.runs
        self._clock = clock
        self._children = children

    async def drain(self, run: str, node: str) -> str:
        """Set the node going, wait until it has ended, and return its state. Repeatable."""
        return await _waiting_out(run, lambda: self._drain(run, node))

    async def _drain(self, run: str, node: str) -> str:
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
                if going and row["kind"] == "pipeline":
                    await self._run_child(run, node)
                    going = False  # a step that is done afresh may wait for others once more
                    continue
                await changed.wait(WAIT_S)

    async def _run_child(self, run: str, name: str) -> None:
        """Start the run of a step that is a pipeline, wait for its end and answer for it."""
        row = await self._database.read(lambda tx: store.node(tx, run, name))
        if row is None or row["ended_at"] is not None or row["options"] is None:
            return
        children = await self._children
        try:
            child = row["child"] or await children.start(run, name, row["options"])
        except PASSING:
            raise
        except HivemeshError as error:
            await self._fail(run, name, error)
            return
        with self._runs.listen(ends_of(child)) as ended, self._runs.listen(ends_of(run)) as own:
            while not await self._has_ended(child) and not await self._node_ended(run, name):
                await _first(ended.wait(CHILD_WAIT_S), own.wait(CHILD_WAIT_S))
        await children.finish(run, name, child)

    async def _has_ended(self, run: str) -> bool:
        row = await self._database.read(lambda tx: store.run(tx, run))
        return row is None or row["ended_at"] is not None

    async def _node_ended(self, run: str, name: str) -> bool:
        row = await self._database.read(lambda tx: store.node(tx, run, name))
        return row is None or row["ended_at"] is not None

    async def close(self, run: str) -> str:
        """Return the run's state once all of its nodes have ended. Repeatable."""
        return await _waiting_out(run, lambda: self._close(run))

    async def _close(self, run: str) -> str:
        with self._runs.listen(ends_of(run)) as changed:
            while True:
                row = await self._database.read(lambda tx: store.run(tx, run))
                if row is None or row["ended_at"] is not None:
                    return "" if row is None else str(row["state"])
                await changed.wait(WAIT_S)

    async def _set_going(self, node: Row) -> bool:
        """Give the node its options if nothing is to be waited for; say whether it was done."""
        run, name = node["run"], node["name"]
        options = node["options"]
        try:
            if options is None:
                scope = await self._scope(run, name)
                if scope is None or not await self._holds(node, scope):
                    return False
                step = scope.pipeline.steps[name]
                room = Room.of_run().step(name)
                options = msgspec.json.encode(resolve(step.with_, scope.values, room)).decode()
            effects = await self._activate(node, options)
        except PASSING:
            raise
        except HivemeshError as error:
            await self._fail(run, name, error)
            return True
        self._wakes.tell(run, effects)
        self._wakes.work.give()
        return True

    async def _activate(self, node: Row, options: str) -> Effects:
        """Give the node its options, if the run has room for them beside those of its others."""
        run, name = node["run"], node["name"]
        now = milliseconds(self._clock)

        def activate(tx: Transaction) -> Effects:
            if node["options"] is None:
                lock_run(tx, run)  # two nodes of it do not find the same room
                Room.of_run().take(store.options_length(tx, run) + len(options))
            return self._ledger.activate(tx, run, name, options, now)

        return await self._database.write(activate)

    async def _scope(self, run: str, name: str) -> "_Scope | None":
        """What the node's references lead to, or None while a step it depends on has not ended."""
        found = await self._database.read(lambda tx: _run_and_nodes(tx, run, name))
        if found is None:
            return None
        row, nodes = found
        pipeline = Pipeline.model_validate_json(row["document"])
        step = pipeline.steps[name]
        roots = {text.partition(".")[0].strip() for _, text in find_references(step.with_)}
        if step.when is not None:
            condition = parse_condition(step.when)
            roots |= {one.root for one in (*condition.values(), *condition.looks())}
        values: dict[str, JsonValue] = {PARAMETERS: msgspec.json.decode(row["parameters"])}
        for other in nodes:
            if other["name"] in roots and other["ended_at"] is None:
                return None
            if other["name"] in roots and other["output"] is not None:
                values[other["name"]] = await self._answers.value(other["output"])
        return _Scope(pipeline, values, {one["name"]: one["state"] for one in nodes})

    async def _holds(self, node: Row, scope: "_Scope") -> bool:
        """Decide the node's condition, once; a false one has skipped it when this returns."""
        run, name = node["run"], node["name"]
        when = scope.pipeline.steps[name].when
        if when is None or node["decided"]:
            return True
        holds = decide(parse_condition(when), scope.values, scope.states)
        now = milliseconds(self._clock)
        effects = await self._database.write(
            lambda tx: self._ledger.decide(tx, run, name, holds=holds, now=now)
        )
        self._wakes.tell(run, effects)
        return holds

    async def _fail(self, run: str, name: str, error: HivemeshError) -> None:
        now = milliseconds(self._clock)
        problem = error.problem()
        effects = await self._database.write(
            lambda tx: self._ledger.fail_node(tx, run, name, problem, now)
        )
        self._wakes.tell(run, effects)


@dataclass(frozen=True, slots=True)
class _Scope:
    """What a node's options and condition are read against."""

    pipeline: Pipeline
    values: dict[str, JsonValue]
    states: dict[str, str]


async def _waiting_out(run: str, work: Callable[[], Awaitable[str]]) -> str:
    """Do something repeatable as soon as it can be done: a step of a workflow that fails is final."""
    while True:
        try:
            return await work()
        except PASSING as error:
            _log.error("run_waits", run_id=run, code=error.slug, detail=error.detail)
            await asyncio.sleep(PASSING_S)


async def _first(*waits: Awaitable[object]) -> None:
    """Wait for the first of some waits."""
    tasks = [asyncio.ensure_future(one) for one in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class OutputUnreadableError(FatalError):
    """What a step has answered is no value, or too large to be read as one."""

    slug = "output-invalid"


UNREADABLE_ANSWER = (OutputUnreadableError, ArtifactMissingError, ArtifactDamagedError)
"""What is wrong with one answer, and with nothing else."""


class Answers:
    """Reads the answers of unary steps, wherever they are kept."""

    def __init__(self, artifacts: ArtifactStore) -> None:
        self._artifacts = artifacts

    async def value(self, output: str | None) -> JsonValue:
        """Return the answer as a JSON value; null where there is none, a list of records of a batch.

        Raises:
            OutputUnreadableError: it is no JSON, too deep or too large.
            ArtifactMissingError, ArtifactDamagedError: it cannot be read.
        """
        kept = _kept(output)
        if kept.artifact is None:
            return _value(bytes(kept.value))
        data = await self._stored(kept.artifact)
        if kept.artifact.count:
            return [_value(line) for line in lines_of(data)]
        return _value(data)

    async def written(self, output: str | None) -> bytes:
        """Return the answer as JSON that may be put into a document as it is.

        Raises:
            OutputUnreadableError, ArtifactMissingError, ArtifactDamagedError: as `value`.
        """
        kept = _kept(output)
        if kept.artifact is None:
            return bytes(kept.value)
        data = await self._stored(kept.artifact)
        if kept.artifact.count:
            data = b"[" + b",".join(lines_of(data)) + b"]"
        _value(data)
        return data

    async def _stored(self, artifact: BatchRef) -> bytes:
        size = await self._artifacts.size(artifact.sha256) or 0
        if size > MAX_VALUE_BYTES:
            message = f"the answer has {size} bytes, and at most {MAX_VALUE_BYTES} are read at once"
            raise OutputUnreadableError(
                message, remedy="save it with `hivemesh job output` or `hivemesh run output`"
            )
        return await self._artifacts.read(artifact.sha256)

    async def keep(self, data: bytes) -> str:
        """Keep an answer that was made here: a small one as it is, another one as an artifact."""
        if len(data) <= INLINE_BYTES:
            return msgspec.json.encode(Output(value=msgspec.Raw(data))).decode()
        stored = await self._artifacts.put(data, "")
        reference = BatchRef(stored.sha256, 0, stored.size)
        return msgspec.json.encode(Output(artifact=reference)).decode()

    async def as_batch(self, output: str) -> BatchRef:
        """The records of an answer: its batch, or the one record that a call gave."""
        kept = _kept(output)
        if kept.artifact is not None and kept.artifact.count:
            return kept.artifact
        line = msgspec.json.encode(await self.value(output)) + b"\n"
        stored = await self._artifacts.put(line, "")
        return BatchRef(stored.sha256, 1, stored.size)

    async def stream(self, output: str | None) -> AsyncIterator[bytes]:
        """Yield the answer as JSON, however large it is."""
        kept = _kept(output)
        if kept.artifact is None:
            yield bytes(kept.value)
            return
        size = await self._artifacts.size(kept.artifact.sha256) or 0
        async for chunk in self._artifacts.read_range(kept.artifact.sha256, 0, size):
            yield chunk


def is_large(output: str | None) -> bool:
    """Whether an answer is kept as an artifact."""
    return _kept(output).artifact is not None


def _kept(output: str | None) -> Output:
    try:
        return msgspec.json.decode(output or "{}", type=Output)
    except UNREADABLE as error:
        message = f"the answer as it is kept is no JSON: {error}"
        raise OutputUnreadableError(message) from error


def _value(data: bytes) -> JsonValue:
    try:
        return parse_json_fast(data, name="the answer")
    except MalformedError as error:
        raise OutputUnreadableError(error.detail) from error


def _run_and_nodes(tx: Transaction, run: str, name: str) -> tuple[Row, list[Row]] | None:
    """Return a run and its nodes, or None while something that the node waits for has not ended."""
    row = store.run(tx, run)
    if row is None:
        message = f"there is no run {run!r}"
        raise NotFoundError(message)
    if fate(edges_of(tx, run, name)).waits:
        return None
    return row, store.nodes(tx, run)
