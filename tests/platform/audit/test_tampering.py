"""Whatever is done to the files afterwards, verification names the first record that does not hold."""

import json
import shutil

import pytest
from audit_support import Place, event
from hivemesh_platform.audit import records
from hivemesh_platform.audit.checkpoints import Checkpoint
from hivemesh_platform.audit.records import GENESIS
from hivemesh_platform.audit.segments import segments
from hivemesh_platform.audit.verification import verify
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

NUMBER = 30


@pytest.fixture
async def place(tmp_path):
    found = Place(tmp_path)
    await found.filled(NUMBER, checkpoint_records=10)
    assert found.verify().finding is None
    return found


def file_of(place):
    return segments(place.folder)[-1].path


def change(place, work):
    """Rewrite the lines of the only segment."""
    path = file_of(place)
    before = path.read_bytes().split(b"\n")[:-1]
    after = work(list(before))
    assert after != before
    path.write_bytes(b"".join(line + b"\n" for line in after))


def swapped(lines, one, two):
    lines[one], lines[two] = lines[two], lines[one]
    return lines


def edited(lines, at, old=b'"decision":"allow"', new=b'"decision":"deny"'):
    assert old in lines[at]
    lines[at] = lines[at].replace(old, new)
    return lines


def chained(lines, first):
    """Give every line from `first` (an index) on the number and hashes that its place asks for."""
    prev = json.loads(lines[first - 1])["hash"] if first else GENESIS
    for at in range(first, len(lines)):
        found = json.loads(lines[at])
        found = {name: found[name] for name in found if name not in {"hash", "prev", "seq"}}
        lines[at], prev = records.line(found, at + 1, prev)
    return lines


FORMS = {
    "a member is changed": (lambda ls: edited(ls, 4), 5, "changed"),
    "a line loses its end": (lambda ls: [*ls[:4], ls[4][:-10], *ls[5:]], 5, "unreadable"),
    "a line is emptied": (lambda ls: [*ls[:4], b"", *ls[5:]], 5, "unreadable"),
    "blanks are put in": (lambda ls: [*ls[:4], ls[4].replace(b",", b", ", 1), *ls[5:]], 5, "changed"),
    "the first is deleted": (lambda ls: ls[1:], 1, "missing"),
    "one is deleted": (lambda ls: [*ls[:6], *ls[7:]], 7, "missing"),
    "several are deleted": (lambda ls: [*ls[:6], *ls[16:]], 7, "missing"),
    "two change places": (lambda ls: swapped(ls, 8, 9), 9, "missing"),
    "the last two change places": (lambda ls: swapped(ls, 28, 29), 29, "missing"),
    "one is repeated": (lambda ls: [*ls[:8], ls[7], *ls[8:]], 9, "inserted"),
    "an old one is put in again": (lambda ls: [*ls[:8], ls[2], *ls[8:]], 9, "inserted"),
    "a foreign line is put in": (lambda ls: [*ls[:8], b'{"a":1}', *ls[8:]], 9, "unreadable"),
    "a forged one is put in": (lambda ls: [*ls[:8], chained([*ls[:8], ls[3]], 8)[8], *ls[8:]], 9, "inserted"),
    "the last is cut off": (lambda ls: ls[:-1], 30, "missing"),
    "many are cut off": (lambda ls: ls[:12], 13, "missing"),
    "all are cut off": (lambda ls: [], 1, "missing"),
    "one is changed and all after it are chained anew": (lambda ls: chained(edited(ls, 14), 14), 11, "rewritten"),
    "one is deleted and all after it are chained anew": (lambda ls: chained([*ls[:14], *ls[15:]], 14), 11, "rewritten"),
    "the whole is chained anew": (lambda ls: chained(edited(ls, 0), 0), 1, "rewritten"),
    "one is added and chained": (lambda ls: chained([ls[3], *ls], 0), 1, "rewritten"),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
async def test_the_first_bad_record_is_named(place, form):
    work, seq, kind = FORMS[form]
    change(place, work)
    finding = place.verify().finding
    assert finding is not None
    assert (finding.seq, finding.kind) == (seq, kind)


async def test_every_single_bit_counts(tmp_path):
    place = Place(tmp_path)
    await place.filled(1)
    path = file_of(place)
    good = path.read_bytes()
    for at in range(len(good)):
        for bit in range(8):
            flipped = bytearray(good)
            flipped[at] ^= 1 << bit
            path.write_bytes(flipped)
            finding = place.verify().finding
            assert finding is not None, (at, bit)
            assert finding.seq == 1, (at, bit, finding)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None
)
@given(data=st.data())
async def test_no_permutation_or_selection_of_the_lines_holds_but_the_own(place, data):
    path = file_of(place)
    good = path.read_bytes()
    own = good.split(b"\n")[:-1]
    chosen = data.draw(st.lists(st.sampled_from(own), max_size=NUMBER + 5))
    first = next(
        (at for at, line in enumerate(chosen) if at >= NUMBER or line != own[at]), len(chosen)
    )
    path.write_bytes(b"".join(line + b"\n" for line in chosen))
    finding = place.verify().finding
    path.write_bytes(good)
    if chosen == own:
        assert finding is None
    else:
        assert finding is not None
        assert finding.seq == first + 1


