"""Old segments are dropped whole; what they leave is enough to verify the rest, and no more."""

from datetime import timedelta

import pytest
from audit_support import Place, write
from hivemesh_platform.audit.segments import segments

MONTH = timedelta(days=30)


@pytest.fixture
async def place(tmp_path):
    """Three old segments and one of today."""
    found = Place(tmp_path)
    async with found.open(checkpoint_records=5) as trail:
        for _ in range(3):
            await write(trail, 10)
            found.clock.advance(timedelta(days=1))
        found.clock.advance(MONTH)
        await write(trail, 10)
    assert [one.first for one in segments(found.folder)] == [1, 11, 21, 31]
    return found


async def dropped(place, age):
    async with place.open() as trail:
        return await trail.drop_before(age)


async def test_segments_are_dropped_by_the_age_of_their_last_record(place):
    heads = await dropped(place, MONTH + timedelta(days=1, hours=12))
    assert [(one.first, one.last) for one in heads] == [(1, 10), (11, 20)]
    known = segments(place.folder)
    assert [one.dropped for one in known] == [True, True, False, False]
    assert not known[0].checkpoints.exists()


async def test_the_rest_still_verifies(place):
    await dropped(place, MONTH + timedelta(days=1, hours=12))
    report = place.verify()
    assert report.finding is None
    assert (report.dropped, report.first, report.records) == (20, 21, 22)
    told = [one.object for one in place.records() if one.action == "trail:dropped"]
    assert told == ["records:1-10", "records:11-20"]


async def test_nothing_young_is_dropped(place):
    assert await dropped(place, timedelta(days=365)) == []
    assert place.verify().records == 40


async def test_the_segment_in_use_is_never_dropped(place):
    place.clock.advance(timedelta(days=900))
    heads = await dropped(place, timedelta(days=1))
    assert [one.first for one in heads] == [1, 11, 21, 31]  # the write began a new one
    assert [one.dropped for one in segments(place.folder)] == [True, True, True, True, False]
    assert place.verify().finding is None


async def test_it_is_dropped_once(place):
    await dropped(place, MONTH)
    assert await dropped(place, MONTH) == []
    assert place.verify().finding is None


async def test_who_removes_a_segment_himself_is_found_by_the_missing_record(place):
    second = segments(place.folder)[1]
    second.path.unlink()
    second.checkpoints.unlink()
    finding = place.verify().finding
    assert (finding.seq, finding.kind) == (11, "missing")


async def test_who_removes_a_head_too_leaves_a_gap(place):
    await dropped(place, MONTH)
    segments(place.folder)[1].head.unlink()
    finding = place.verify().finding
    assert (finding.seq, finding.kind) == (11, "missing")


async def test_a_forged_head_is_refused(place, tmp_path):
    await dropped(place, MONTH)
    head = segments(place.folder)[0].head
    text, _, signature = head.read_text().strip().rpartition(".")
    head.write_text(f"{text}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}")
    finding = place.verify().finding
    assert (finding.seq, finding.kind) == (1, "missing")


async def test_a_head_of_another_segment_does_not_fit(place):
    await dropped(place, MONTH)
    known = segments(place.folder)
    known[1].head.write_bytes(known[0].head.read_bytes())
    assert place.verify().finding.seq == 11


async def test_segments_may_be_dropped_that_told_of_dropping_others(place):
    await dropped(place, MONTH + timedelta(days=1, hours=12))
    place.clock.advance(2 * MONTH)
    async with place.open() as trail:
        await write(trail, 3)
    await dropped(place, MONTH)
    report = place.verify()
    assert report.finding is None
    assert report.dropped == 42
