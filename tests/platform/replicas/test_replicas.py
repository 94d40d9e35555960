"""Replicas: who is dead, whose commits count, who leads."""

import asyncio
import threading
from datetime import timedelta

import pytest
from hivemesh_platform.replicas.model import (
    SILENT_BEATS,
    ReplicaIdInUseError,
    ReplicaKeysDifferError,
    ReplicaState,
    StaleReplicaError,
)
from hivemesh_platform.replicas.service import LEAD_FOR_S, folder_id
from hivemesh_platform.storage.errors import DatabaseUnreachableError, StorageError
from leader_conformance import LeaderConformance, take
from replica_support import WORK, joined, replica, ticks
from structlog.testing import capture_logs


class TestLeader(LeaderConformance):
    """By rows of either database."""


async def state_of(one, name):
    return (await one.present()).replicas[name].state


async def test_each_start_has_an_epoch_of_its_own(database):
    first = replica(database, "p1")
    await first.join()
    again = replica(database, "p1")
    await again.join()
    assert again.standing.epoch > first.standing.epoch


async def test_a_silent_replica_is_declared_dead_once(database):
    a, b, c = await joined(database, "a", "b", "c")
    await ticks(SILENT_BEATS, b, c)
    assert await take(b) == ["a"]
    assert await take(c) == []
    assert await state_of(c, "a") is ReplicaState.DEAD
    assert a.standing.epoch < (await b.present()).replicas["a"].epoch


async def test_a_replica_that_beats_now_and_then_lives(database):
    a, b = await joined(database, "a", "b")
    for _ in range(3):
        await ticks(SILENT_BEATS - 1, b)
        await ticks(1, a)
    await ticks(1, b)
    assert not b._gone
    assert await state_of(b, "a") is ReplicaState.LIVE


async def test_a_heartbeat_between_the_look_and_the_decision_saves_it(database):
    a, b = await joined(database, "a", "b")
    await ticks(SILENT_BEATS, b)
    await ticks(1, a)
    assert await take(b) == []


async def test_a_replica_that_was_stopped_kills_nobody_when_it_wakes(database):
    """Its last look was long ago, but it is one look."""
    a, b = await joined(database, "a", "b")
    await ticks(50, a)
    b._clock.advance(3600.0)
    await ticks(1, b)
    assert not b._gone


async def test_a_clock_that_jumps_kills_nobody(database):
    a, b = await joined(database, "a", "b")
    for hours in (1, -2):
        a._clock.jump(timedelta(hours=hours))
        await ticks(2, b, a)
    assert not b._gone
    assert not a._gone


async def test_whose_clock_is_off_is_logged_once_until_it_is_right(database):
    a, b = await joined(database, "a", "b")
    with capture_logs() as lines:
        for minutes in (10, -9, -11, 10):  # ahead; by a minute, which tickets bear; behind; right
            a._clock.jump(timedelta(minutes=minutes))
            await ticks(4, a, b)
    seen = [(one["replica"], one["detail"]) for one in lines if one["event"] == "replica_clock_off"]
    assert seen == [
        ("b", "its clock is 600 s behind ours"),
        ("a", "its clock is 600 s ahead of ours"),
        ("b", "its clock is 600 s ahead of ours"),
        ("a", "its clock is 600 s behind ours"),
    ]


async def test_one_old_heartbeat_says_nothing_of_a_clock(database):
    """Whoever was stopped sees one that was written before."""
    a, b = await joined(database, "a", "b")
    await ticks(1, a)
    b._clock.jump(timedelta(minutes=10))
    with capture_logs() as lines:
        await ticks(1, b)
        a._clock.jump(timedelta(minutes=10))
        await ticks(4, a, b)
    assert not [one for one in lines if one["event"] == "replica_clock_off"]


async def test_commits_of_a_dead_replica_are_refused_until_it_has_joined_again(database):
    a, b = await joined(database, "a", "b")
    await ticks(SILENT_BEATS, b)
    await take(b)
    with pytest.raises(StaleReplicaError):
        await database.write(a.standing.check)
    assert a.standing.refused == 1
    await a.tick()
    assert a.rejoined.is_set()
    await database.write(a.standing.check)
    assert await state_of(b, "a") is ReplicaState.LIVE


