"""Pages are taken as they come: stored by digest, each event once, damage is a repeated attempt."""

import asyncio
import hashlib
import json

import pytest
from fake_workers import ndjson, records_frame, result_frame
from hivemesh_platform.artifacts.local import LocalArtifactStore
from hivemesh_platform.execution.steps.pages import (
    INLINE_ANSWER,
    MAX_COUNT,
    PageReader,
    StepFailedError,
    Taken,
)
from hivemesh_sdk.contracts.artifacts import Artifact, DataClass
from hivemesh_sdk.contracts.pages import Frame, encode_event
from hivemesh_sdk.contracts.problems import problem, slug_of
from hivemesh_sdk.contracts.steps import (
    LogEvent,
    ProblemEvent,
    ProgressEvent,
    RecordsEvent,
    RejectedEvent,
    ResultEvent,
)
from msgspec.structs import replace
from structlog.testing import capture_logs


def page(*frames):
    return b"".join(chunk for frame in frames for chunk in encode_event(frame))


@pytest.fixture
async def store(tmp_path):
    async with LocalArtifactStore(tmp_path) as opened:
        yield opened


BYTES = b"stored by a step of the run"
STORED = hashlib.sha256(BYTES).hexdigest()


async def may_name(sha256):
    return sha256 == STORED


@pytest.fixture
def reader(store):
    return PageReader(store, "run_1.read.0", keep_answer=False, may_name=may_name)


def saying(data):
    """A result whose bytes are what the worker likes."""
    return Frame(ResultEvent(no=1, bytes=len(data)), data)


async def test_a_batch_is_stored_under_its_digest_and_not_looked_into(store, reader):
    body = b"this is no JSON\n"
    frame = records_frame(1, [])
    event = replace(frame.event, bytes=len(body), count=1, sha256="")
    taken = Taken()
    await reader.take(page(Frame(event, body)), taken)
    assert await store.read(taken.batches[0].sha256) == body


async def test_events_that_came_before_are_left_out(reader):
    taken = Taken()
    first = page(records_frame(1, [{"n": 1}], 1))
    await reader.take(first, taken)
    await reader.take(first + page(records_frame(2, [{"n": 2}], 2)), taken)
    assert len(taken.batches) == 2
    assert (taken.last, taken.checkpoint) == (2, "2")


async def test_a_long_page_is_taken_some_batches_at_a_time(reader):
    body = page(*[records_frame(no, [{"n": no}], no) for no in (1, 2, 3)])
    taken, checkpoints = Taken(), []
    more = True
    while more:
        more = await reader.take(body, taken, 2)
        checkpoints.append((taken.last, taken.checkpoint, len(taken.batches)))
        taken.clear()
    assert checkpoints == [(2, "2", 2), (3, "3", 1)]


class Meeting(LocalArtifactStore):
    """Stores nothing before so many ask for it at the same moment."""

    def __init__(self, folder, count):
        super().__init__(folder)
        self._together = asyncio.Barrier(count)

    async def put(self, data, sha256):
        async with asyncio.timeout(30):
            await self._together.wait()
        return await super().put(data, sha256)


async def test_the_batches_of_a_page_are_stored_side_by_side(tmp_path):
    body = page(*[records_frame(no, [{"n": no}], no) for no in (1, 2, 3, 4)])
    async with Meeting(tmp_path, 2) as store:
        reader, taken = PageReader(store, "r.s.0", keep_answer=False, may_name=may_name), Taken()
        assert await reader.take(body, taken, 2)
        assert not await reader.take(body, taken, 4)
        kept = [await store.read(batch.sha256) for batch in taken.batches]
    assert kept == [ndjson([{"n": no}]) for no in (1, 2, 3, 4)]


async def test_what_came_before_a_batch_that_is_damaged_is_taken(reader):
    good, bad = records_frame(1, [{"n": 1}], 1), records_frame(2, [{"n": 2}], 2)
    taken = Taken()
    with pytest.raises(StepFailedError):
        await reader.take(page(good, Frame(replace(bad.event, sha256="0" * 64), bad.body)), taken)
    assert (len(taken.batches), taken.last, taken.checkpoint) == (1, 1, "1")


async def test_an_event_that_comes_twice_in_a_page_counts_once(reader):
    taken = Taken()
    await reader.take(page(*[records_frame(1, [{"n": n}], n) for n in (1, 2)]), taken)
    assert (len(taken.batches), taken.checkpoint) == (1, "1")


async def test_rejected_records_before_the_last_batch_are_settled(reader):
    taken = Taken()
    refused = [Frame(RejectedEvent(no=no, reason="bad", position=no)) for no in (1, 3)]
    await reader.take(page(refused[0], records_frame(2, [{}], 5), refused[1]), taken)
    assert (len(taken.rejected), taken.settled) == (2, 1)


async def test_progress_and_log_are_no_reason_to_record(reader):
    taken = Taken()
    progress = Frame(ProgressEvent(no=1, done=5, total=10, unit="bytes"))
    log = Frame(LogEvent(no=2, level="info", message="hello"))
    await reader.take(page(progress, log), taken)
    assert taken.is_empty
    assert (taken.progress.done, taken.last) == (5, 2)


async def test_counts_of_progress_are_cut_to_what_a_column_holds(reader):
    taken = Taken()
    await reader.take(page(Frame(ProgressEvent(no=1, done=2**70, total=-(2**70)))), taken)
    assert (taken.progress.done, taken.progress.total) == (MAX_COUNT, -MAX_COUNT)


