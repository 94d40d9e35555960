"""Records are durable when `record` returns, chained without a gap, and hide their parameters."""

import asyncio
import hashlib
import json
import os
import socket
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from audit_support import OPERATOR, Place, event, write
from hivemesh_platform.audit import records
from hivemesh_platform.audit.checkpoints import SyslogSink, checkpoint_of, sink_of
from hivemesh_platform.audit.errors import AuditUnavailableError
from hivemesh_platform.audit.notes import PER_ACTOR
from hivemesh_platform.audit.records import GENESIS
from hivemesh_platform.audit.segments import segments
from hivemesh_platform.audit.trail import open_trail
from hivemesh_sdk.contracts.manifest import canonical_json
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


TEXT = st.text(max_size=40)


@given(
    event=st.builds(
        event,
        actor=TEXT,
        action=TEXT,
        target=TEXT,
        reason=TEXT,
        rule=TEXT,
        run=TEXT,
        address=TEXT,
        tenant=TEXT,
        policy_version=st.integers(0, 2**31),
        parameters=st.dictionaries(TEXT, TEXT | st.integers() | st.none(), max_size=4),
    ),
    seq=st.integers(1, 2**53),
    count=st.integers(1, 1000),
)
def test_a_line_is_the_canonical_record_and_its_hash_is_that_without_it(event, seq, count):
    at = Place.__dataclass_fields__["clock"].default_factory().now()
    data, own = records.line(records.members(event, at, b"key", count), seq, GENESIS)
    assert b"\n" not in data
    document = json.loads(data)
    assert canonical_json(document) == data
    assert document.pop("hash") == own
    assert hashlib.sha256(canonical_json(document)).hexdigest() == own
    record = records.read(data)
    assert record is not None
    assert records.intact(data, record)
    assert (record.seq, record.hash, record.count) == (seq, own, count)


async def test_records_are_chained_without_a_gap(place):
    async with place.open() as trail:
        await write(trail, 40, at_once=40)
        found = place.records()
    assert [one.seq for one in found] == list(range(1, 41))
    assert [one.prev for one in found] == [GENESIS, *(one.hash for one in found[:-1])]
    assert {one.actor for one in found} == {OPERATOR}


async def test_what_was_recorded_is_in_the_file_when_record_returns(place):
    async with place.open() as trail:
        await trail.record(event(7))
        assert [one.object for one in place.records()] == ["run_7"]


async def test_records_that_wait_together_share_one_fsync(place, monkeypatch):
    calls = []
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (calls.append(fd), real(fd))[1])
    async with place.open() as trail:
        await trail.record(event())
        calls.clear()
        held = asyncio.get_running_loop().create_future()
        blocked = asyncio.create_task(
            trail.run_in_thread(
                lambda _writer: asyncio.run_coroutine_threadsafe(_wait(held), loop).result()
            )
        )
        loop = asyncio.get_running_loop()
        waiting = [asyncio.create_task(trail.record(event(one))) for one in range(50)]
        await asyncio.sleep(0)
        held.set_result(None)
        await asyncio.gather(blocked, *waiting)
        assert len(calls) < 10


async def _wait(future):
    await future


async def test_a_next_start_goes_on_where_the_last_one_ended(place):
    await place.filled(3)
    await place.filled(3)
    assert [one.seq for one in place.records()] == [1, 2, 3, 4, 5, 6]
    assert place.verify().finding is None


async def test_segments_follow_each_other_without_a_gap(place):
    await place.filled(50, segment_bytes=2000)
    known = segments(place.folder)
    assert len(known) > 3
    assert [one.seq for one in place.records()] == list(range(1, 51))
    assert all(one.head.exists() for one in known[:-1])
    assert place.verify().finding is None


async def test_a_segment_is_sealed_after_a_day(place):
    async with place.open() as trail:
        await write(trail, 3)
        place.clock.advance(timedelta(days=1))
        await write(trail, 3)
    assert [one.first for one in segments(place.folder)] == [1, 4]


async def test_only_the_owner_reads_the_files(place):
    await place.filled(50, segment_bytes=2000)
    for path in [*place.folder.iterdir(), place.sink.path, place.state / "trust" / "audit.json"]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE(place.folder.stat().st_mode) == 0o700


async def test_parameters_are_kept_as_hmacs_of_this_installation(place, tmp_path):
    secret = {"password": "correct horse", "depth": 3}
    other = Place(tmp_path / "other")
    for one in (place, other):
        async with one.open() as trail:
            await trail.record(event(parameters=secret))
    own, foreign = place.records()[0], other.records()[0]
    assert set(own.params_hmac) == {"password", "depth"}
    assert b"horse" not in segments(place.folder)[0].path.read_bytes()
    assert own.params_hmac == {
        name: records.parameter_hmac(place.keys.hmac, name, value) for name, value in secret.items()
    }
    assert own.params_hmac != foreign.params_hmac


