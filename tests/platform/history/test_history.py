"""The history checker finds each kind of fault; a checker that cannot fail proves nothing."""

from dataclasses import replace

import pytest
from history import Accepted, Begun, Final, History, Ledger, append, check, lines

GOOD = History(
    accepted=(Accepted(1, "job_a"), Accepted(2, "job_b")),
    begun=(
        Begun(1, "job_a.job.0", "x1"),
        Begun(2, "job_b.job.0", "x2"),
        Begun(2, "job_b.job.0", "x3"),
    ),
    keyed={"job_a.job.0": 1, "job_b.job.0": 2},
    finals=(Final("job_a", "completed", "x1"), Final("job_b", "completed", "x3")),
    kills=1,
)


def test_a_good_history_has_no_faults():
    verdict = check(GOOD)
    assert verdict.faults == ()
    assert (verdict.jobs, verdict.repeats) == (2, 1)


def test_a_result_that_is_read_twice_is_one_result():
    assert check(replace(GOOD, finals=GOOD.finals * 2)).faults == ()


@pytest.mark.parametrize(
    ("kind", "faulty"),
    [
        ("lost", replace(GOOD, finals=GOOD.finals[:1])),
        ("lost", replace(GOOD, finals=(GOOD.finals[0], Final("job_b", "failed")))),
        ("lost", replace(GOOD, keyed={"job_a.job.0": 1})),
        ("duplicates", replace(GOOD, keyed={**GOOD.keyed, "job_c.job.0": 2})),
        ("duplicates", replace(GOOD, accepted=(*GOOD.accepted, Accepted(2, "job_c")))),
        ("stale", replace(GOOD, finals=(GOOD.finals[0], Final("job_b", "completed", "x2")))),
        ("stale", replace(GOOD, finals=(*GOOD.finals, Final("job_b", "completed", "x2")))),
        ("invented", replace(GOOD, keyed={**GOOD.keyed, "job_c.job.0": 3})),
        ("invented", replace(GOOD, finals=(GOOD.finals[0], Final("job_b", "completed", "x9")))),
        ("too_many_repeats", replace(GOOD, kills=0)),
    ],
)
def test_a_faulty_history_is_found(kind: str, faulty: History):
    assert getattr(check(faulty), kind)
    assert check(faulty).faults


def test_a_line_that_was_cut_by_a_crash_is_not_read(tmp_path):
    file = tmp_path / "begun"
    append(file, {"number": 1})
    with file.open("ab") as cut:
        cut.write(b'{"numb')
    assert lines(file) == [{"number": 1}]


def test_the_ledger_gives_back_what_was_written(tmp_path):
    ledger = Ledger.create(tmp_path / "ledger")
    ledger.accept(1, "job_a")
    append(ledger.folder / "begun", {"number": 1, "key": "job_a.job.0", "execution": "x1"})
    (ledger.folder / "keyed" / "job_a.job.0").write_text("1")
    history = ledger.history([Final("job_a", "completed", "x1")], kills=0)
    assert check(history).faults == ()
    assert ledger.numbers() == {1}