async def test_a_trail_that_was_deleted_is_missing_from_its_first_record_on(place):
    shutil.rmtree(place.folder)
    _ = place.keys  # tells the public half again, as a start does
    finding = place.verify().finding
    assert (finding.seq, finding.kind) == (1, "missing")


async def test_who_rewrites_records_and_checkpoints_is_found_by_the_second_place(place):
    change(place, lambda lines: chained(edited(lines, 0), 0))
    segments(place.folder)[-1].checkpoints.unlink()
    assert place.verify().finding.kind == "rewritten"


async def test_who_signs_anew_with_another_key_is_found_by_the_second_place(place, tmp_path):
    other = Place(tmp_path / "other")
    await other.filled(NUMBER)
    shutil.rmtree(place.folder)
    shutil.copytree(other.folder, place.folder)
    finding = place.verify().finding
    assert (finding.seq, finding.kind) == (1, "checkpoint")


async def test_only_the_named_key_counts(place, tmp_path):
    known = place.keys.signing.public.id
    assert place.verify(key=known).finding is None
    assert place.verify(key="0" * 16).finding.kind == "checkpoint"


async def test_a_changed_checkpoint_is_found(place):
    path = segments(place.folder)[-1].checkpoints
    lines = path.read_text().splitlines()
    head, _, signature = lines[1].rpartition(".")
    changed = f"{head}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"
    path.write_text("\n".join([lines[0], changed, *lines[2:], ""]))
    finding = place.verify().finding
    assert (finding.seq, finding.kind) == (11, "checkpoint")


async def test_the_second_place_alone_tells_of_records_that_are_gone(place):
    """The attacker owns the state folder, but not the other volume."""
    change(place, lambda lines: lines[:12])
    path = segments(place.folder)[-1].checkpoints
    path.write_text("".join(f"{line}\n" for line in path.read_text().splitlines()[:1]))
    finding = place.verify().finding
    assert (finding.seq, finding.kind) == (13, "missing")


async def test_a_second_place_that_is_gone_is_a_finding(place):
    place.sink.path.unlink()
    finding = place.verify().finding
    assert (finding.seq, finding.kind) == (1, "checkpoint")
    assert str(place.sink.path) in finding.detail
    place.sink.path.touch()
    assert place.verify().finding == finding


async def test_many_records_without_any_checkpoint_are_a_finding(tmp_path):
    place = Place(tmp_path)
    await place.filled(1_010)
    for path in (place.sink.path, *(one.checkpoints for one in segments(place.folder))):
        path.unlink()
    assert place.verify().finding.kind == "checkpoint"


async def test_a_young_trail_needs_no_second_place_yet(place):
    place.sink.path.unlink()
    segments(place.folder)[-1].checkpoints.unlink()
    assert place.verify().finding is None


async def test_where_no_second_place_is_named_the_report_says_so(place):
    report = verify(place.folder)
    assert report.finding is None
    assert any("second" in one for one in report.remarks)


async def test_the_running_platform_misses_records_that_nothing_names_any_more(place):
    """Somebody owns both places: the platform itself still knows what it wrote."""
    old = place.sink.end.read_bytes()
    async with place.open() as trail:
        await trail.record(event())
        end = await trail.end()
        known = Checkpoint(seq=end.seq, hash=end.hash, ts="")
        assert place.verify(end=known).finding is None
        change(place, lambda lines: lines[:-1])
        place.sink.end.write_bytes(old)
        assert place.verify().finding is None  # nobody who reads the files alone can know
        finding = place.verify(end=known).finding
        assert (finding.seq, finding.kind) == (31, "missing")