@pytest.mark.parametrize("text", ["\ud800", "a\nb", "\x00", "x" * 100_000, '","hash":"' + "0" * 64])
async def test_no_text_breaks_a_record(place, text):
    async with place.open() as trail:
        await trail.record(event(actor=text, reason=text, parameters={text: text}))
    assert place.verify().finding is None
    assert segments(place.folder)[0].path.stat().st_size < 10_000


async def test_no_parameter_breaks_a_record(place):
    circular: list[object] = []
    circular.append(circular)
    odd = {"circular": circular, "set": {1, 2}, "keys": {(1, 2): 3}, 7: None, "n" * 500: b"x"}
    many = {f"{number:03}\x01" * 50: number for number in range(500)}
    async with place.open() as trail:
        await trail.record(event(parameters=odd))
        await trail.record(event(parameters=many, actor=None, run=7))
        await trail.record(event(2))
    assert place.verify().finding is None
    assert [one.actor for one in place.records()] == [OPERATOR, "None", OPERATOR]


async def test_a_checkpoint_follows_a_number_of_records(place):
    async with place.open(checkpoint_records=10) as trail:
        await write(trail, 25, at_once=5)
        await trail.run_in_thread(lambda _writer: None)
        assert len(place.sink.path.read_text().splitlines()) == 2
    assert len(place.sink.path.read_text().splitlines()) == 3
    assert place.verify().proven == 25


async def test_a_checkpoint_is_due_a_minute_after_the_last_one(place):
    async with place.open() as trail:
        await write(trail, 2)
        assert 0 < await trail.run_in_thread(lambda writer: writer.due_in()) <= 60
        await trail.checkpoint()
        assert await trail.run_in_thread(lambda writer: writer.due_in()) is None


async def test_a_second_place_that_fails_gets_the_checkpoint_later(place):
    place.sink.path.mkdir()
    async with place.open() as trail:
        await write(trail, 2)
        await trail.checkpoint()
        assert trail.counters.checkpoint_failures >= 1 or await _counted(trail)
        place.sink.path.rmdir()
        await trail.checkpoint()
        assert len(place.sink.path.read_text().splitlines()) == 1
    assert place.verify().finding is None


async def _counted(trail):
    return await trail.run_in_thread(lambda writer: writer.checkpoint_failures)


async def test_notes_are_written_at_the_latest_at_the_end(place):
    async with place.open() as trail:
        trail.note(event(1))
        trail.note(event(2))
    assert [one.object for one in place.records()] == ["run_1", "run_2"]


async def test_equal_notes_are_one_record_with_their_number(place):
    async with place.open() as trail:
        for _ in range(7):
            trail.note(event(1, decision="deny"))
        await trail.end()
    (record,) = place.records()
    assert (record.count, record.decision) == (7, "deny")


async def test_one_actor_cannot_fill_the_trail_with_notes(place):
    async with place.open() as trail:
        for number in range(PER_ACTOR + 20):
            trail.note(event(number))
        trail.note(event(actor="spiffe://test.hivemesh.internal/worker/a/b"))
        await trail.end()
        assert trail.counters.dropped == 20
    told = [one for one in place.records() if one.action == "trail:notes-dropped"]
    assert [one.count for one in told] == [20]
    assert len(place.records()) == PER_ACTOR + 2


async def test_a_checkpoint_can_go_to_the_log_of_the_system(place):
    address = place.state / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(address))
        log.settimeout(10)
        sink = SyslogSink(place.state / "end", address)
        async with open_trail(place.folder, place.keys, sink, place.clock) as trail:
            await trail.record(event())
            await trail.checkpoint()
            message = await asyncio.to_thread(log.recv, 4096)
    head, _, text = message.decode().partition(" ")
    assert head == "<109>hivemesh-audit:"
    found = checkpoint_of(text, place.keys.public)
    assert (found.seq, found.hash) == (1, place.records()[0].hash)


def test_the_second_place_is_a_file_or_the_log(tmp_path):
    assert isinstance(sink_of("syslog", tmp_path), SyslogSink)
    assert sink_of("a.jws", tmp_path).path == tmp_path / "a.jws"
    assert sink_of("/elsewhere/a.jws", tmp_path).path == Path("/elsewhere/a.jws")


async def test_nothing_is_recorded_after_the_end(place):
    async with place.open() as trail:
        pass
    with pytest.raises(AuditUnavailableError):
        await trail.record(event())
    with pytest.raises(AuditUnavailableError):
        await trail.end()
    trail.note(event())