async def test_a_short_answer_stays_in_the_row(reader):
    taken = Taken()
    await reader.take(page(result_frame(1, {"a": 1})), taken)
    assert taken.ended
    assert json.loads(bytes(taken.output.value)) == {"a": 1}


async def test_a_long_answer_becomes_an_artifact(store, reader):
    taken = Taken()
    await reader.take(page(result_frame(1, "x" * INLINE_ANSWER)), taken)
    assert json.loads(await store.read(taken.output.artifact.sha256)) == "x" * INLINE_ANSWER


async def test_a_state_is_always_an_artifact(store):
    taken = Taken()
    reader = PageReader(store, "run_1.sum.1", keep_answer=True, may_name=may_name)
    await reader.take(page(result_frame(1, {"a": 1})), taken)
    assert taken.output.artifact is not None


@pytest.mark.parametrize(
    "data",
    [
        b"hello",
        b"",
        b"[" * 65 + b"]" * 65,
        b"[" * 5000 + b"]" * 5000,
        b'"\xff"',
        b"1e999",
        b'1,"artifact":{"sha256":"' + b"0" * 64 + b'","count":0,"bytes":1}',
        b"1}{",
    ],
    ids=["words", "nothing", "deep", "deeper", "no UTF-8", "no double", "spliced", "two"],
)
async def test_an_answer_that_is_no_value_ends_the_step(reader, data):
    taken = Taken()
    with pytest.raises(StepFailedError) as failed:
        await reader.take(page(saying(data)), taken)
    assert slug_of(failed.value.document) == "output-invalid"
    assert taken.output is None


async def test_a_batch_that_is_named_is_not_stored_again_and_is_as_large_as_it_is(store, reader):
    await store.put(BYTES, "")
    used = store.used_bytes
    event = RecordsEvent(no=1, count=2, sha256=STORED, artifact=Artifact(sha256=STORED, size=1))
    taken = Taken()
    await reader.take(page(Frame(event)), taken)
    assert (taken.batches[0].sha256, taken.batches[0].bytes) == (STORED, len(BYTES))
    assert store.used_bytes == used


async def test_an_answer_that_is_named_is_as_large_as_it_is(store, reader):
    await store.put(BYTES, "")
    taken = Taken()
    event = ResultEvent(no=1, artifact=Artifact(sha256=STORED, size=1))
    await reader.take(page(Frame(event)), taken)
    assert taken.output.artifact.bytes == len(BYTES)


@pytest.mark.parametrize("count", [-1, 2**63])
async def test_a_batch_has_as_many_records_as_there_can_be(reader, count):
    frame = records_frame(1, [{"n": 1}], 1)
    with pytest.raises(StepFailedError, match="records"):
        await reader.take(page(Frame(replace(frame.event, count=count), frame.body)), Taken())


@pytest.mark.parametrize("event", [RecordsEvent(no=1, count=2, sha256=""), ResultEvent(no=1)])
@pytest.mark.parametrize("sha256", ["1" * 64, "../../trust/root.key", ""])
async def test_what_the_run_has_not_stored_cannot_be_named(reader, event, sha256):
    taken = Taken()
    named = replace(event, artifact=Artifact(sha256=sha256, size=7))
    with pytest.raises(StepFailedError, match="has not stored"):
        await reader.take(page(Frame(named)), taken)
    assert (taken.batches, taken.output) == ([], None)


async def test_the_end_without_a_value_is_an_end(reader):
    taken = Taken()
    await reader.take(page(Frame(ResultEvent(no=1))), taken)
    assert taken.ended
    assert taken.output is None


async def test_a_problem_ends_the_execution_with_its_document(reader):
    with pytest.raises(StepFailedError) as failed:
        await reader.take(page(Frame(ProblemEvent(no=1, problem=problem("step-fatal")))), Taken())
    assert slug_of(failed.value.document) == "step-fatal"


async def test_what_came_before_a_problem_is_kept(reader):
    taken = Taken()
    frames = records_frame(1, [{}], 1), Frame(ProblemEvent(no=2, problem=problem("step-fatal")))
    with pytest.raises(StepFailedError):
        await reader.take(page(*frames), taken)
    assert len(taken.batches) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"no json\n",
        b'{"type": "records"}\n',
        b'{"type":"log","no":1,"level":"info","message":"\xff"}\n',
        b'{"type":"rejected","no":1,"reason":"","position":' + b"[" * 5000 + b"]" * 5000 + b"}\n",
        page(records_frame(1, [{"n": 1}], "x")).replace(b'"x"', b'"\xff"'),
        page(records_frame(1, [{"n": 1}], 1))[:-3],
        page(records_frame(1, [{"n": 1}], 1)).replace(ndjson([{"n": 1}]), ndjson([{"n": 2}])),
    ],
)
async def test_a_damaged_page_is_a_reason_to_repeat(reader, data):
    with pytest.raises(StepFailedError) as failed:
        await reader.take(data, Taken())
    assert failed.value.document.retryable


@pytest.mark.parametrize(
    ("withheld", "told"), [(None, "Anna wrote"), (DataClass.PERSONAL, "(personal: withheld)")]
)
async def test_the_log_holds_no_text_of_steps_above_its_class(store, withheld, told):
    reader = PageReader(store, "r.s.1", keep_answer=False, may_name=may_name, withheld=withheld)
    with capture_logs() as lines:
        line = LogEvent(no=1, level="info", message="Anna wrote", fields={"to": "Bert"})
        await reader.take(page(Frame(line, b"")), Taken())
    (said,) = [one for one in lines if one["event"] == "worker_said"]
    assert said["text"] == told
    assert "Bert" not in str(lines)
