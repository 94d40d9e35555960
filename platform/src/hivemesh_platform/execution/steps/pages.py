"""Reads the pages of one execution: batches are stored as they come, never looked into."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import structlog
from hivemesh_sdk.contracts.artifacts import Artifact, DataClass
from hivemesh_sdk.contracts.pages import Frame, FramingError, decode_page
from hivemesh_sdk.contracts.problems import Problem, problem
from hivemesh_sdk.contracts.steps import (
    LogEvent,
    ProblemEvent,
    ProgressEvent,
    RecordsEvent,
    RejectedEvent,
    ResultEvent,
)
from hivemesh_sdk.safeio.json import parse_json_fast
from hivemesh_sdk.safeio.problems import MalformedError

from hivemesh_platform.artifacts.errors import DigestMismatchError
from hivemesh_platform.artifacts.model import BatchRef
from hivemesh_platform.artifacts.ports import ArtifactStore, Stored
from hivemesh_platform.execution.ledger.port import Progress
from hivemesh_platform.execution.model import Output, RejectedRecord, is_lost_worker

INLINE_ANSWER = 16 * 1024  # a longer answer becomes an artifact, so that rows stay small
MAX_COUNT = 2**53  # of records in a batch, and in a word on progress

_log = structlog.get_logger("hivemesh.execution")
_encode = msgspec.json.Encoder().encode


def as_told(document: Problem) -> Problem:
    """A failure as its worker tells it: whoever tells of a lost worker has lost one that it asked.

    The worker itself lives, so that this is a failed attempt, to be tried again after a gap.
    """
    if not is_lost_worker(document):
        return document
    return problem("step-failed", f"{document.title}: {document.detail}", retryable=True)


def wrong_answer(body: bytes) -> Problem | None:
    """What is wrong with an answer that its row is to hold, inside a document of the platform."""
    try:
        parse_json_fast(body, name="the answer")
    except MalformedError as error:
        return problem("output-invalid", error.detail)
    return None


class StepFailedError(Exception):
    """The execution ended with a problem."""

    def __init__(self, document: Problem) -> None:
        super().__init__(document.detail or document.title)
        self.document = document


@dataclass(slots=True)
class Taken:
    """What the pages of an execution have brought since it was last emptied."""

    last: int = 0
    checkpoint: str | None = None
    batches: list[BatchRef] = field(default_factory=list)
    rejected: list[RejectedRecord] = field(default_factory=list)
    settled: int = 0  # of the rejected, how many came before the last batch
    progress: Progress | None = None
    ended: bool = False
    output: Output | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing that has to be recorded."""
        return not (self.batches or self.rejected)

    def clear(self) -> None:
        """Forget what has been recorded."""
        self.batches, self.rejected, self.settled, self.progress = [], [], 0, None


