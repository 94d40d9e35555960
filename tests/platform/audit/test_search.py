"""Records are found by who, what, which object, when; the index follows the files."""

from datetime import timedelta

import pytest
from audit_support import OPERATOR, Place, event, write
from hivemesh_platform.audit.index import AuditIndex, Query
from hivemesh_platform.audit.segments import segments
from hivemesh_sdk.errors import InvalidError

WORKER = "spiffe://test.hivemesh.internal/worker/echo/i1"


@pytest.fixture
async def place(tmp_path):
    found = Place(tmp_path)
    async with found.open(segment_bytes=3000) as trail:
        await write(trail, 20)
        found.clock.advance(timedelta(hours=1))
        await trail.record(event(actor=WORKER, action="read:secret", target="a.b", run="run_9"))
        await trail.record(event(decision="deny", reason="no rule", tenant="other"))
        await trail.record(event(actor="token:t1", on_behalf_of=OPERATOR, target="x[1]?"))
    return found


@pytest.fixture
async def index(place, database):
    made = AuditIndex(database, place.folder)
    await made.follow(23)
    return made


async def numbers(index, **query):
    return [one.seq for one in await index.find(Query(**query))]


async def test_the_newest_come_first(index):
    assert await numbers(index) == list(range(23, 0, -1))
    assert await numbers(index, limit=2) == [23, 22]
    assert await numbers(index, before=3) == [2, 1]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"actor": WORKER}, [21]),
        ({"actor": "*/worker/*"}, [21]),
        ({"actor": "token:t1"}, [23]),
        ({"actor": OPERATOR, "before": 100, "limit": 3}, [23, 22, 20]),
        ({"action": "read:*"}, [21]),
        ({"object": "run_7"}, [8]),
        ({"object": "x[1]?"}, [23]),
        ({"object": "x[1]*"}, [23]),
        ({"object": "x[?]?*"}, []),
        ({"run": "run_9"}, [21]),
        ({"decision": "deny"}, [22]),
        ({"tenant": "other"}, [22]),
        ({"actor": "' OR 1=1 --"}, []),
    ],
)
async def test_filters(index, query, expected):
    assert await numbers(index, **query) == expected


async def test_times(index, place):
    boundary = place.clock.now() - timedelta(minutes=30)
    assert await numbers(index, since=boundary) == [23, 22, 21]
    assert await numbers(index, until=boundary, limit=2) == [20, 19]


async def test_a_pattern_with_many_stars_is_refused(index):
    with pytest.raises(InvalidError):
        await numbers(index, actor="*a*b*c*d*")


async def test_only_durable_records_are_taken_up(place, database):
    index = AuditIndex(database, place.folder)
    await index.follow(5)
    assert await numbers(index) == [5, 4, 3, 2, 1]
    await index.follow(23)
    assert len(await numbers(index)) == 23


async def test_a_next_start_goes_on_with_the_index(place, database, index):
    await place.filled(2)
    again = AuditIndex(database, place.folder)
    await again.follow(25)
    assert (await numbers(again))[:3] == [25, 24, 23]


async def test_an_index_that_does_not_fit_the_files_is_made_again(place, database, index):
    await database.write(lambda tx: tx.execute("UPDATE audit_index SET place = place + 7"))
    again = AuditIndex(database, place.folder)
    await again.follow(23)
    assert await numbers(again) == list(range(23, 0, -1))


async def test_an_index_of_a_trail_that_was_shortened_is_made_again(place, database, index):
    for one in segments(place.folder)[1:]:
        one.path.unlink()
    again = AuditIndex(database, place.folder)
    await again.follow(23)
    left = place.records()
    assert len(left) < 23
    assert await numbers(again) == [one.seq for one in reversed(left)]


async def test_dropped_records_are_forgotten(index):
    await index.forget_up_to(20)
    assert await numbers(index) == [23, 22, 21]
