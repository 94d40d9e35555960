"""Runs: started, shown, followed, cancelled, and their outputs read."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import msgspec
import structlog
from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.api import ExplainView, RejectedView, RunRequest, RunView
from hivemesh_sdk.contracts.artifacts import DataClass, highest
from hivemesh_sdk.contracts.names import NDJSON_MEDIA_TYPE
from hivemesh_sdk.contracts.pipeline import Pipeline
from hivemesh_sdk.errors import ConflictError, InvalidError, NotFoundError
from pydantic import JsonValue

from hivemesh_platform import crash
from hivemesh_platform.access.model import Principal
from hivemesh_platform.artifacts.store import known_classes
from hivemesh_platform.artifacts.streams import begun
from hivemesh_platform.artifacts.trees import Trees
from hivemesh_platform.execution.behalf import Behalf, effective
from hivemesh_platform.execution.held import HeldSteps, Verdict
from hivemesh_platform.execution.ledger import store
from hivemesh_platform.execution.ledger.again_sql import goes_without
from hivemesh_platform.execution.ledger.counters import ExecutionCounters
from hivemesh_platform.execution.ledger.limit_rules import key_of
from hivemesh_platform.execution.ledger.mended import Mended
from hivemesh_platform.execution.ledger.mended import found as letters_mended
from hivemesh_platform.execution.ledger.port import Effects, Ledger, NewNode, NewRun, milliseconds
from hivemesh_platform.execution.ledger.signals import RunSignals, Signal, ends_of
from hivemesh_platform.execution.ledger.submit_sql import SubmitKey
from hivemesh_platform.execution.ledger.submits import Submits
from hivemesh_platform.execution.plans.condition import parse_condition
from hivemesh_platform.execution.plans.given import Given, filled, given_by
from hivemesh_platform.execution.plans.plan import (
    Node,
    Plan,
    bind_parameters,
    options_of,
    secret_uses,
)
from hivemesh_platform.execution.plans.policies import policy_of
from hivemesh_platform.execution.plans.references import (
    PARAMETERS,
    Room,
    look_up,
    parse_path,
    resolve,
)
from hivemesh_platform.execution.plans.spec import artifact_digests
from hivemesh_platform.execution.rights.classes import Classes, check_clearances, classes_of
from hivemesh_platform.execution.rights.secrets import SecretGate
from hivemesh_platform.execution.runs import subjects, views
from hivemesh_platform.execution.runs.engine import RunEngine
from hivemesh_platform.execution.runs.explanations import Explanations
from hivemesh_platform.execution.runs.nodes import UNREADABLE_ANSWER, Answers, is_large
from hivemesh_platform.execution.runs.pipelines import PipelineService
from hivemesh_platform.execution.runs.subjects import RunSubject, no_run
from hivemesh_platform.execution.runs.views import RunEvent
from hivemesh_platform.execution.wakes import Wakes
from hivemesh_platform.ids import new_run_id
from hivemesh_platform.knowledge.model import NewVersion
from hivemesh_platform.knowledge.service import DatasetService, DatasetWriter
from hivemesh_platform.settings import ExecutionSettings
from hivemesh_platform.storage.database import Database
from hivemesh_platform.storage.transaction import Row, Transaction

JSON = "application/json"
SUBMIT_AGAIN_S = 5.0
GATHER_S = 0.25  # a view of a running run costs milliseconds, and batches end by the dozen

_log = structlog.get_logger("hivemesh.execution")


class RunEndedError(ConflictError):
    """The run has ended already."""

    slug = "run-ended"


class NothingMissingError(ConflictError):
    """The run has gone on without nothing."""

    slug = "nothing-missing"


class OutputMissingError(NotFoundError):
    """The run has no such output, or not yet."""

    slug = "output-missing"


@dataclass(frozen=True, slots=True)
class OutputStream:
    """The bytes of an output."""

    media_type: str
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class Demands:
    """What a run would do, and what it is given."""

    plan: Plan
    author: Behalf | None  # of a stored pipeline
    parameters: dict[str, JsonValue]

    def given(self) -> Given:
        """The artifacts that its steps and parameters name."""
        return given_by(options_of(self.plan), self.parameters)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunParts:
    """What the services of runs and jobs are made of."""

    database: Database
    trees: Trees
    ledger: Ledger
    engine: RunEngine
    pipelines: PipelineService
    datasets: DatasetService
    writer: DatasetWriter
    answers: Answers
    secrets: SecretGate
    held: HeldSteps
    wakes: Wakes
    work: Signal
    runs: RunSignals
    counters: ExecutionCounters
    settings: ExecutionSettings
    clock: Clock
    submits: Submits
    explanations: Explanations


class RunService:
    """What the API offers on runs; jobs are shown with them."""

    def __init__(self, parts: RunParts) -> None:
        self._parts = parts
        self._unsubmitted: dict[str, tuple[list[str], int]] = {}

    async def start(
        self,
        request: RunRequest,
        submitter: Behalf,
        demands: Demands | None = None,
        key: str = "",
    ) -> RunView:
        """Accept a run: durable when this returns, and it goes on after any restart.

        `demands` are those that were decided about: that very version of the pipeline runs. The
        same request under the same `key` means the same run.

        Raises:
            InvalidError: the pipeline or a parameter is not valid.
            NotFoundError: there is no such pipeline.
            OtherBodyError, InFlightError: the key was used for something else, or is in use.
        """
        kept = self._parts.submits.key(key, "run", request, submitter)
        with self._parts.submits.accepting(kept):
            earlier = await self._parts.submits.earlier(kept)
            if earlier is not None:
                return await self.get(earlier)
            return await self._start(request, submitter, demands, kept)

    async def _start(
        self,
        request: RunRequest,
        submitter: Behalf,
        demands: Demands | None,
        key: SubmitKey | None,
    ) -> RunView:
        if demands is None:
            demands = await self.demands(request, submitter.tenant)
        plan, author, parameters = demands.plan, demands.author, demands.parameters
        await self.refuse_secrets(plan, effective(submitter, author))
        folders = await self.folders(demands.given())
        run = new_run_id()
        crash.reach("accept.before")
        accepted = Accepted(
            run=run,
            plan=plan,
            parameters=parameters,
            labels=request.labels,
            submitter=submitter,
            author=author,
            data_class=request.data_class,
            folders=folders,
            now=milliseconds(self._parts.clock),
            priority=request.priority,
        )

        def accept(tx: Transaction) -> str | None:
            earlier = self._parts.submits.keep(tx, key, run)
            if earlier is None:
                self.accept(tx, accepted)
            return earlier

        earlier = await self._parts.database.write(accept)
        crash.reach("accept.after")
        if earlier is not None:  # another replica has accepted it meanwhile
            return await self.get(earlier)
        await self.submit(run, [node.name for node in plan.nodes])
        _log.info("run_accepted", run_id=run, pipeline=plan.pipeline.metadata.name)
        return await self.get(run)

    async def refuse_secrets(self, plan: Plan, behalf: Behalf) -> None:
        """Refuse secrets that may not be used, of the pipelines within it too."""
        await self._parts.secrets.refuse(secret_uses(plan), behalf)
        for node in plan.nodes:
            if node.nested is not None:
                within = effective(behalf, node.nested.author)
                await self.refuse_secrets(node.nested.plan, within)

    async def demands_of(self, run: str) -> Demands:
        """Return what a run did, for those who decide whether it may be done again.

        Raises:
            NotFoundError: there is no such run.
            InvalidError: its pipeline does not fit what is installed now.
        """
        row = await self._parts.database.read(lambda tx: store.run(tx, run))
        if row is None:
            raise no_run(run)
        document = Pipeline.model_validate_json(row["document"])
        plan = await self._parts.pipelines.plan(document, row["tenant"])
        author = msgspec.json.decode(row["behalf"], type=Behalf)
        return Demands(plan, author, msgspec.json.decode(row["parameters"]))

    async def backfill(self, run: str, submitter: Behalf) -> RunView:
        """Start a run that gives what another one went without; the rest is taken from that one.

        What jobs have given for its dead letters belongs to that.

        Raises:
            NotFoundError: there is no such run.
            NothingMissingError: it has not ended, or went without nothing.
        """
        view = await self.get(run)
        mended = await self._mended(run)
        if not view.state.ended or not (view.missing or mended):
            raise _nothing_missing(run, view.state)
        demands = await self.demands_of(run)
        behalf = effective(submitter, demands.author)
        await self._parts.secrets.refuse(secret_uses(demands.plan), behalf)
        row = await self._parts.database.read(lambda tx: store.run(tx, run))
        accepted = Accepted(
            run=new_run_id(),
            plan=demands.plan,
            parameters=demands.parameters,
            labels=view.labels,
            submitter=submitter,
            author=demands.author,
            data_class=DataClass.INTERNAL if row is None else DataClass(row["data_class"]),
            folders=await self.folders(demands.given()),
            now=milliseconds(self._parts.clock),
            backfill_of=run,
        )

        def accept(tx: Transaction) -> Effects:
            if not goes_without(tx, run):  # meanwhile somebody has retried or removed it
                raise _nothing_missing(run)
            self.accept(tx, accepted)
            return self._parts.ledger.take_over(tx, run, accepted.run, accepted.now, mended=mended)

        effects = await self._parts.database.write(accept)
        self._parts.wakes.tell(accepted.run, effects)
        _log.info("run_backfills", run_id=accepted.run, of=run)
        self._parts.work.give()
        await self.submit(accepted.run, [node.name for node in demands.plan.nodes])
        return await self.get(accepted.run)

    async def _mended(self, run: str) -> list[Mended]:
        answered = await self._parts.database.read(lambda tx: letters_mended(tx, run))
        keep = self._parts.answers.as_batch
        return [Mended(one.letter, one.node, one.job, await keep(one.output)) for one in answered]

    async def reconcile(self) -> None:
        """Start the workflows of runs that were accepted and never started."""
        for run, turn, nodes in await self._parts.database.read(store.unfinished):
            self._parts.counters.open_runs.add(run)
            if not await self._parts.engine.is_known(run, turn):
                _log.info("run_reconciled", run_id=run)
                await self.submit(run, nodes, turn)

    async def keep_submitting(self) -> None:
        """Try again, until cancelled, to start the workflows that could not be started."""
        while True:
            await asyncio.sleep(SUBMIT_AGAIN_S)
            for run, (nodes, turn) in list(self._unsubmitted.items()):
                await self.submit(run, nodes, turn)

    async def submit(self, run: str, nodes: list[str], turn: int = 0) -> None:
        """Start a workflow; the run is accepted, so a failure only delays it."""
        self._parts.counters.open_runs.add(run)
        try:
            await self._parts.engine.submit(run, nodes, turn)
        except Exception:  # noqa: BLE001 - logged, and tried again
            _log.exception("run_not_started", run_id=run)
            self._unsubmitted[run] = nodes, turn
        else:
            self._unsubmitted.pop(run, None)

    async def get(self, run: str) -> RunView:
        """Return a run or a job.

        Raises:
            NotFoundError: there is none.
        """
        found = await self._parts.database.read(lambda tx: _read(tx, run))
        if found is None:
            raise no_run(run)
        return await self._view(found)

    async def document(self, run: str) -> RunView | bytes:
        """Return a run or a job; as JSON where a job's answer is long: views of it take seconds.

        Raises:
            NotFoundError: there is none.
        """
        found = await self._parts.database.read(lambda tx: _read(tx, run))
        if found is None:
            raise no_run(run)
        row = found.nodes[0] if found.run is None else None
        if row is None or row["state"] != "completed":
            return await self._view(found)
        try:
            if not is_large(row["output"]):
                return await self._view(found)
            answer = await self._parts.answers.written(row["output"])
        except UNREADABLE_ANSWER as error:
            return views.unreadable_view(row, error.problem())
        document = views.job_view(row, {}).model_dump(mode="json")
        return msgspec.json.encode({**document, "outputs": {"result": msgspec.Raw(answer)}})

    async def subject(self, run: str) -> RunSubject:
        """Return what those who decide about a run or job need to know of it.

        Raises:
            NotFoundError: there is none.
        """
        found = await self._parts.database.read(lambda tx: subjects.find(tx, run))
        if found is None:
            raise no_run(run)
        return found

    async def page(
        self,
        before: str,
        limit: int,
        principal: Principal,
        filters: subjects.Filters = subjects.ALL,
    ) -> list[RunView]:
        """Return the runs and jobs that the principal may see, newest first.

        An answer that is kept as an artifact is read with its job alone.
        """
        found = await self._parts.database.read(
            lambda tx: [
                _read(tx, run) for run in subjects.newest(tx, principal, before, limit, filters)
            ]
        )
        return [await self._view(one, listed=True) for one in found if one is not None]

    def answer_waiting(self) -> None:
        """Let `changes` answer at once all who wait: the platform ends."""
        self._parts.runs.give_all()

    async def changes(self, run: str, after: int, wait_s: float) -> tuple[int, RunView]:
        """Return the run and its version, soon if that is above `after` or the run has ended.

        Who follows a run asks again at once, so changes are gathered for a moment.

        Raises:
            NotFoundError: there is none.
        """
        with (
            self._parts.runs.listen(ends_of(run)) as ended,
            self._parts.runs.listen(run) as changed,
        ):
            version = self._parts.runs.version(run)
            view = await self.get(run)
            if view.state.ended or not after:
                return version, view
            if version <= after:
                await changed.wait(wait_s)
            await ended.wait(GATHER_S)
        version = self._parts.runs.version(run)
        return version, await self.get(run)

    async def cancel(self, run: str) -> RunView:
        """Cancel a run or job.

        Raises:
            NotFoundError: there is none.
            RunEndedError: it has ended already.
        """
        view = await self.get(run)
        if view.state.ended:
            message = f"{run} is {view.state}"
            raise RunEndedError(message)
        now = milliseconds(self._parts.clock)
        effects = await self._parts.database.write(
            lambda tx: self._parts.ledger.cancel(tx, run, now)
        )
        for ended in dict.fromkeys((*effects.ended_runs, run)):
            await self._stop(ended)
        return await self.get(run)

    async def _stop(self, run: str) -> None:
        """End what is going on of a run that was cancelled."""
        self._parts.counters.open_runs.discard(run)
        for step in self._parts.held.of_run(run):
            step.end(Verdict.CANCELLED)
        self._parts.held.drop_job(run)
        row = await self._parts.database.read(lambda tx: store.run(tx, run))
        for turn in range(0 if row is None else int(row["turn"]) + 1):
            await self._parts.engine.cancel(run, turn)
        self._parts.runs.give_end(run)

    async def output(self, run: str, name: str) -> OutputStream:
        """Open an output: NDJSON for a dataset, JSON for a value.

        Raises:
            NotFoundError: there is no such run.
            OutputMissingError: there is no such output yet.
        """
        found = await self._parts.database.read(lambda tx: _read(tx, run))
        if found is None:
            raise no_run(run)
        if found.run is None:
            return await self._job_output(found.nodes[0], name)
        pipeline = Pipeline.model_validate_json(found.run["document"])
        if name not in pipeline.outputs:
            known = ", ".join(pipeline.outputs) or "none"
            message = f"{run} has no output {name!r}; it has: {known}"
            raise OutputMissingError(message)
        return await self._run_output(found, pipeline.outputs[name])

    async def dataset_of(self, run: str, output: str) -> str:
        """Return the name of the dataset that an output of a run is, or an empty text."""
        found = await self._parts.database.read(lambda tx: _read(tx, run))
        if found is None or found.run is None:
            return ""
        path = Pipeline.model_validate_json(found.run["document"]).outputs.get(output, "")
        return next((str(one["dataset"]) for one in found.nodes if one["name"] == path), "")

    async def rejected(self, run: str, after: int, limit: int) -> list[RejectedView]:
        """Return the records that were refused, behind an offset."""
        rows = await self._parts.database.read(lambda tx: store.rejected(tx, run, after, limit))
        return [views.rejected_view(row) for row in rows]

    async def explain(self, run: str, after: int, limit: int) -> list[ExplainView]:
        """Return why each attempt was placed where it was, behind an offset; then what waits, and why."""
        return await self._parts.explanations.of(run, after, limit)

    async def events(self, run: str, after: int, limit: int, wait_s: float) -> list[RunEvent]:
        """Return entries of the run's log behind a number, at once if there are any.

        Raises:
            NotFoundError: there is no such run or job.
        """
        with self._parts.runs.listen(run) as changed:
            found = await self._events(run, after, limit)
            if not found and not (await self.get(run)).state.ended:
                await changed.wait(wait_s)
                found = await self._events(run, after, limit)
        return found

    async def _events(self, run: str, after: int, limit: int) -> list[RunEvent]:
        rows = await self._parts.database.read(lambda tx: store.events(tx, run, after, limit))
        return [views.event(row) for row in rows]

    async def demands(self, request: RunRequest, tenant: str) -> Demands:
        """Return what a request would run, for those who decide whether it may.

        Raises:
            InvalidError: the pipeline or a parameter is not valid.
            NotFoundError: there is no such pipeline.
        """
        plan, author = await self._plan(request, tenant)
        return Demands(plan, author, bind_parameters(plan.pipeline, request.parameters))

    async def folders(self, given: Given) -> dict[str, frozenset[str]]:
        """Name what the folders hold that are given."""
        return {tree: await self._parts.trees.entries(tree) for tree in sorted(given.trees)}

    async def _plan(self, request: RunRequest, tenant: str) -> tuple[Plan, Behalf | None]:
        if (request.pipeline is None) == (request.document is None):
            message = "give either `pipeline` (a name) or `document` (a whole pipeline)"
            raise InvalidError(message)
        if request.document is not None:
            return await self._parts.pipelines.check(request.document, tenant), None
        known = await self._parts.pipelines.get(request.pipeline or "", tenant)
        return await self._parts.pipelines.plan(known.document, tenant), known.author

    def accept(self, tx: Transaction, accepted: "Accepted") -> None:
        """Write a run that is valid, inside a transaction."""
        pipeline = accepted.plan.pipeline
        parameters, classes = _classes(tx, accepted)
        room = Room.of_run()
        new = NewRun(
            id=accepted.run,
            pipeline=pipeline.metadata.name,
            version=pipeline.metadata.version,
            document=pipeline.model_dump_json(by_alias=True),
            parameters=msgspec.json.encode(accepted.parameters).decode(),
            labels=msgspec.json.encode(accepted.labels).decode(),
            submitter=accepted.submitter.sub,
            behalf=effective(accepted.submitter, accepted.author),
            data_class=parameters,
            priority=_priority(accepted),
            backfill_of=accepted.backfill_of,
            parent=accepted.parent,
            nodes=[
                self._node(
                    tx,
                    accepted,
                    node,
                    position,
                    classes[node.name],
                    room.step(node.name),
                )
                for position, node in enumerate(accepted.plan.nodes)
            ],
        )
        self._parts.ledger.add_run(tx, new, accepted.now)

    def _node(
        self,
        tx: Transaction,
        accepted: "Accepted",
        node: Node,
        position: int,
        classes: Classes,
        room: Room,
    ) -> NewNode:
        version = 0
        if node.dataset:
            version = self._open_dataset(tx, accepted, node, classes.output)
        options = None
        if node.begins_at_once:
            options = msgspec.json.encode(
                resolve(node.step.with_, {PARAMETERS: accepted.parameters}, room)
            )
        deadline_s = node.step.deadline_s
        if deadline_s is None:
            deadline_s = 0.0 if node.kind == "source" else node.declared.timeout_s
        return NewNode(
            name=node.name,
            position=position,
            capability=node.step.use,
            kind=node.kind,
            upstream=node.upstream,
            options=None if options is None else options.decode(),
            labels=msgspec.json.encode(node.step.labels).decode(),
            policy=policy_of(node.declared, self._parts.settings, node.step.retry),
            deadline_ms=round(deadline_s * 1000),
            idle_timeout_ms=round(
                (node.step.idle_timeout_s or node.declared.idle_timeout_s) * 1000
            ),
            dataset=node.dataset,
            dataset_version=version,
            data_class=classes.inputs,
            output_class=classes.output,
            edges=node.edges,
            condition=_shown_condition(node),
            on_error=node.step.on_error,
            optional=node.step.optional,
            gives=node.gives,
            priority=node.step.priority,
            limit_key=key_of(accepted.submitter.tenant, node.step.concurrency_key),
        )

    def _open_dataset(
        self, tx: Transaction, accepted: "Accepted", node: Node, data_class: DataClass
    ) -> int:
        metadata = accepted.plan.pipeline.metadata
        provenance: dict[str, JsonValue] = {
            "pipeline": metadata.name,
            "pipeline_version": metadata.version,
            "capability": node.step.use,
        }
        new = NewVersion(
            name=node.dataset,
            run=accepted.run,
            node=node.name,
            provenance=provenance,
            tenant=accepted.submitter.tenant,
            data_class=data_class,
        )
        return self._parts.writer.open(tx, new, accepted.now)

    async def _view(self, found: "_Found", *, listed: bool = False) -> RunView:
        if found.run is None:
            row = found.nodes[0]
            try:
                if listed and is_large(row["output"]):
                    return views.job_view(row, {}, listed=True)
                result = await self._parts.answers.value(row["output"])
            except UNREADABLE_ANSWER as error:
                return views.unreadable_view(row, error.problem())
            return views.job_view(row, {"result": result}, listed=listed)
        return views.run_view(found.run, found.nodes, _outputs(found))

    async def _job_output(self, row: Row, name: str) -> OutputStream:
        if name != "result" or row["state"] != "completed":
            message = f"the job has no output {name!r} yet; it is {row['state']}"
            raise OutputMissingError(message)
        return OutputStream(JSON, await begun(self._parts.answers.stream(row["output"])))

    async def _run_output(self, found: "_Found", path: str) -> OutputStream:
        reference = parse_path(path)
        node = next(one for one in found.nodes if one["name"] == reference.root)
        if node["dataset"]:
            version = await self._parts.datasets.get(
                node["dataset"], node["dataset_version"], node["tenant"]
            )
            chunks = await begun(self._parts.datasets.records(version))
            return OutputStream(NDJSON_MEDIA_TYPE, chunks)
        if node["output"] is None:
            message = f"the step {reference.root!r} has no answer yet; it is {node['state']}"
            raise OutputMissingError(message)
        if not reference.fields:
            return OutputStream(JSON, await begun(self._parts.answers.stream(node["output"])))
        scope = {reference.root: await self._parts.answers.value(node["output"])}
        value = look_up(reference, scope)
        return OutputStream(JSON, _once(msgspec.json.encode(value)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A run whose pipeline and parameters are valid."""

    run: str
    plan: Plan
    parameters: dict[str, JsonValue]
    labels: dict[str, str]
    submitter: Behalf
    author: Behalf | None  # of a stored pipeline
    data_class: DataClass  # of the parameters, as it was said
    folders: dict[str, frozenset[str]]  # what the folders hold that are given to it
    now: int
    priority: int | None = None
    backfill_of: str = ""
    parent: tuple[str, str, int] = ("", "", 0)  # run, step, and how deep below the first run


