"""A whole platform core in one process: real storage, ledger and dispatch over fake workers."""

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fake_workers import (
    FakeCatalogue,
    FakePlacement,
    FakeWorker,
    FakeWorkerFleet,
    adder,
    caller,
    capability,
    mapper,
    source,
)
from hivemesh_platform.artifacts.local import LocalArtifactStore
from hivemesh_platform.execution.behalf import Behalf
from hivemesh_platform.execution.runtime import Execution, ExecutionPorts, open_execution
from hivemesh_platform.settings import ExecutionSettings
from hivemesh_platform.storage.database import Database
from hivemesh_sdk.clock import SystemClock
from hivemesh_sdk.contracts.api import RunRequest
from hivemesh_sdk.testing.fake_policies import EverythingAllowed
from hivemesh_sdk.trust.jws import SigningKey
from hivemesh_sdk.trust.tickets import TicketReader
from replica_support import replica
from storage_support import opened_in

CAPABILITIES = (
    capability("test.read@1", "source"),
    capability("test.double@1", "map"),
    capability("test.sum@1", "reducer"),
    capability("test.echo@1", "call"),
)
PIPELINE = {
    "apiVersion": "hivemesh/v1",
    "kind": "Pipeline",
    "metadata": {"name": "sums", "version": 1},
    "parameters": {"from": {"type": "string", "default": "here"}},
    "steps": {
        "read": {"use": "test.read@1", "with": {"from": "${{ parameters.from }}"}},
        "double": {"use": "test.double@1", "map": "read"},
        "sum": {"use": "test.sum@1", "reduce": "double", "with": {"unit": "n"}},
    },
    "outputs": {"total": "sum.sum", "records": "double"},
}
FAST = ExecutionSettings(retry_delay_s=0.01, status_interval_s=0.05, in_flight_batches=4)


def numbers(count):
    return [{"n": n} for n in range(count)]


def double(record):
    return {**record, "n": record["n"] * 2}


def worker(instance="w1", *, records=35, slots=2, behaviours=None, **sources):
    found = {
        "test.read@1": source(numbers(records), **sources),
        "test.double@1": mapper(double),
        "test.sum@1": adder,
        "test.echo@1": caller(lambda value, options: {"value": value, "options": options}),
        **(behaviours or {}),
    }
    return FakeWorker(instance, found, dict.fromkeys(found, slots))


class DirectEngine:
    """Implements `RunEngine` without durability: one task per node."""

    def __init__(self, steps):
        self._steps = steps
        self._tasks = {}
        self.forgotten = []

    async def __aenter__(self):
        return self

    async def __aexit__(self, *failure):
        tasks = [task for run in self._tasks.values() for task in run]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def submit(self, run, nodes, turn=0):
        drains = [asyncio.create_task(self._steps.drain(run, node)) for node in nodes]
        self._tasks[run] = [*self._tasks.get(run, ()), *drains]

    async def cancel(self, run, turn=0):
        for task in self._tasks.get(run, ()):
            task.cancel()

    async def is_known(self, run, turn=0):
        return run in self._tasks

    async def forget(self, runs):
        self.forgotten += runs

    async def take_over(self, replica):
        return


SIGNING = SigningKey(Ed25519PrivateKey.generate())
SIGNERS = {SIGNING.public.id: SIGNING.public}
TESTER = Behalf(sub="tester", roles=("admin",), grants=("admin:*",))


@dataclass
class Core:
    """What a test holds."""

    execution: Execution
    fleet: FakeWorkerFleet
    placement: FakePlacement
    database: Database
    artifacts: LocalArtifactStore

    async def start(self, document=PIPELINE, **parameters):
        request = RunRequest(document=document, parameters=parameters)
        return (await self.execution.runs.start(request, TESTER)).id

    async def end(self, run, timeout_s=60):
        async with asyncio.timeout(timeout_s):
            version = 0
            while True:
                version, view = await self.execution.runs.changes(run, version, 5.0)
                if view.state.ended:
                    return view

    async def until(self, condition, timeout_s=60):
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110 - state of objects that tell nobody
                await asyncio.sleep(0)

    async def run(self, document=PIPELINE, **parameters):
        return await self.end(await self.start(document, **parameters))

    async def output(self, run, name):
        stream = await self.execution.runs.output(run, name)
        return b"".join([chunk async for chunk in stream.chunks])

    async def records(self, run, name="records"):
        return [json.loads(line) for line in (await self.output(run, name)).splitlines()]


@asynccontextmanager
async def core(
    folder, *workers, settings=FAST, engine=DirectEngine, clock=None, catalogue=None, **ports
):
    """Open a platform core on a state folder; close it as a stopped platform does."""
    fleet = workers[0] if isinstance(workers[0], FakeWorkerFleet) else FakeWorkerFleet(*workers)
    placement = FakePlacement(fleet)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(opened_in(folder))
        artifacts = await stack.enter_async_context(LocalArtifactStore(folder / "artifacts"))
        replicas = ports.pop("replicas", None) or replica(
            database, "p1", clock=clock or SystemClock(), alone=True
        )
        await replicas.join()
        parts = ExecutionPorts(
            database=database,
            artifacts=artifacts,
            placement=placement,
            transport=fleet,
            catalogue=catalogue or FakeCatalogue(*CAPABILITIES),
            engine=engine,
            pipelines=(),
            settings=settings,
            clock=clock or SystemClock(),
            issuer="spiffe://test.hivemesh.internal/platform/p1",
            signer=SIGNING,
            reader=TicketReader(lambda: SIGNERS, clock or SystemClock()),
            policies=ports.pop("policies", None) or EverythingAllowed(),
            replicas=replicas,
            **ports,
        )
        execution = await stack.enter_async_context(open_execution(parts))
        yield Core(execution, fleet, placement, database, artifacts)
