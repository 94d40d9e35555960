"""Whatever is cut off a trail is named, the last record included; what a crash leaves is not taken for it."""

import asyncio
import errno
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
from audit_support import Place, event, write
from hivemesh_platform.audit import end as ends
from hivemesh_platform.audit import records
from hivemesh_platform.audit.errors import AuditUnavailableError
from hivemesh_platform.audit.segments import segments
from hivemesh_platform.audit.verification import verify
from hivemesh_platform.cli.audit import app
from typer.testing import CliRunner

NUMBER = 12
CHILD = Path(__file__).parents[2] / "support" / "audit_child.py"


@pytest.fixture
async def place(tmp_path):
    found = Place(tmp_path)
    await found.filled(NUMBER, checkpoint_records=5)
    return found


def file_of(place):
    return segments(place.folder)[-1].path


def told(place):
    return ends.told(place.sink.end, place.keys.public).end


def cut(place, left):
    """Leave so many records of a trail, whatever files they are in, and no later checkpoint beside them."""
    for segment in segments(place.folder):
        lines = segment.path.read_bytes().splitlines(keepends=True)
        here = max(0, min(len(lines), left - segment.first + 1))
        segment.path.write_bytes(b"".join(lines[:here]))
        segment.checkpoints.unlink(missing_ok=True)
        if here < len(lines):
            segment.head.unlink(missing_ok=True)
        if not here:
            segment.path.unlink()


@pytest.mark.parametrize("left", range(NUMBER))
async def test_a_cut_at_every_record_is_named_after_an_orderly_stop(place, left):
    cut(place, left)
    finding = place.verify().finding
    assert (finding.seq, finding.kind) == (left + 1, "missing")
    assert place.verify(key=place.keys.signing.public.id).finding == finding


@pytest.mark.parametrize("left", range(NUMBER))
async def test_a_cut_is_named_for_good_once_the_platform_has_gone_on(place, left):
    cut(place, left)
    async with place.open() as trail:
        assert "are missing" in trail.problem
        await write(trail, 3)
    await place.filled(2)
    finding = place.verify().finding
    assert (finding.seq, finding.kind) == (left + 1, "missing")


async def test_a_cut_in_the_middle_of_a_record_is_named(place):
    path = file_of(place)
    path.write_bytes(path.read_bytes()[:-20])
    assert place.verify().finding.seq == NUMBER
    await place.filled(1)
    assert place.verify().finding.seq == NUMBER