class PageReader:
    """Takes the pages of one execution.

    `may_name` says whether the step may refer to an artifact: what it names is read by the next
    step and shown as the run's output, so it must be something that the run knows already.
    `withheld` is the class of the step's data where the platform's log may not hold it: then the
    log tells that a line came, and not what it said. `answered` is told of the good end as soon as
    it is there, before what came with it is stored.
    """

    def __init__(
        self,
        store: ArtifactStore,
        key: str,
        *,
        keep_answer: bool,
        may_name: Callable[[str], Awaitable[bool]],
        withheld: DataClass | None = None,
        answered: Callable[[], None] | None = None,
    ) -> None:
        self._withheld = withheld
        self._answered = answered
        self._store = store
        self._key = key
        self._keep_answer = keep_answer  # a state: always an artifact
        self._may_name = may_name

    async def take(self, body: bytes, into: Taken, batches: int = 0) -> bool:
        """Add the events of a page, with up to so many batches (0: all); True where there are more.

        Events that were taken before are left out.

        Raises:
            StepFailedError: the execution ended with a problem, or the page is malformed.
        """
        try:
            frames = _following(into.last, self._frames(body))
            some = _up_to(batches - len(into.batches), frames) if batches else frames
            stored = await self._stored(some)
            for frame in some:
                await self._take_one(frame, stored, into)
                into.last = frame.event.no
        except (FramingError, DigestMismatchError, UnicodeDecodeError) as error:
            detail = f"a page of {self._key} is damaged: {error}"
            raise StepFailedError(problem("step-failed", detail, retryable=True)) from error
        return len(some) < len(frames)

    def _frames(self, body: bytes) -> Iterable[Frame]:
        if self._answered is None:
            return decode_page(body)
        frames = tuple(decode_page(body))
        if frames and isinstance(frames[-1].event, ResultEvent):
            self._answered()
        return frames

    async def _stored(self, frames: Sequence[Frame]) -> Mapping[int, "asyncio.Task[Stored]"]:
        """Store batches side by side: a disk syncs several files in the time of one."""
        stored = {
            frame.event.no: asyncio.ensure_future(self._store.put(frame.body, frame.event.sha256))
            for frame in frames
            if isinstance(frame.event, RecordsEvent) and frame.event.artifact is None
        }
        await asyncio.gather(*stored.values(), return_exceptions=True)
        return stored

    async def _take_one(
        self, frame: Frame, stored: Mapping[int, "asyncio.Task[Stored]"], into: Taken
    ) -> None:
        match frame.event:
            case RecordsEvent() as event:
                into.batches.append(await self._batch(event, stored))
                into.checkpoint = bytes(event.checkpoint).decode()
                into.settled = len(into.rejected)
            case RejectedEvent() as event:
                into.rejected.append(_rejected(event))
            case ProgressEvent() as event:
                into.progress = _kept(event)
            case ResultEvent() as event:
                into.output = await self._answer(event, frame.body)
                into.ended = True
            case ProblemEvent() as event:
                raise StepFailedError(as_told(event.problem))
            case LogEvent() as event:
                text = event.message if self._withheld is None else f"({self._withheld}: withheld)"
                _log.info("worker_said", step=self._key, level=event.level, text=text)

    async def _batch(
        self, event: RecordsEvent, stored: Mapping[int, "asyncio.Task[Stored]"]
    ) -> BatchRef:
        if not 0 <= event.count <= MAX_COUNT:
            detail = f"a batch of {self._key} has {event.count} records"
            raise StepFailedError(problem("output-invalid", detail))
        if event.artifact is not None:
            found = await self._named(event.artifact)
        else:
            found = await stored[event.no]
        return BatchRef(found.sha256, event.count, found.size, event.encoding)

    async def _answer(self, event: ResultEvent, body: bytes) -> Output | None:
        if event.artifact is not None:
            found = await self._named(event.artifact)
            return Output(artifact=BatchRef(found.sha256, 0, found.size))
        if event.bytes is None:
            return None
        if len(body) <= INLINE_ANSWER and not self._keep_answer:
            wrong = wrong_answer(body)
            if wrong is not None:
                raise StepFailedError(wrong)
            return Output(value=msgspec.Raw(body))
        stored = await self._store.put(body, event.sha256)
        return Output(artifact=BatchRef(stored.sha256, 0, stored.size))

    async def _named(self, artifact: Artifact) -> Stored:
        """An artifact that a worker names instead of sending its bytes, as large as it is.

        Raises:
            StepFailedError: no step of the run has stored it.
        """
        named = await self._may_name(artifact.sha256)
        size = await self._store.size(artifact.sha256) if named else None
        if size is None:
            detail = f"a page of {self._key} names an artifact that its run has not stored"
            raise StepFailedError(problem("step-failed", detail))
        return Stored(artifact.sha256, size)


def _following(last: int, frames: Iterable[Frame]) -> list[Frame]:
    """The frames that come after an event, each of them once."""
    found = []
    for frame in frames:
        if frame.event.no > last:
            found.append(frame)
            last = frame.event.no
    return found


def _up_to(batches: int, frames: Sequence[Frame]) -> Sequence[Frame]:
    """The frames up to a number of batches, and none of what follows the last of them."""
    if batches <= 0:
        return ()
    for place, frame in enumerate(frames, 1):
        batches -= isinstance(frame.event, RecordsEvent)
        if not batches:
            return frames[:place]
    return frames


def _kept(event: ProgressEvent) -> Progress:
    """The word on progress, its counts cut to what a column holds."""
    done, total = (max(-MAX_COUNT, min(count, MAX_COUNT)) for count in (event.done, event.total))
    return Progress(done=done, total=total, unit=event.unit)


def _rejected(event: RejectedEvent) -> RejectedRecord:
    return RejectedRecord(
        reason=event.reason, detail=event.detail, position=_encode(event.position).decode()
    )