@dataclass(frozen=True, slots=True)
class _Found:
    """A run with its nodes, or (without run) a job's row."""

    run: Row | None
    nodes: list[Row]
    datasets: dict[str, Row]


def _nothing_missing(run: str, state: str = "") -> NothingMissingError:
    is_ = f"is {state} and " if state else ""
    return NothingMissingError(
        f"{run} {is_}has gone on without nothing, and no dead letter of it was mended"
    )


def _classes(tx: Transaction, accepted: Accepted) -> tuple[DataClass, dict[str, Classes]]:
    """The class of the parameters, and those of every node.

    Raises:
        DataClassError: a capability would be given more than it is cleared for.
    """
    plan = accepted.plan
    bound = accepted.parameters
    given = artifact_digests(bound)[0]
    known_options = filled(options_of(plan), bound)
    named = {name: artifact_digests(one)[0] for name, one in known_options.items()}
    known = known_classes(tx, given.union(*named.values()), accepted.folders)
    parameters = highest((accepted.data_class, *(known[one] for one in given)))
    written = {name: highest(known[one] for one in digests) for name, digests in named.items()}
    classes = classes_of(plan.nodes, parameters, written)
    check_clearances(plan.nodes, classes)
    return parameters, classes


class _OutputsOnly(msgspec.Struct):
    """The part of a checked pipeline that a view needs."""

    outputs: dict[str, str]


