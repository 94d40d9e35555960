"""What a crash leaves is closed off and told; what cannot come from a crash is told as damage."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from audit_support import Place, event, write
from hivemesh_platform.audit.segments import segments

CHILD = Path(__file__).parents[2] / "support" / "audit_child.py"


@pytest.fixture
async def place(tmp_path):
    found = Place(tmp_path)
    await found.filled(5)
    return found


def tail(place, data):
    with segments(place.folder)[-1].path.open("ab") as file:
        file.write(data)


LEFT = [
    b'{"action":"run:pipe',
    b"{",
    b"\0" * 4096,
    b'{"action":"run:pipeline","actor":"a"}',
    b'{"action":"run:pipe\n',
]


@pytest.mark.parametrize("left", LEFT)
async def test_a_torn_line_stays_and_is_closed_off_by_a_record(place, left):
    before = segments(place.folder)[-1].path.read_bytes()
    tail(place, left)
    assert place.verify().finding is None
    async with place.open() as trail:
        await trail.record(event(9))
    after = segments(place.folder)[-1].path.read_bytes()
    assert after.startswith(before + left)
    assert [one.action for one in place.records()][5:] == ["trail:recovered", "run:pipeline"]
    report = place.verify()
    assert (report.finding, report.recovered) == (None, 1)


async def test_a_record_without_its_newline_is_kept(place):
    path = segments(place.folder)[-1].path
    path.write_bytes(path.read_bytes()[:-1])
    await place.filled(1)
    assert [one.seq for one in place.records()] == [1, 2, 3, 4, 5, 6]
    assert place.verify().finding is None


async def test_a_crash_right_after_the_beginning_of_a_segment_is_no_gap(place):
    end = place.sink.end.read_bytes()
    async with place.open(segment_bytes=10) as trail:
        await trail.record(event())
    newest = segments(place.folder)[-1]
    assert newest.first == 6
    place.sink.end.write_bytes(end)
    newest.path.write_bytes(b"")
    first, *_ = place.sink.path.read_text().splitlines(keepends=True)
    place.sink.path.write_text(first)
    newest.checkpoints.unlink()
    await place.filled(2)
    assert [one.seq for one in place.records()] == [1, 2, 3, 4, 5, 6, 7]
    assert place.verify().finding is None


async def test_a_damaged_trail_goes_on_and_stays_damaged(place):
    path = segments(place.folder)[-1].path
    path.write_bytes(path.read_bytes().replace(b"run_2", b"run_7"))
    async with place.open() as trail:
        await trail.record(event())
        assert "record 3 was changed" in trail.problem
    assert [one.action for one in place.records()][5:] == ["trail:damaged", "run:pipeline"]
    assert place.verify().finding.seq == 3


async def test_a_trail_whose_end_was_cut_off_goes_on_and_stays_cut(place):
    path = segments(place.folder)[-1].path
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
    async with place.open() as trail:
        await write(trail, 20)
    assert "4 to 5 are missing" in place.records()[3].reason
    assert [one.seq for one in place.records()][:5] == [1, 2, 3, 6, 7]  # the gap stays
    await place.filled(1)
    finding = place.verify().finding
    assert (finding.seq, finding.kind) == (4, "missing")


async def test_a_start_without_the_second_place_is_written_down(place):
    """Else a restart would begin it anew, and nobody would see that it was gone."""
    place.sink.path.unlink()
    async with place.open() as trail:
        await trail.record(event())
        assert "second copy" in trail.problem
    assert place.records()[5].action == "trail:damaged"
    assert str(place.sink.path) in place.records()[5].reason
    assert place.verify().finding is None


async def test_a_torn_checkpoint_is_replaced(place):
    for path in (place.sink.path, segments(place.folder)[-1].checkpoints):
        with path.open("a") as file:
            file.write("eyJhbGciOiJ")
    assert place.verify().finding is None
    await place.filled(1)
    report = place.verify()
    assert (report.finding, report.proven) == (None, 6)


@pytest.mark.integration
@pytest.mark.parametrize("after", [1, 40, 333])
async def test_killed_while_it_writes_it_loses_no_acknowledged_record(tmp_path, after):
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        str(CHILD),
        str(tmp_path),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(CHILD.parent)},
    )
    acknowledged = set()
    async with asyncio.timeout(60):
        while len(acknowledged) < after:
            acknowledged.add((await child.stdout.readline()).decode().strip())
    child.send_signal(signal.SIGKILL)
    acknowledged |= {line.decode().strip() async for line in child.stdout}
    assert await child.wait() == -signal.SIGKILL
    place = Place(tmp_path)
    async with place.open() as trail:
        await trail.record(event(actor="after"))
    found = place.records()
    written = {one.object for one in found}
    assert {one for one in acknowledged if one.startswith("run_")} <= written
    assert [one.seq for one in found] == list(range(1, len(found) + 1))
    assert place.verify().finding is None


async def test_a_seal_without_a_next_segment_is_no_seal(place):
    """Killed between the head of a segment and the beginning of the next one."""
    newest = segments(place.folder)[-1]
    newest.head.write_text("anything")
    await place.filled(2)
    assert not newest.head.exists()
    assert [one.seq for one in place.records()] == [1, 2, 3, 4, 5, 6, 7]
    assert place.verify().finding is None
