"""Runs as durable workflows: the only module that imports DBOS.

One workflow per run (run id = workflow id), one durable step per node, "drain node N". It never
sees a batch or a job. A drain that runs twice goes on from the ledger, so replay has nothing to
get wrong. Step numbers are reserved in topological order, because nodes drain at the same time
and DBOS numbers steps in the order in which they are asked for.
"""

import asyncio
import json
import logging
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import structlog

from hivemesh_platform import crash
from hivemesh_platform.omitted import without_postgres
from hivemesh_platform.storage.damage import set_aside
from hivemesh_platform.storage.database import PATIENCE_S
from hivemesh_platform.storage.migrate import engine_of
from hivemesh_platform.storage.transaction import filled_up

if TYPE_CHECKING:
    import sqlalchemy
    from dbos import DBOSConfig

    from hivemesh_platform.storage.server import Server

T = TypeVar("T")

APPLICATION = "hivemesh"
APPLICATION_VERSION = "1"  # of the workflow's shape; a change of code must not orphan runs
MAX_RECOVERIES = 1_000_000  # a poisoned input is counted by the ledger, not here
THREADS = 16  # of DBOS at most, which also become the loop's default; made when needed
CONNECTIONS = 4  # of DBOS to its file, which takes one writer at a time, or to the server
TURNS_AT_ONCE = 8  # of a run that are looked for; few runs have more than one
SCHEMA = "dbos"  # of its tables on a server, beside ours
_log = structlog.get_logger("hivemesh.execution")
_PRAGMAS = ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "PRAGMA busy_timeout=30000")


class RunSteps(Protocol):
    """What a run's workflow calls, on the loop of the platform."""

    async def drain(self, run: str, node: str) -> str:
        """Set the node going, wait until it has ended, and return its state. Repeatable."""
        ...

    async def close(self, run: str) -> str:
        """Return the run's state once all of its nodes have ended. Repeatable."""
        ...


class RunEngine(Protocol):
    """Keeps runs going across restarts."""

    async def __aenter__(self) -> Self:
        """Open the engine and go on with the runs that were interrupted."""
        ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of the runs; they are gone on with at the next start."""
        ...

    async def submit(self, run: str, nodes: Sequence[str], turn: int = 0) -> None:
        """Start the workflow of a run, one for each turn; a second time is fine."""
        ...

    async def cancel(self, run: str, turn: int = 0) -> None:
        """End the workflow of a run's turn."""
        ...

    async def is_known(self, run: str, turn: int = 0) -> bool:
        """Whether the workflow of a run's turn was ever started."""
        ...

    async def forget(self, runs: Sequence[str]) -> None:
        """Remove everything that is kept of runs which have ended. Repeatable."""
        ...

    async def take_over(self, replica: str) -> None:
        """Go on with the runs of a replica that is gone. Repeatable, by several at once too."""
        ...


