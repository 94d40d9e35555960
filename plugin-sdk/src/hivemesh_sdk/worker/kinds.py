"""Runs one step of each kind: decodes what it takes, calls the author's code, encodes the answer.

Knows neither processes nor the network: the executor, the second loop and the local run give it
the bytes and take its batches.
"""

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, assert_never

import msgspec

from hivemesh_sdk.contracts.references import named_secrets
from hivemesh_sdk.contracts.steps import Limits, StepKind
from hivemesh_sdk.errors import FatalError, InvalidError
from hivemesh_sdk.worker.batches import (
    MAX_ANSWER_BYTES,
    Batch,
    Cutter,
    cut_lines,
    join_answers,
    read_batch,
    ticking,
)
from hivemesh_sdk.worker.codec import (
    UNWRITABLE,
    Codec,
    encode,
    encode_record,
    field_problems,
    json_schema,
    options_of,
)
from hivemesh_sdk.worker.context import Context
from hivemesh_sdk.worker.definition import Definition
from hivemesh_sdk.worker.records import Rejected
from hivemesh_sdk.worker.secrets import NO_VAULT, Vault
from hivemesh_sdk.worker.signature import Kind, Role

T = TypeVar("T")

NOTHING = b"null"
DEFAULT_LIMITS = Limits()
STEP_KINDS: Mapping[Kind, frozenset[StepKind]] = {
    "call": frozenset({"call"}),
    "map": frozenset({"map", "call"}),
    "source": frozenset({"source"}),
    "reducer": frozenset({"add", "merge", "result"}),
}


class Sink(Protocol):
    """Where batches and rejected records go; `emit` waits until there is room."""

    def emit(self, rejected: Sequence[Rejected], batch: Batch | None) -> None: ...


class WaitingSink(Protocol):
    """The same on a loop: `emit` takes at once, `room` is awaited afterwards."""

    def emit(self, rejected: Sequence[Rejected], batch: Batch | None) -> None: ...

    async def room(self) -> None: ...


class Job(msgspec.Struct, kw_only=True, eq=False):
    """What one step was asked to do; `inputs` are batches or JSON documents, read one by one."""

    kind: StepKind
    inputs: Iterable[bytes] = ()
    parameters: Mapping[str, object]
    checkpoint: bytes = NOTHING
    limits: Limits = DEFAULT_LIMITS
    vault: Vault = NO_VAULT


