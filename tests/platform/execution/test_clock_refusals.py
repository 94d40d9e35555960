"""How often a row comes back whose tickets are refused for their time, without bound or with one."""

from types import SimpleNamespace

from hivemesh_platform.execution.model import WorkKey
from hivemesh_platform.execution.steps import clock_refusals
from hivemesh_platform.execution.steps.clock_refusals import LONGEST_S, ClockRefusals

ROW, OTHER = WorkKey("run_1", "step", 1), WorkKey("run_1", "step", 2)


def test_a_row_comes_back_a_few_times_soon_and_then_once_a_minute():
    refusals = ClockRefusals()
    waits = [refusals.again_s(ROW) for _ in range(2000)]
    assert waits[:9] == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0]
    assert set(waits[9:]) == {LONGEST_S}
    assert refusals.again_s(OTHER) == 0.25


def test_what_a_worker_has_taken_begins_anew():
    refusals = ClockRefusals()
    for row in (ROW, ROW, OTHER):
        refusals.again_s(row)
    refusals.taken([SimpleNamespace(key=ROW)])
    assert (refusals.again_s(ROW), refusals.again_s(OTHER)) == (0.25, 0.5)


def test_so_many_rows_are_told_apart(monkeypatch):
    monkeypatch.setattr(clock_refusals, "KEPT", 3)
    refusals = ClockRefusals()
    for number in range(10):
        refusals.again_s(WorkKey("run_1", "step", number))
    assert len(refusals._counts) == 3
