"""A fleet of fake workers behind execution's ports: the step protocol in one process, no network.

It keeps the protocol's promises (one execution per key, attempts and epochs fence, pages are
acknowledged) and can break where real workers break: killed, stopped, restarted, overloaded.
"""

import asyncio
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec
from hivemesh_platform.execution.ports import (
    Choice,
    KnownCapability,
    NoCandidate,
    Outcome,
    Page,
    Requirement,
    StepRefusedError,
    Survey,
    UnreachableError,
)
from hivemesh_sdk.contracts.instances import Endpoint
from hivemesh_sdk.contracts.manifest import Capability
from hivemesh_sdk.contracts.pages import Frame, decode_request, encode_event
from hivemesh_sdk.contracts.problems import Problem, problem
from hivemesh_sdk.contracts.steps import (
    ExecutionState,
    ExecutionStatus,
    MemberEvent,
    ProblemEvent,
    ProgressEvent,
    RecordsEvent,
    RejectedEvent,
    ResultEvent,
    StepRequest,
    WorkerStatus,
)

Behaviour = Callable[[StepRequest, list[bytes]], Iterator[Frame]]


def ndjson(records):
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def parse(data):
    return [json.loads(line) for line in data.splitlines()]


def records_frame(no, records, checkpoint=None):
    body = ndjson(records)
    event = RecordsEvent(
        no=no,
        count=len(records),
        sha256=hashlib.sha256(body).hexdigest(),
        bytes=len(body),
        checkpoint=msgspec.Raw(json.dumps(checkpoint).encode()),
    )
    return Frame(event, body)


def result_frame(no, value):
    body = json.dumps(value).encode()
    digest = hashlib.sha256(body).hexdigest()
    return Frame(ResultEvent(no=no, bytes=len(body), sha256=digest), body)


def source(records, *, batch=10, bad=()):
    """A source of `records`; those at the positions `bad` are rejected."""

    def run(request, _inputs):
        start = json.loads(bytes(request.checkpoint)) or 0
        numbers = itertools.count(1)
        for first in range(start, len(records), batch):
            last = min(first + batch, len(records))
            for position in range(first, last):
                if position in bad:
                    no = next(numbers)
                    yield Frame(RejectedEvent(no=no, reason="bad", position=position))
            good = [records[position] for position in range(first, last) if position not in bad]
            yield records_frame(next(numbers), good, last)
            yield Frame(ProgressEvent(no=next(numbers), done=last, total=len(records)))
        yield Frame(ResultEvent(no=next(numbers)))

    return run


def mapper(function):
    """A map; where `function` answers None the record is rejected."""

    def run(_request, inputs):
        numbers = itertools.count(1)
        good = []
        for position, record in enumerate(parse(b"".join(inputs))):
            answer = function(record)
            if answer is None:
                yield Frame(RejectedEvent(no=next(numbers), reason="refused", position=position))
            else:
                good.append(answer)
        if good:
            yield records_frame(next(numbers), good)
        yield Frame(ResultEvent(no=next(numbers)))

    return run


def adder(request, inputs):
    """A reducer that counts records and sums their `n`."""
    state = {"count": 0, "sum": 0}
    match request.kind:
        case "add":
            for record in parse(b"".join(inputs)):
                state = {"count": state["count"] + 1, "sum": state["sum"] + record["n"]}
        case "merge" | "result":
            for other in map(json.loads, inputs):
                state = {name: state[name] + other[name] for name in state}
    if request.kind == "result":
        state = {**state, "options": request.parameters}
    yield result_frame(1, state)


def caller(function):
    def run(request, inputs):
        value = json.loads(inputs[0]) if inputs else None
        yield result_frame(1, function(value, request.parameters))

    return run


def failing(document: Problem):
    def run(_request, _inputs):
        yield Frame(ProblemEvent(no=1, problem=document))

    return run


def capability(name, kind, **fields):
    return Capability(id=name, kind=kind, **fields)


@dataclass
class FakeExecution:
    id: str
    attempt: int
    epoch: int
    digest: bytes
    frames: Iterator[Frame]
    request: StepRequest
    buffer: list[Frame] = field(default_factory=list)
    ended: bool = False
    last: int = 0


@dataclass
class FakeWorker:
    """One instance. `stopped` answers nothing, `dead` refuses connections."""

    instance: str
    behaviours: dict[str, Behaviour]
    slots: dict[str, int]
    worker: str = "fake"
    dead: bool = False
    stopped: asyncio.Event | None = None
    hang_once: set[str] = field(default_factory=set)  # capabilities whose next step never answers
    executions: dict[str, FakeExecution] = field(default_factory=dict)

    def endpoint(self):
        return Endpoint(
            instance=self.instance,
            worker=self.worker,
            version="1.0.0",
            identity=f"spiffe://test.hivemesh.internal/worker/{self.worker}/{self.instance}",
            host="127.0.0.1",
            port=1,
            capabilities=list(self.behaviours),
        )

    def restart(self):
        """A new process under the same name: it remembers nothing."""
        self.executions.clear()
        self.dead = False


