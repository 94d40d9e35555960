"""Runs one capability in this process, without platform, network or executor.

The same code decodes, validates, cuts and encodes as in a served step (`kinds.py`).
"""

import queue
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from hivemesh_sdk.errors import NotFoundError
from hivemesh_sdk.worker.batches import Batch
from hivemesh_sdk.worker.context import Context
from hivemesh_sdk.worker.definition import Worker
from hivemesh_sdk.worker.failures import StepCancelledError, refuse_secrets
from hivemesh_sdk.worker.http import NO_HTTP, Http
from hivemesh_sdk.worker.kinds import DEFAULT_LIMITS, NOTHING, Capability, Job
from hivemesh_sdk.worker.local_artifacts import LocalArtifacts, with_artifacts
from hivemesh_sdk.worker.records import Rejected
from hivemesh_sdk.worker.secrets import GivenValues, Vault

KEY = "local.step.0"
_AHEAD = 2  # batches that may wait for whoever iterates


class Report(Protocol):
    """Where progress and log lines go."""

    def progress(self, done: int, total: int, unit: str) -> None: ...

    def log(self, level: str, event: str, fields: Mapping[str, object]) -> None: ...


class Quiet:
    """A report that nobody reads."""

    def progress(self, done: int, total: int, unit: str) -> None:
        """Say nothing."""

    def log(self, level: str, event: str, fields: Mapping[str, object]) -> None:
        """Say nothing."""


def run_local(  # noqa: PLR0913 - keyword-only parts of one run
    worker: Worker,
    capability: str,
    options: Mapping[str, object],
    lines: Iterable[bytes] = (),
    *,
    checkpoint: bytes = NOTHING,
    folder: Path | None = None,
    report: Report | None = None,
    secrets: Mapping[str, str] | None = None,
    http: Http = NO_HTTP,
) -> Iterator[bytes | Rejected]:
    """Yield what the capability answers: records and results as JSON, or why one was rejected.

    `lines` are records, or the one document that a call takes. A path stands for an `Artifact`
    in `options`; `secrets` are values by path, `http` says where requests may go. What the
    capability stores goes into `folder`, by default a temporary one.

    Raises:
        HivemeshError: the capability is unknown, an option is wrong, or it raised one.
    """
    definition = worker.capabilities.get(capability)
    if definition is None:
        message = f"{capability!r}; there are {sorted(worker.capabilities)}"
        raise NotFoundError(message, slug="unknown-capability")
    signature = definition.signature()
    vault = GivenValues(secrets or {})
    with tempfile.TemporaryDirectory(prefix="hivemesh-") as scratch:
        artifacts = LocalArtifacts(folder or Path(scratch) / "artifacts")
        parameters = with_artifacts(options, signature.options, artifacts)
        run = _Run(report or Quiet())
        context = Context(
            key=KEY,
            capability=capability,
            scratch=Path(scratch) / "scratch",
            artifacts=artifacts,
            port=run,
            vault=vault,
            http=http,
        )
        jobs = _jobs(definition.kind, parameters, lines, checkpoint, vault)
        yield from run.answers(Capability(definition), jobs, context)


def _jobs(
    kind: str,
    parameters: Mapping[str, object],
    lines: Iterable[bytes],
    checkpoint: bytes,
    vault: Vault,
) -> Iterator[Job]:
    """The steps that the platform would make of it: a map's run batch by batch."""
    match kind:
        case "source":
            yield Job(kind="source", parameters=parameters, checkpoint=checkpoint, vault=vault)
        case "map":
            for batch in _batches(lines):
                yield Job(kind="map", inputs=[batch], parameters=parameters, vault=vault)
        case "reducer":
            yield Job(kind="add", inputs=_batches(lines), parameters={})
            yield Job(kind="result", parameters=parameters, vault=vault)
        case _:
            yield Job(kind="call", inputs=[b"".join(lines)], parameters=parameters, vault=vault)


def _batches(lines: Iterable[bytes]) -> Iterator[bytes]:
    held: list[bytes] = []
    size = 0
    for line in lines:
        held.append(line if line.endswith(b"\n") else line + b"\n")
        size += len(line)
        if len(held) >= DEFAULT_LIMITS.records or size >= DEFAULT_LIMITS.bytes:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


class _Run:
    """The capability runs in a thread and stays at most two batches ahead of the iteration."""

    def __init__(self, report: Report) -> None:
        self._answers: queue.Queue[list[bytes | Rejected] | BaseException | None] = queue.Queue(
            _AHEAD
        )
        self._given_up = threading.Event()
        self.progress = report.progress
        self.log = report.log

    def answers(
        self, capability: Capability, jobs: Iterator[Job], context: Context
    ) -> Iterator[bytes | Rejected]:
        """Run the jobs one after another and yield their answers."""
        thread = threading.Thread(target=self._work, args=(capability, jobs, context), daemon=True)
        thread.start()
        try:
            while (answer := self._answers.get()) is not None:
                if isinstance(answer, BaseException):
                    raise answer
                yield from answer
        finally:
            self._given_up.set()
            while thread.is_alive():
                self._make_room()
                thread.join(0.05)

    def emit(self, rejected: Sequence[Rejected], batch: Batch | None) -> None:
        """Take a batch of the capability."""
        refuse_secrets(b"" if batch is None else batch.data, "a record")
        records = [] if batch is None else batch.data.split(b"\n")[:-1]
        self._put([*rejected, *records])

    def cancelled(self) -> bool:
        """Whether nobody iterates any more."""
        return self._given_up.is_set()

    def remaining_s(self) -> float | None:
        """There is no deadline."""
        return None

    def _work(self, capability: Capability, jobs: Iterator[Job], context: Context) -> None:
        try:
            state: bytes | None = None
            for job in jobs:
                step = job if state is None else _with_state(job, state)
                options = capability.accept(step)
                result = capability.run(step, options, context, self)
                refuse_secrets(result or b"", "the answer")
                if step.kind == "add":
                    state = result
                elif result is not None:
                    self._put([result])
            self._put(None)
        except StepCancelledError:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again where the answers are read
            if not self._given_up.is_set():
                self._answers.put(error)

    def _put(self, answer: list[bytes | Rejected] | BaseException | None) -> None:
        if self._given_up.is_set():
            raise StepCancelledError
        self._answers.put(answer)

    def _make_room(self) -> None:
        while not self._answers.empty():
            self._answers.get_nowait()


def _with_state(job: Job, state: bytes) -> Job:
    return Job(kind=job.kind, inputs=[state], parameters=job.parameters, vault=job.vault)