async def test_one_that_left_in_order_is_taken_over_at_once(database):
    a, b = await joined(database, "a", "b")
    await a.leave()
    await ticks(1, b)
    [gone] = await b.gone()
    assert gone.state is ReplicaState.LEFT
    await database.write(lambda tx: b.settle(tx, gone))
    await ticks(1, b)
    assert not b._gone


@pytest.mark.parametrize("joins", [False, True])
async def test_an_answer_that_was_held_back_makes_nobody_lead(database, monkeypatch, joins):
    a, _ = await joined(database, "a", "b")
    assert a.leads(WORK)
    write = database.write

    async def held_back(work):
        found = await write(work)
        a._clock.advance(LEAD_FOR_S + 1)  # the process was stopped meanwhile
        return found

    monkeypatch.setattr(database, "write", held_back)
    await (a._join_again() if joins else a.tick())
    assert not a.leads(WORK)
    with pytest.raises(DatabaseUnreachableError):
        a.told()


async def test_who_has_no_database_sends_workers_to_the_others(database):
    a, b = await joined(database, "a", "b")
    assert len(a.told()) == 2
    a._clock.advance(LEAD_FOR_S + 1)
    with pytest.raises(DatabaseUnreachableError) as refused:
        a.told()
    assert refused.value.problem().status == 503
    await a.tick()
    assert len(a.told()) == 2
    await b.leave()
    await a.tick()
    a._clock.advance(LEAD_FOR_S + 1)
    assert len(a.told()) == 1  # there is nobody else to ask


async def test_a_second_process_under_the_same_id_is_refused(database):
    [a] = await joined(database, "a")

    async def beat():
        while True:
            await a.tick()
            await asyncio.sleep(0)

    beating = asyncio.create_task(beat())
    try:
        with pytest.raises(ReplicaIdInUseError):
            await replica(database, "a", folder="another").join()
    finally:
        beating.cancel()
        await asyncio.wait([beating])


async def test_other_keys_are_refused(database):
    await joined(database, "a")
    with pytest.raises(ReplicaKeysDifferError):
        await replica(database, "b", shared="other").join()


async def test_a_database_that_is_away_kills_nobody(database):
    a, b = await joined(database, "a", "b")
    write = database.write

    def away(_work, **_options):
        raise StorageError("away")

    b._database.write = away
    for _ in range(SILENT_BEATS + 1):
        with pytest.raises(StorageError):
            await b.tick()
    b._database.write = write
    await ticks(SILENT_BEATS - 1, b)
    assert not b._gone
    assert a.standing.epoch == (await b.present()).replicas["a"].epoch


def test_a_folder_has_one_id_for_all(tmp_path):
    assert folder_id(tmp_path / "x") == folder_id(tmp_path / "x") != folder_id(tmp_path / "y")


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_a_commit_that_waits_for_locks_does_not_silence_its_replica(database):
    (a,) = await joined(database, "a")
    inside, go = threading.Event(), threading.Event()

    def commit(tx):
        a.standing.check(tx)
        inside.set()
        go.wait(10)

    waiting = database.write(commit)
    await asyncio.to_thread(inside.wait, 10)
    try:
        async with asyncio.timeout(30):
            await a.tick()
    finally:
        go.set()
        await waiting


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_nobody_is_declared_dead_beside_what_it_commits(database):
    a, b = await joined(database, "a", "b")
    inside, go = threading.Event(), threading.Event()

    def commit(tx):
        a.standing.check(tx)
        inside.set()
        go.wait(10)

    waiting = database.write(commit)
    await asyncio.to_thread(inside.wait, 10)
    seen = (await b.present()).replicas["a"]
    fenced = database.write(lambda tx: b.fence(tx, seen))
    done, _ = await asyncio.wait({fenced}, timeout=0.2)
    go.set()
    await waiting
    assert not done
    assert await fenced
