"""The laws of sources and reducers, checked on the author's own functions, without any process.

    collect(parse, {"archive": Path("a.mbox")}).resumes_anywhere()
    check_merge(Volumes, records)

The functions run through the same code as in a served step, so that checkpoints and states
travel as JSON here too.
"""

import json
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hivemesh_sdk.contracts.steps import Limits
from hivemesh_sdk.worker.batches import Batch
from hivemesh_sdk.worker.context import Context
from hivemesh_sdk.worker.definition import Definition
from hivemesh_sdk.worker.kinds import NOTHING, Capability, Job
from hivemesh_sdk.worker.local_artifacts import LocalArtifacts, with_artifacts
from hivemesh_sdk.worker.records import Rejected, State
from hivemesh_sdk.worker.signature import Kind

ONE_BY_ONE = Limits(records=1)
RESTARTS = 50
ROUNDS = 20

Options = Mapping[str, object] | msgspec.Struct | None
Item = bytes | Rejected


@dataclass(frozen=True, slots=True)
class Collected:
    """Everything a source gave: items in order, and after how many of them a checkpoint held."""

    items: tuple[Item, ...]
    checkpoints: tuple[tuple[int, bytes], ...]
    restart: "Callable[[bytes], Collected]"

    @property
    def records(self) -> list[bytes]:
        """The records as JSON."""
        return [item for item in self.items if isinstance(item, bytes)]

    @property
    def rejected(self) -> list[Rejected]:
        """What was refused."""
        return [item for item in self.items if isinstance(item, Rejected)]

    def resumes_anywhere(self, restarts: int = RESTARTS) -> None:
        """Start again at each checkpoint (or at so many of them) and compare what follows."""
        step = max(1, len(self.checkpoints) // restarts)
        for count, checkpoint in self.checkpoints[::step]:
            rest = self.restart(checkpoint).items
            assert rest == self.items[count:], (
                f"started at checkpoint {checkpoint.decode()}, which holds after {count} items, "
                f"the source gave {len(rest)} items instead of {len(self.items) - count}, "
                f"or other ones"
            )


def collect(source: Callable[..., object], options: Options = None) -> Collected:
    """Read a source to its end; a `Path` in the options stands for an artifact."""
    return _collect(source, options, NOTHING)


def check_merge(
    reducer: type[State],
    records: Sequence[object],
    options: Options = None,
    *,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> object:
    """Reduce the records in random orders and partitions; every result must be the same.

    Returns the result of all records at once.
    """
    lines = [msgspec.json.encode(record) + b"\n" for record in records]
    chance = random.Random(seed)  # noqa: S311 - a repeatable choice of partitions
    with _capability(reducer, "reducer", options) as (capability, given, context):
        run = _Reduction(capability, given, context)
        whole = run.result(run.add(lines))
        for _ in range(rounds):
            shuffled = chance.sample(lines, len(lines))
            states = [run.add(part) for part in _partition(shuffled, chance)]
            assert run.result(run.merged(states, chance)) == whole, (
                f"{reducer.__name__}: {len(states)} parts in another order give another result"
            )
        nothing = run.merged([run.add(lines), run.add([])], chance)
        assert run.result(nothing) == whole, f"{reducer.__name__}: an empty part changes the result"
    return whole


def _collect(source: Callable[..., object], options: Options, checkpoint: bytes) -> Collected:
    sink = _Sink()
    with _capability(source, "source", options) as (capability, given, context):
        job = Job(kind="source", parameters=given, checkpoint=checkpoint, limits=ONE_BY_ONE)
        capability.run(job, capability.accept(job), context, sink)
    return Collected(
        tuple(sink.items),
        tuple(sink.checkpoints),
        lambda start: _collect(source, options, start),
    )


@contextmanager
def _capability(
    target: Callable[..., object], kind: Kind, options: Options
) -> Iterator[tuple[Capability, dict[str, object], Context]]:
    definition = Definition("law.check@1", kind, "process", target)
    with tempfile.TemporaryDirectory(prefix="hivemesh-") as folder:
        artifacts = LocalArtifacts(Path(folder) / "artifacts")
        given = with_artifacts(_plain(options), definition.signature().options, artifacts)
        context = Context(
            key="law.check.0",
            capability=definition.id,
            scratch=Path(folder) / "scratch",
            artifacts=artifacts,
            port=_Silent(),
        )
        yield Capability(definition), given, context


def _plain(options: Options) -> dict[str, object]:
    if options is None:
        return {}
    if isinstance(options, msgspec.Struct):
        plain: dict[str, object] = msgspec.to_builtins(options)
        return plain
    return {name: _path_as_text(value) for name, value in options.items()}


def _path_as_text(value: object) -> object:
    if isinstance(value, list):
        return [_path_as_text(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def _partition(lines: Sequence[bytes], chance: random.Random) -> Iterator[Sequence[bytes]]:
    start = 0
    while start < len(lines):
        end = start + chance.randint(1, max(1, len(lines) // 2))
        yield lines[start:end]
        start = end


class _Reduction:
    """The three steps of one reducer."""

    def __init__(
        self, capability: Capability, options: Mapping[str, object], context: Context
    ) -> None:
        self._capability = capability
        self._options = options
        self._context = context

    def add(self, lines: Sequence[bytes]) -> bytes:
        """The state of some records."""
        return self._run(Job(kind="add", inputs=[b"".join(lines)], parameters={}))

    def merged(self, states: list[bytes], chance: random.Random) -> bytes:
        """One state of several, two at a time, in a random order."""
        while len(states) > 1:
            pair = [states.pop(chance.randrange(len(states))) for _ in range(2)]
            states.append(self._run(Job(kind="merge", inputs=pair, parameters={})))
        return states[0]

    def result(self, state: bytes) -> object:
        """The answer, as JSON reads it."""
        job = Job(kind="result", inputs=[state], parameters=self._options)
        answer: object = json.loads(self._run(job))
        return answer

    def _run(self, job: Job) -> bytes:
        options = self._capability.accept(job)
        answer = self._capability.run(job, options, self._context, _Sink())
        return answer or NOTHING


class _Sink:
    """Takes what a capability emits."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.checkpoints: list[tuple[int, bytes]] = []

    def emit(self, rejected: Sequence[Rejected], batch: Batch | None) -> None:
        """Keep the items in order; the checkpoint holds after all of them."""
        self.items += rejected
        if batch is not None:
            self.items += batch.data.splitlines()
            self.checkpoints.append((len(self.items), batch.checkpoint))


class _Silent:
    """A step that nobody watches or cancels."""

    def cancelled(self) -> bool:
        """Never."""
        return False

    def progress(self, done: int, total: int, unit: str) -> None:
        """Say nothing."""

    def log(self, level: str, event: str, fields: Mapping[str, object]) -> None:
        """Say nothing."""

    def remaining_s(self) -> float | None:
        """There is no deadline."""
        return None