def _read(tx: Transaction, run: str) -> _Found | None:
    row = store.run(tx, run)
    if row is None:
        job = store.job(tx, run)
        return None if job is None else _Found(None, [job], {})
    nodes = store.nodes(tx, run)
    datasets = {}
    for node in nodes:
        if node["dataset"]:
            dataset = store.dataset_of(tx, run, node["name"])
            if dataset is not None:
                datasets[node["name"]] = dataset
    return _Found(row, nodes, datasets)


def _outputs(found: _Found) -> dict[str, JsonValue]:
    """Describe the outputs; values are read by `output`, because they may be large."""
    if found.run is None:
        return {}
    nodes = {node["name"]: node for node in found.nodes}
    described: dict[str, JsonValue] = {}
    document = msgspec.json.decode(found.run["document"], type=_OutputsOnly)
    for name, path in document.outputs.items():
        root = path.partition(".")[0]
        dataset = found.datasets.get(root)
        if dataset is not None:
            described[name] = {
                "kind": "dataset",
                "name": dataset["name"],
                "version": dataset["version"],
                "state": dataset["state"],
                "records": dataset["records"],
            }
        elif nodes[root]["output"] is not None:
            described[name] = {"kind": "value", "step": root}
    return described


def _shown_condition(node: Node) -> str:
    """A condition as people are told of it."""
    return "" if node.step.when is None else parse_condition(node.step.when).text


def _priority(accepted: Accepted) -> int:
    """That of the request, else that of the pipeline."""
    if accepted.priority is not None:
        return accepted.priority
    return accepted.plan.pipeline.priority


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
