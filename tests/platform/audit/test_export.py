"""An export is a piece of the chain that verifies alone, and that nobody shortens unseen."""

from datetime import timedelta

import pytest
from audit_support import Place, write
from hivemesh_platform.audit.errors import AuditDamagedError
from hivemesh_platform.audit.export import Span, export, verify_export

HOUR = timedelta(hours=1)


@pytest.fixture
async def place(tmp_path):
    """Four hours with ten records each."""
    found = Place(tmp_path)
    async with found.open(checkpoint_records=5) as trail:
        for _ in range(4):
            await write(trail, 10)
            found.clock.advance(HOUR)
    return found


def exported(place, *, since=None, until=None, last=40):
    now = place.clock.now()
    span = Span(
        trust_domain="test.hivemesh.internal",
        now=now,
        last=last,
        since=None if since is None else now - since,
        until=None if until is None else now - until,
    )
    path = place.state / "export.ndjson"
    path.write_bytes(b"".join(export(place.folder, place.keys, span)))
    return path


async def test_all_of_it(place):
    report = verify_export(exported(place))
    assert report.finding is None
    assert (report.first, report.last, report.proven) == (1, 40, 40)
    assert report.keys == [place.keys.signing.public.id]


async def test_a_span_of_time_is_one_piece_of_the_chain(place):
    path = exported(place, since=3 * HOUR, until=HOUR)
    report = verify_export(path)
    assert report.finding is None
    assert (report.first, report.last, report.records) == (11, 30, 20)
    assert b'"checkpoint":' in path.read_bytes()


async def test_nothing_is_an_export_too(place):
    report = verify_export(exported(place, since=timedelta(seconds=-5)))
    assert (report.finding, report.records) == (None, 0)


async def test_records_that_are_not_durable_yet_are_left_out(place):
    assert verify_export(exported(place, last=33)).last == 33


async def test_the_key_can_be_pinned(place):
    path = exported(place)
    assert verify_export(path, key=place.keys.signing.public.id).finding is None
    assert verify_export(path, key="0" * 16).finding.kind == "checkpoint"


def lines_of(path):
    return path.read_bytes().splitlines(keepends=True)


TAMPERED = {
    "a member is changed": (lambda ls: [*ls[:5], ls[5].replace(b"run_", b"RUN_"), *ls[6:]], 15),
    "one is missing": (lambda ls: [*ls[:5], *ls[6:]], 15),
    "the first is missing": (lambda ls: [ls[0], *ls[2:]], 11),
    "the last records are missing": (lambda ls: [*ls[:16], *ls[21:]], 26),
    "the end is missing": (lambda ls: ls[:-1], 11),
    "records and the end are missing": (lambda ls: ls[:10], 11),
    "two change places": (lambda ls: [*ls[:5], ls[6], ls[5], *ls[7:]], 15),
    "one is put in": (lambda ls: [*ls[:5], ls[4], *ls[5:]], 15),
    "something stands behind the end": (lambda ls: [*ls, ls[-1]], 31),
}


@pytest.mark.parametrize("form", TAMPERED)
async def test_tampering_names_the_first_bad_record(place, form):
    work, seq = TAMPERED[form]
    path = exported(place, since=3 * HOUR, until=HOUR)
    path.write_bytes(b"".join(work(lines_of(path))))
    finding = verify_export(path).finding
    assert finding is not None
    assert finding.seq == seq


@pytest.mark.parametrize("data", [b"", b"{}\n", b"nonsense\n", b'{"action":"a"}\n'])
async def test_what_is_no_export_is_refused(tmp_path, data):
    path = tmp_path / "x.ndjson"
    path.write_bytes(data)
    with pytest.raises(AuditDamagedError):
        verify_export(path)