class DbosEngine:
    """DBOS on a SQLite file of its own, or in a schema of its own on a server.

    One per process, because DBOS is.
    """

    def __init__(self, where: "Path | Server", replica: str, steps: RunSteps) -> None:
        self._where = where
        self._replica = replica
        self._steps = steps
        self._loop: asyncio.AbstractEventLoop | None = None
        self._workflow: Any = None
        self._running: set[asyncio.Task[Any]] = set()
        self._engine: sqlalchemy.Engine | None = None
        self._closing = threading.Event()
        self._ended = threading.Event()

    async def __aenter__(self) -> Self:
        with without_postgres() if isinstance(self._where, Path) else nullcontext():
            from dbos import DBOS  # noqa: PLC0415 - 400 ms and 20 MiB: only where runs are run

        self._loop = asyncio.get_running_loop()
        _quiet()
        self._engine = await asyncio.to_thread(self._open_database)
        DBOS(config=self._config())
        _quiet()

        async def run_pipeline(run: str, nodes: list[str]) -> str:
            return await self._run_pipeline(run, nodes)  # DBOS takes functions, not methods

        decorate = DBOS.workflow(name="run", max_recovery_attempts=MAX_RECOVERIES)
        self._workflow = decorate(run_pipeline)
        DBOS.launch()  # here and not in a thread: it notes the running loop for what it recovers
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        from dbos import DBOS  # noqa: PLC0415 - see __aenter__

        self._closing.set()
        await asyncio.to_thread(DBOS.destroy, destroy_registry=True)
        if self._loop is not None:  # DBOS has made its own pool, now shut, the loop's default
            self._loop.set_default_executor(ThreadPoolExecutor(thread_name_prefix="asyncio"))
        running = [task for task in self._running if not task.done()]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=5.0)
        if self._engine is not None:
            self._ended.set()
            self._engine.dispose()

    async def submit(self, run: str, nodes: Sequence[str], turn: int = 0) -> None:
        """Start the workflow of a run, one for each turn; a second time is fine."""
        from dbos import DBOS, SetWorkflowID  # noqa: PLC0415 - see __aenter__

        crash.reach("engine.submit")
        with SetWorkflowID(_workflow(run, turn)):
            await DBOS.start_workflow_async(self._workflow, run, list(nodes))

    async def cancel(self, run: str, turn: int = 0) -> None:
        """End the workflow of a run's turn."""
        from dbos import DBOS  # noqa: PLC0415 - see __aenter__

        await DBOS.cancel_workflow_async(_workflow(run, turn))

    async def is_known(self, run: str, turn: int = 0) -> bool:
        """Whether the workflow of a run's turn was ever started."""
        from dbos import DBOS  # noqa: PLC0415 - see __aenter__

        return await DBOS.get_workflow_status_async(_workflow(run, turn)) is not None

    async def forget(self, runs: Sequence[str]) -> None:
        """Remove everything that is kept of runs which have ended, all turns of them. Repeatable."""
        from dbos import DBOS  # noqa: PLC0415 - see __aenter__

        left, first = list(dict.fromkeys(runs)), 0
        while left:
            turns = range(first, first + TURNS_AT_ONCE)
            wanted = [_workflow(run, turn) for run in left for turn in turns]
            found = await DBOS.list_workflows_async(
                workflow_ids=filled_up(wanted), load_input=False, load_output=False
            )
            known = [one.workflow_id for one in found]
            if known:
                await DBOS.delete_workflows_async(filled_up(known))
            left = [run for run in left if _workflow(run, turns[-1]) in known]
            first = turns.stop

    async def take_over(self, replica: str) -> None:
        """Go on with the runs of a replica that is gone.

        Each is queued again by an update that names the executor it is taken from, so it is
        taken once; whoever takes it from the queue runs it.
        """
        from dbos import DBOS  # noqa: PLC0415 - see __aenter__

        recover = DBOS._recover_pending_workflows  # noqa: SLF001 - no public call is fenced
        await asyncio.to_thread(recover, [replica])

    async def _run_pipeline(self, run: str, nodes: list[str]) -> str:
        """The workflow: all nodes drain at the same time."""
        from dbos import DBOS  # noqa: PLC0415 - see __aenter__

        PATIENCE_S.set(None)  # it goes on when the request that has started it was answered
        task = asyncio.current_task()
        if task is not None:
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        reserved = [DBOS.reserve_step() for _ in nodes]
        closing = DBOS.reserve_step()
        await asyncio.gather(
            *(
                step.run_async({"name": f"drain {node}"}, self._drain, run, node)
                for step, node in zip(reserved, nodes, strict=True)
            )
        )
        return await closing.run_async({"name": "close"}, self._close, run)

    async def _drain(self, run: str, node: str) -> str:
        crash.reach("engine.drain.before")
        state = await self._on_our_loop(self._steps.drain(run, node))
        crash.reach("engine.drain.after")
        return state

    async def _close(self, run: str) -> str:
        crash.reach("engine.close")
        return await self._on_our_loop(self._steps.close(run))

    async def _on_our_loop(self, work: Coroutine[Any, Any, T]) -> T:
        """DBOS may run a recovered workflow on a loop of its own; the ledger lives on ours."""
        if self._loop is None or asyncio.get_running_loop() is self._loop:
            return await work
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def _config(self) -> "DBOSConfig":
        return {
            "name": APPLICATION,
            "application_version": APPLICATION_VERSION,
            "executor_id": self._replica,
            "system_database_url": self._url(),
            "system_database_engine": self._engine,
            "dbos_system_schema": SCHEMA,
            "serializer": _json_serializer(),
            "enable_otlp": False,
            "log_level": "ERROR",
            "max_executor_threads": THREADS,
        }

    def _url(self) -> str:
        """What DBOS tells the kind of database by; it connects through our engine."""
        if isinstance(self._where, Path):
            return f"sqlite:///{self._where.absolute()}"
        return f"postgresql://hivemesh@/{self._where.parameters['dbname']}"

    def _open_database(self) -> "sqlalchemy.Engine":
        import sqlalchemy  # noqa: PLC0415 - see __aenter__

        engine = self._new_engine()

        @sqlalchemy.event.listens_for(engine, "checkin")
        def close_late(_connection: Any, record: Any) -> None:
            """A thread of DBOS may outlive it; nobody disposes of what that one gives back."""
            if self._ended.is_set():
                record.invalidate()

        return engine

    def _new_engine(self) -> "sqlalchemy.Engine":
        import sqlalchemy  # noqa: PLC0415 - see __aenter__

        if not isinstance(self._where, Path):
            return engine_of(
                self._where, self._closing, pool_size=CONNECTIONS, max_overflow=CONNECTIONS
            )
        if wrong := set_aside(self._where):  # the ledger knows every run that has not ended
            _log.warning("engine_made_anew", detail=wrong)
        self._where.touch(mode=0o600, exist_ok=True)
        engine = sqlalchemy.create_engine(
            self._url(), pool_size=CONNECTIONS, max_overflow=CONNECTIONS
        )

        @sqlalchemy.event.listens_for(engine, "connect")
        def configure(connection: Any, _record: object) -> None:
            connection.isolation_level = "IMMEDIATE"  # as DBOS does on an engine of its own
            for pragma in _PRAGMAS:
                connection.execute(pragma)

        return engine


