"""What commands do beside the platform is in the chain as soon as the platform runs."""

import stat
from datetime import timedelta

import pytest
from audit_support import Place, event
from hivemesh_platform.audit.aside import AsideTrail, left
from hivemesh_platform.audit.errors import AuditUnavailableError
from hivemesh_platform.audit.service import AuditOptions, open_audit


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


async def test_events_are_taken_up_in_their_order_with_their_time(place, database):
    aside = AsideTrail(place.folder, place.clock)
    for number in range(3):
        await aside.record(event(number))
        place.clock.advance(1.0)
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path, *_ in left(place.folder))
    place.clock.advance(timedelta(hours=1))
    options = AuditOptions(trust_domain="test.hivemesh.internal", checkpoint_file="elsewhere.jws")
    async with open_audit(place.state, database, place.clock, options) as audit:
        await audit.take_up()
        await audit.take_up()
    found = place.records()
    assert [one.object for one in found] == ["run_0", "run_1", "run_2"]
    assert found[0].ts < found[1].ts < found[2].ts < place.clock.now().isoformat()
    assert list(left(place.folder)) == []


async def test_an_event_that_cannot_be_left_is_refused(place):
    place.folder.mkdir()
    (place.folder / "aside").write_text("in the way")
    with pytest.raises(AuditUnavailableError):
        await AsideTrail(place.folder, place.clock).record(event())


async def test_what_cannot_be_read_is_left_alone(place):
    aside = AsideTrail(place.folder, place.clock)
    await aside.record(event(1))
    (place.folder / "aside" / "0.json").write_text("{")
    assert [one.target for _, one, _ in left(place.folder)] == ["run_1"]
