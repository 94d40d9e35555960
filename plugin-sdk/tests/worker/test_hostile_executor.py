"""An executor runs code that may be hostile: its front bounds and survives whatever it sends."""

import json

import psutil
import pytest
from worker_harness import until

pytestmark = pytest.mark.integration


async def still_works(sample):
    answer = await sample.put("sample.upper@1", "call", [b'{"id":1,"text":"a"}'])
    return answer.result == {"id": 1, "text": "A"}


@pytest.mark.parametrize(
    ("how", "words"),
    [("garbage", "no message"), ("huge", "no message"), ("flood", "more than was asked for")],
)
async def test_an_executor_that_breaks_the_channel_is_ended(sample, how, words):
    answer = await sample.put("sample.babble@1", inputs=[json.dumps(how).encode()], key="r.s.1")
    last = await sample.read_all("r.s.1", answer)
    assert last[-1].event.problem.type.endswith(":executor-crashed")
    assert words in last[-1].event.problem.detail
    assert await still_works(sample)


@pytest.mark.parametrize("capability", ["sample.talk@1", "sample.inline.talk@1"])
async def test_a_flood_of_log_lines_is_cut(sample, capability):
    answer = await sample.put(capability)
    assert answer.kinds.count("log") == 1000
    assert answer.frames[999].event.message == "log_truncated"


async def test_rejected_records_never_break_a_line(sample):
    first = await sample.put("sample.picky@1", "source", key="r.s.1")
    frames = await sample.read_all("r.s.1", first)
    rejected = [frame.event for frame in frames if hasattr(frame.event, "reason")]
    assert len(rejected) == 2
    assert all(len(str(one.position)) <= 2000 and len(one.detail) <= 2000 for one in rejected)


async def test_children_of_an_executor_die_with_it(sample):
    flag = sample.folder / "pid"
    await sample.put("sample.fork@1", parameters={"path": str(flag)})
    pid = int(flag.read_text())
    await until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie")
    assert await still_works(sample)