def _workflow(run: str, turn: int) -> str:
    """A run that is set going again has a workflow more: those that have ended stay as they are."""
    return f"{run}.{turn}" if turn else run


def _json_serializer() -> Any:
    """What DBOS writes is JSON: whoever writes a pickle runs code in its reader."""
    from dbos import Serializer  # noqa: PLC0415 - see DbosEngine.__aenter__

    class JsonSerializer(Serializer):
        """Arguments, results and errors as JSON; an error becomes its text."""

        def serialize(self, data: Any) -> str:
            return json.dumps(data, default=_as_text)

        def deserialize(self, serialized_data: str) -> Any:
            return _as_error(json.loads(serialized_data))

        def name(self) -> str:
            return "hivemesh_json"

    return JsonSerializer()


class WorkflowFailedError(Exception):
    """What is left of an error that a workflow ended with."""


def _as_text(value: object) -> object:
    if isinstance(value, BaseException):
        return {"$error": f"{type(value).__name__}: {value}"}
    message = f"{type(value).__name__} cannot be written as JSON"
    raise TypeError(message)


def _as_error(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"$error"}:
        return WorkflowFailedError(value["$error"])
    return value


def _quiet() -> None:
    """DBOS logs to the console by itself; ours go where the platform's logs go."""
    logger = logging.getLogger("dbos")
    logger.setLevel(logging.ERROR)
    for handler in tuple(logger.handlers):
        logger.removeHandler(handler)
    logger.addHandler(logging.NullHandler())
    logger.propagate = True