class Capability:
    """A definition with its codecs made, ready to run any number of steps."""

    def __init__(self, definition: Definition) -> None:
        signature = definition.signature()
        self.id = definition.id
        self.kind = definition.kind
        self.run_in = definition.run_in
        self.quick = definition.quick
        self.asks_context = "context" in {
            *signature.roles.values(),
            *signature.result_roles.values(),
        }
        self._target: Callable[..., Any] = definition.target
        self._roles = tuple(signature.roles.items())
        self._sole_input = _sole_input(signature.roles)
        self._step_kinds = STEP_KINDS[definition.kind]
        self._result_roles = tuple(signature.result_roles.items())
        self._input = Codec(signature.input)
        self._options = None if signature.options is None else Codec(signature.options)
        self._options_schema: dict[str, object] | None = None  # made when it is asked for
        self._checkpoint = Codec(signature.checkpoint)
        self._state = Codec(definition.target if definition.kind == "reducer" else None)

    def accept(self, job: Job) -> object:
        """Check kind and options before anything runs, and return the options.

        Raises:
            ConfigurationError: an option is unknown, missing or wrong.
            InvalidError: the capability has no steps of this kind.
        """
        if job.kind not in self._step_kinds:
            message = f"{self.id} is a {self.kind} and has no step {job.kind!r}"
            raise InvalidError(message, slug="input-invalid")
        if self.kind == "reducer" and job.kind != "result":
            return None
        if self._options is None and not job.parameters:
            return None
        return options_of(self._options, job.parameters, job.vault)

    def secrets_of(self, parameters: Mapping[str, object]) -> frozenset[str]:
        """The paths of the secrets that the options refer to."""
        if self._options is None or not parameters:
            return frozenset()
        if self._options_schema is None:
            self._options_schema = json_schema(self._options.type)
        return named_secrets(parameters, self._options_schema)

    def run(self, job: Job, options: object, context: Context | None, sink: Sink) -> bytes | None:
        """Run to the end and return the JSON of the result, None where only batches were made."""
        match job.kind:
            case "source":
                self._read(job, options, context, sink)
                return None
            case "call" | "map":
                taken = self._take(job)
                answer = self._target(**self._arguments(taken.value, options, context))
                if inspect.isawaitable(answer):
                    answer = _run_coroutine(_value(answer))
                return self._give(taken, answer, sink)
            case "add" | "merge":
                return self._encode(self._accumulate(job, context, sink))
            case "result":
                return self._encode(self._result(job, options, context))
            case _ as never:
                assert_never(never)

    async def run_waiting(
        self, job: Job, options: object, context: Context | None, sink: WaitingSink
    ) -> bytes | None:
        """The same for what runs inline, on the loop that runs."""
        if job.kind == "source":
            await self._read_waiting(job, options, context, sink)
            return None
        if self.quick:
            return self.called(job, options)
        if self.kind == "call":
            return self._encode(await self._target(**self._called_with(job, options, context)))
        taken = self._take(job)
        answer = await self._target(**self._arguments(taken.value, options, context))
        return self._give(taken, answer, sink)

    def called(self, job: Job, options: object) -> bytes:
        """Call a quick function, and return the JSON of its answer."""
        return self._encode(self._target(**self._called_with(job, options, None)))

    def _called_with(self, job: Job, options: object, context: Context | None) -> dict[str, object]:
        """The arguments of a call; the shortest way, for what is called most."""
        value = self._document(self._input, b"".join(job.inputs) or NOTHING)
        if self._sole_input is None:
            return self._arguments(value, options, context)
        return {self._sole_input: value}

    def _read(self, job: Job, options: object, context: Context | None, sink: Sink) -> None:
        if inspect.isasyncgenfunction(self._target):
            _run_coroutine(self._read_waiting(job, options, context, _Blocking(sink)))
            return
        cutter = Cutter(job.limits, sink.emit)
        with ticking(cutter.flush_due, job.limits.seconds):
            for record, checkpoint in self._target(**self._start(job, options, context)):
                cutter.add(record, checkpoint)
        cutter.finish()

    async def _read_waiting(
        self, job: Job, options: object, context: Context | None, sink: WaitingSink
    ) -> None:
        cutter = Cutter(job.limits, sink.emit)
        async for record, checkpoint in self._target(**self._start(job, options, context)):
            if cutter.add(record, checkpoint):
                await sink.room()
        cutter.finish()

    def _start(self, job: Job, options: object, context: Context | None) -> dict[str, object]:
        start = None if job.checkpoint == NOTHING else self._checkpoint.decode(job.checkpoint)
        return self._arguments(None, options, context, start)

    def _arguments(
        self, taken: object, options: object, context: Context | None, start: object = None
    ) -> dict[str, object]:
        values: dict[Role, object] = {
            "input": taken,
            "options": options,
            "context": context,
            "start": start,
        }
        return {name: values[role] for name, role in self._roles}

    def _take(self, job: Job) -> "_Taken":
        data = b"".join(job.inputs)
        if job.kind == "map":
            return _read(self._input, data, job.limits.lines, 0)
        value = self._document(self._input, data or NOTHING)
        return _Taken([value] if self.kind == "map" else value, None, ())

    def _give(self, taken: "_Taken", answer: Any, sink: Sink | WaitingSink) -> bytes | None:
        if self.kind == "call":
            return self._encode(answer)
        if len(answer) != len(taken.value):
            message = f"{len(answer)} answers for {len(taken.value)} records"
            raise FatalError(message, slug="output-invalid")
        if taken.positions is None:
            return self._encode(_accepted(answer[0]))
        batch, rejected = join_answers(answer, taken.positions)
        sink.emit([*taken.rejected, *rejected], batch)
        return None

    def _accumulate(self, job: Job, context: Context | None, sink: Sink) -> Any:
        states = self._states(job) if job.kind == "merge" else iter(())
        state: Any = next(states, None) or self._target()
        for other in states:
            state.merge(other)
        if job.kind == "add":
            before = 0
            for data in job.inputs:
                taken = _read(self._input, data, job.limits.lines, before)
                before += data.count(b"\n") if job.limits.lines is not None else 0
                sink.emit(taken.rejected, None)
                if taken.value or job.limits.lines is None:
                    state.add(**self._arguments(taken.value, None, context))
        return state

    def _states(self, job: Job) -> Iterator[Any]:
        return (self._document(self._state, data) for data in job.inputs)

    def _result(self, job: Job, options: object, context: Context | None) -> object:
        states = self._states(job)
        state: Any = next(states, None) or self._target()
        for other in states:  # of a row that was tried in parts
            state.merge(other)
        values: dict[Role, object] = {"options": options, "context": context}
        return state.result(**{name: values[role] for name, role in self._result_roles})

    def _document(self, codec: Codec, data: bytes) -> Any:
        try:
            return codec.decode(data)
        except Exception as error:
            problems = field_problems(error)
            if problems is None:
                raise
            detail = f"{problems[0].pointer or '/'}: {problems[0].message}"
            raise InvalidError(detail, slug="input-invalid", errors=problems) from error

    def _encode(self, value: object) -> bytes:
        try:
            data = encode(value)
        except UNWRITABLE:
            data = encode_record(value)  # a Pydantic model, or why it cannot be written
        if len(data) > MAX_ANSWER_BYTES:
            message = f"the answer takes {len(data)} bytes; store it as an artifact and name it"
            raise FatalError(message, slug="output-invalid")
        return data