class FakeWorkerFleet:
    """Implements `StepTransport` over fake workers; `before` is called for each request."""

    def __init__(self, *workers, page_events=3):
        self.workers = {worker.instance: worker for worker in workers}
        self.page_events = page_events
        self.puts: list[tuple[str, str, int]] = []  # instance, key, attempt
        self.tickets: list[str] = []  # of the puts
        self.deleted: list[tuple[str, str]] = []
        self.acknowledged: list[tuple[str, str, int]] = []  # instance, key, attempt
        self.nothing_follows = False  # no request takes an acknowledgement along
        self.before: Callable[[str, str, str], None] = lambda _kind, _instance, _key: None
        self.refuse: list[Problem] = []
        self.uptime_s = 0.0  # 0: each has just been started again
        self._ids = itertools.count(1)

    async def put_step(self, endpoint, key, body, *, ticket, wait_s):
        worker = await self._reach("put", endpoint, key)
        if self.refuse:
            raise StepRefusedError(self.refuse.pop(0))
        request, inputs = decode_request(b"".join(body))
        self.puts.append((worker.instance, key, request.attempt))
        self.tickets.append(ticket)
        if request.capability in worker.hang_once:
            worker.hang_once.discard(request.capability)
            await asyncio.Event().wait()
        execution = self._execution(worker, key, request, inputs)
        return self._page(execution, 0)

    async def get_events(self, endpoint, key, place, *, ticket, wait_s):
        execution, epoch, after = place
        worker = await self._reach("get", endpoint, key)
        found = worker.executions.get(key)
        if found is None or found.id != execution:
            raise StepRefusedError(problem("execution-unknown", key))
        if epoch < found.epoch:
            raise StepRefusedError(problem("stale-reader", key))
        found.epoch = epoch
        return self._page(found, after)

    async def delete_step(self, endpoint, key, attempt):
        worker = await self._reach("delete", endpoint, key)
        self.deleted.append((worker.instance, key))
        found = worker.executions.get(key)
        if found is not None and found.attempt <= attempt:
            del worker.executions[key]

    def acknowledge(self, endpoint, key, attempt):
        worker = self.workers[endpoint.instance]
        self.acknowledged.append((worker.instance, key, attempt))
        found = worker.executions.get(key)
        if found is not None and found.ended and found.attempt == attempt:
            del worker.executions[key]

    def take_back(self, endpoint, key, attempt):
        return self.nothing_follows

    async def step_status(self, endpoint, key):
        worker = await self._reach("look", endpoint, key)
        if key not in worker.executions:
            raise StepRefusedError(problem("execution-unknown", key))
        return _status(key, worker.executions[key])

    async def status(self, endpoint, *, timeout_s):
        worker = await self._reach("status", endpoint, "")
        return WorkerStatus(
            worker=worker.worker,
            version="1.0.0",
            instance=worker.instance,
            protocol=1,
            draining=False,
            uptime_s=self.uptime_s,
            cpu=0.0,
            memory=0.0,
            rss_bytes=0,
            slots={},
            executions=[_status(key, one) for key, one in worker.executions.items()],
        )

    async def _reach(self, kind, endpoint, key):
        self.before(kind, endpoint.instance, key)
        worker = self.workers[endpoint.instance]
        await asyncio.sleep(0)
        if worker.stopped is not None:
            if kind == "status":
                raise UnreachableError("no answer")
            await worker.stopped.wait()
        if worker.dead:
            raise UnreachableError("connection refused")
        return worker

    def _execution(self, worker, key, request, inputs):
        digest = repr((request.capability, request.parameters, inputs)).encode()
        found = worker.executions.get(key)
        if found is not None:
            if found.digest != digest:
                raise StepRefusedError(problem("idempotency-mismatch", key))
            if request.attempt < found.attempt:
                raise StepRefusedError(problem("stale-attempt", key))
            if request.attempt == found.attempt:
                return found
        created = FakeExecution(
            id=f"e{next(self._ids)}",
            attempt=request.attempt,
            epoch=request.epoch,
            digest=digest,
            frames=_frames(worker.behaviours[request.capability], request, inputs),
            request=request,
        )
        worker.executions[key] = created
        return created

    def _page(self, execution, after):
        execution.buffer = [frame for frame in execution.buffer if frame.event.no > after]
        while not execution.ended and len(execution.buffer) < self.page_events:
            frame = next(execution.frames)
            execution.buffer.append(frame)
            execution.last = frame.event.no
            execution.ended = isinstance(frame.event, ResultEvent | ProblemEvent)
        chunks = [chunk for frame in execution.buffer for chunk in encode_event(frame)]
        return Page(execution.id, b"".join(chunks))