@pytest.mark.integration
async def test_a_cut_at_every_record_is_named_after_a_kill(tmp_path):
    """No checkpoint covers the last of them: the platform was killed right behind its answers."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        str(CHILD),
        str(tmp_path / "killed"),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(CHILD.parent)},
    )
    acknowledged = 0
    async with asyncio.timeout(60):
        while acknowledged < 130:
            await child.stdout.readline()
            acknowledged += 1
    child.send_signal(signal.SIGKILL)
    acknowledged += len([line async for line in child.stdout])
    assert await child.wait() == -signal.SIGKILL
    place = Place(tmp_path / "killed")
    assert place.verify().finding is None
    last = told(place).seq
    assert acknowledged <= last <= len(place.records())
    for left in range(last):
        copy = Place(tmp_path / f"cut{left}")
        shutil.copytree(place.state, copy.state)
        cut(copy, left)
        finding = copy.verify().finding
        assert (finding.seq, finding.kind) == (left + 1, "missing"), left
        shutil.rmtree(copy.state)
    async with place.open() as trail:
        assert trail.problem == ""  # a kill is no damage
        await trail.record(event())
    assert place.verify().finding is None


async def test_what_was_durable_but_not_told_is_kept_and_said(place):
    """Killed between the two writes."""
    end = place.sink.end.read_bytes()
    before = place.sink.path.read_bytes()
    async with place.open() as trail:
        await write(trail, 2, at_once=1)
        copy = Place(place.state / "copy")
        copy.state.mkdir()
        shutil.copytree(place.folder, copy.folder)
        shutil.copytree(place.state / "trust", copy.state / "trust")
    copy.sink.end.write_bytes(end)
    copy.sink.path.write_bytes(before)
    report = copy.verify()
    assert report.finding is None
    assert any(f"{NUMBER + 1} to {NUMBER + 2} are behind the end" in one for one in report.remarks)
    async with copy.open() as trail:
        assert trail.problem == ""
        await trail.record(event())
    (said,) = [one for one in copy.records() if one.action == "trail:unanswered"]
    assert said.object == f"records:{NUMBER + 1}-{NUMBER + 2}"
    report = copy.verify()
    assert report.finding is None
    assert not any("behind the end" in one for one in report.remarks)


async def test_a_torn_slot_leaves_the_end_before(place):
    path = place.sink.end
    data = bytearray(path.read_bytes())
    newest = ends.told(path, place.keys.public)
    at = newest.slot * ends.SLOT
    data[at + 100 : at + ends.SLOT] = bytes(ends.SLOT - 100)
    path.write_bytes(data)
    torn = ends.told(path, place.keys.public)
    assert (torn.unreadable, torn.slot) == (1, 1 - newest.slot)
    assert torn.end.seq < newest.end.seq
    await place.filled(1)
    mended = ends.told(path, place.keys.public)
    assert (mended.unreadable, mended.end.seq) == (0, len(place.records()))


async def test_the_last_record_rewritten_is_found_after_a_start_too(place):
    """It has no key to sign with, but hashes need none."""
    path = file_of(place)
    lines = path.read_bytes().splitlines(keepends=True)
    members = json.loads(lines[-1])
    prev = members["prev"]
    forged = {name: members[name] for name in members if name not in {"hash", "prev", "seq"}}
    data, _ = records.line({**forged, "actor": "somebody else"}, NUMBER, prev)
    path.write_bytes(b"".join([*lines[:-1], data, b"\n"]))
    segments(place.folder)[-1].checkpoints.unlink()
    lines = place.sink.path.read_text().splitlines(keepends=True)
    place.sink.path.write_text("".join(lines[:-1]))
    assert place.verify().finding.kind == "rewritten"
    async with place.open() as trail:
        assert "not the one that was told" in trail.problem
        await trail.record(event())
    assert place.verify().finding.kind == "rewritten"


async def test_an_old_end_that_was_put_back_is_found(place):
    old = place.sink.end.read_bytes()
    await place.filled(NUMBER, checkpoint_records=5)
    place.sink.end.write_bytes(old)
    finding = place.verify().finding
    assert (finding.seq, finding.kind) == (NUMBER + 1, "checkpoint")
    async with place.open() as trail:
        assert "older than its checkpoints" in trail.problem


async def test_an_end_that_is_not_there_or_of_another_key_is_a_finding(place, tmp_path):
    good = place.sink.end.read_bytes()
    other = Place(tmp_path / "foreign")
    await other.filled(NUMBER)
    place.sink.end.write_bytes(other.sink.end.read_bytes())
    assert place.verify().finding.kind == "checkpoint"
    for data in (b"", None):
        place.sink.end.write_bytes(data) if data is not None else place.sink.end.unlink()
        finding = place.verify().finding
        assert (finding.seq, finding.kind) == (1, "checkpoint")
        assert str(place.sink.end) in finding.detail
    async with place.open() as trail:
        assert "not told" in trail.problem
        await trail.record(event())
    assert place.records()[NUMBER].action == "trail:damaged"
    place.sink.end.write_bytes(good)
    assert place.verify().finding is not None


async def test_an_end_that_is_taken_away_is_begun_anew_and_written_down(place):
    async with place.open() as trail:
        await trail.record(event())
        place.sink.end.unlink()
        await write(trail, 2, at_once=1)
        assert "taken away" in trail.problem
    assert "trail:damaged" in {one.action for one in place.records()}
    assert told(place).seq == len(place.records())
    assert place.verify().finding is None


class Away:
    """A second place that cannot be written for as long as a test says so."""

    def __init__(self, monkeypatch):
        self.away = False
        self._write = os.pwrite
        monkeypatch.setattr("hivemesh_platform.audit.end.os.pwrite", self.write)

    def write(self, descriptor, data, place):
        if self.away:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return self._write(descriptor, data, place)


async def test_where_the_end_cannot_be_told_nothing_is_answered(place, monkeypatch):
    disk = Away(monkeypatch)
    async with place.open() as trail:
        await trail.record(event(1))
        disk.away = True
        for number in range(3):
            with pytest.raises(AuditUnavailableError, match="Input/output"):
                await trail.record(event(100 + number))
        trail.note(event(200))
        await trail.end()
        disk.away = False
        await trail.record(event(2))
        assert trail.problem == ""
        assert trail.counters.dropped == 1
    late = [one.object for one in place.records() if one.seq > NUMBER]
    # One group is durable without its end; the others were refused before they were written.
    assert late == ["run_1", "run_100", "", "run_2"]
    assert place.verify().finding is None


def command(*words):
    return CliRunner().invoke(app, ["verify", *words], standalone_mode=False)


async def test_offline_the_second_place_is_looked_at_without_being_named(place):
    known = place.state / "audit-checkpoints.jws"
    place.sink.path.rename(known)
    place.sink.end.rename(f"{known}.end")
    state = str(place.state)
    answer = command("--folder", state)
    assert (answer.return_value, "the trail holds" in answer.output) == (0, True)
    cut(place, NUMBER - 1)
    answer = command("--folder", str(place.folder))
    assert answer.return_value == 1
    assert f"record {NUMBER}: " in answer.output + answer.stderr


async def test_offline_a_second_place_that_is_not_there_is_a_failure_unless_it_is_said(place):
    answer = command("--folder", str(place.state))
    assert answer.return_value == 1
    assert "--without-checkpoints" in answer.output + answer.stderr
    answer = command("--folder", str(place.state), "--without-checkpoints")
    assert answer.return_value == 0
    answer = command("--folder", str(place.state), "--checkpoints", str(place.sink.path))
    assert answer.return_value == 0


async def test_without_the_second_place_the_end_alone_still_counts(place):
    """As with the system's log, which cannot be read again."""
    assert verify(place.folder, told=place.sink.end).finding is None
    cut(place, NUMBER - 1)
    assert verify(place.folder, told=place.sink.end).finding.seq == NUMBER