def _sole_input(roles: Mapping[str, Role]) -> str | None:
    """The parameter of a function that takes its input and nothing else."""
    names = list(roles)
    return names[0] if list(roles.values()) == ["input"] else None


class _Taken(NamedTuple):
    value: Any
    positions: Sequence[int] | None  # None: one record, given as a call
    rejected: Sequence[Rejected]


def _read(codec: Codec, data: bytes, lines: tuple[int, int] | None, before: int) -> _Taken:
    """Decode a batch, or those of its lines that are meant; `before` lie in other inputs."""
    if lines is None:
        return _Taken(*read_batch(codec, data))
    first, last = max(0, lines[0] - before), max(0, lines[1] - before)
    records, positions, rejected = read_batch(codec, cut_lines(data, first, last))
    moved = [
        msgspec.structs.replace(one, position=one.position + first)
        if isinstance(one.position, int)
        else one
        for one in rejected
    ]
    return _Taken(records, [place + first for place in positions], moved)


class _Blocking:
    """Lets an `async def` of an executor use its sink, which waits by itself."""

    def __init__(self, sink: Sink) -> None:
        self.emit = sink.emit

    async def room(self) -> None:
        """Nothing to wait for: `emit` has waited."""


def _run_coroutine(work: Coroutine[Any, Any, T]) -> T:
    import asyncio  # noqa: PLC0415 - 6 MiB with TLS in it, that most executors never need

    return asyncio.run(work)


async def _value(answer: Awaitable[object]) -> object:
    return await answer


def _accepted(answer: object) -> object:
    if isinstance(answer, Rejected):
        message = f"{answer.reason}: {answer.detail}" if answer.detail else answer.reason
        raise FatalError(message)
    return answer