def _frames(behaviour, request, inputs):
    """What a worker says; of several calls each is answered, and a crash ends the request."""
    if not request.members:
        yield from behaviour(request, inputs)
        return
    numbers = itertools.count(1)
    for member, line in zip(request.members, inputs[0].split(b"\n"), strict=True):
        *_, (event, body) = behaviour(request, [line])
        failure = getattr(event, "problem", None)
        if failure is not None and failure.type.endswith((":executor-crashed", ":cancelled")):
            yield Frame(ProblemEvent(no=next(numbers), problem=failure))
            return
        size = len(body) if failure is None else None
        no = next(numbers)
        yield Frame(MemberEvent(no=no, key=member.key, bytes=size, problem=failure), body)
    yield Frame(ResultEvent(no=next(numbers)))


def _status(key, execution):
    return ExecutionStatus(
        key=key,
        execution=execution.id,
        attempt=execution.attempt,
        epoch=execution.epoch,
        capability=execution.request.capability,
        kind=execution.request.kind,
        state=ExecutionState.ENDED if execution.ended else ExecutionState.RUNNING,
        last_event=execution.last,
        idle_s=0.0,
        executor_cpu_s=0.0,
        buffered_bytes=len(execution.buffer),
    )


class FakePlacement:
    """Implements `Placement` over the same fleet: the first instance with a free slot."""

    def __init__(self, fleet):
        self._fleet = fleet
        self._held: dict[tuple[str, str], int] = {}
        self._changed = asyncio.Event()
        self.outcomes: list[Outcome] = []
        self.beating: set[str] = set()
        self.without_time: set[str] = set()  # instances that do not tell their clocks

    def free_slots(self):
        free: dict[str, int] = {}
        for worker in self._live():
            for name in worker.behaviours:
                free[name] = free.get(name, 0) + self._free(worker, name)
        return free

    def choose(self, requirement: Requirement):
        found = [one for one in self._live() if self._free(one, requirement.capability) > 0]
        found.sort(key=lambda one: one.instance in requirement.avoid)
        if not found:
            return NoCandidate(self.absent(requirement.capability) or "all slots are taken")
        worker = found[0]
        held = (worker.instance, requirement.capability)
        self._held[held] = self._held.get(held, 0) + 1
        explanation = {
            "reason": "the first free one",
            "candidates": [{"instance": one.instance} for one in found],
        }
        return Choice(
            endpoint=worker.endpoint(),
            capability=requirement.capability,
            explanation=explanation,
        )

    def survey(self, requirement: Requirement):
        name = requirement.capability
        free = [(one, self._free(one, name)) for one in self._live() if name in one.behaviours]
        busy = "" if any(slots for _, slots in free) else "all slots are taken"
        candidates = [
            {
                "worker": "fake",
                "instance": one.instance,
                "score": 0.1,
                "parts": {"cpu": 0.1, "memory": 0.0, "active": 0.0},
                "unmet": "" if slots else "free slot",
            }
            for one, slots in free
        ]
        return Survey(reason=self.absent(name) or busy, candidates=candidates)

    def give_back(self, choice):
        held = (choice.endpoint.instance, choice.capability)
        self._held[held] = max(0, self._held.get(held, 0) - 1)
        self.changed()
        return True

    def report(self, choice, outcome, seconds, *, given_back=False):
        if not given_back:
            self.give_back(choice)
        self.outcomes.append(outcome)

    def beats(self, instance):
        return instance in self.beating

    def tells_time(self, instance):
        return instance not in self.without_time

    def absent(self, capability):
        serving = [one for one in self._live() if capability in one.behaviours]
        return "" if serving else f"no live instance serves {capability}"

    async def wait_for_change(self):
        await self._changed.wait()
        self._changed.clear()

    def changed(self):
        self._changed.set()

    def _live(self):
        return [one for one in self._fleet.workers.values() if not one.dead and one.stopped is None]

    def _free(self, worker, name):
        if name not in worker.behaviours:
            return 0
        return worker.slots.get(name, 1) - self._held.get((worker.instance, name), 0)


class FakeCatalogue:
    """Implements `Catalogue` over declared capabilities."""

    def __init__(self, *declared: Capability):
        self._declared: Mapping[str, Capability] = {one.id: one for one in declared}

    def find(self, capability):
        declared = self._declared.get(capability)
        if declared is None:
            return None
        return KnownCapability(worker="fake", version="1.0.0", declared=declared)

    def names(self):
        return list(self._declared)
